"""HTTP: one handler for each operation of the protocol, and the doors that lead to them."""
