"""The log: synchronous functions over the tables, each inside one transaction. No other code writes the tables.

Knows no request and no event loop, and starts no thread. `write` changes streams, `read` returns their data, `upkeep`
is the work of housekeeping, and `sql` has the statements of all three.
"""
