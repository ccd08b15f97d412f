"""The protocol over HTTP: one handler for each operation, and the entry points through which requests arrive."""
