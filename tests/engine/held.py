"""Another transaction that holds streams, as that of a view does which appends and goes on working."""

import contextlib
from collections.abc import Iterator
from typing import Any

from django.db import connections


class Holder:
    """A connection of somebody else. On SQLite it holds all of the database.

    hold, release: begin and end a transaction that holds the streams at some paths.
    hold_table: the same for a whole table, as a migration does. Not on SQLite.
    """

    def __init__(self, using: str = "default") -> None:
        self._connection: Any = connections.create_connection(using)
        self._connection.ensure_connection()

    def hold(self, *paths: str) -> None:
        if self._connection.vendor == "sqlite":
            self._execute("BEGIN IMMEDIATE")
            return
        self._execute("BEGIN")
        marks = ", ".join(["%s"] * len(paths))
        self._execute(f"SELECT id FROM durable_streams_stream WHERE path IN ({marks}) FOR UPDATE", paths)

    def hold_table(self, table: str) -> None:
        if self._connection.vendor == "mysql":
            self._execute(f"LOCK TABLES {table} WRITE")
            return
        self._execute("BEGIN")
        self._execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")

    def release(self) -> None:
        if self._connection.vendor == "mysql":
            self._execute("UNLOCK TABLES")
        self._execute("ROLLBACK")

    def _execute(self, sql: str, parameters: tuple[str, ...] = ()) -> None:
        # The driver's, as Django's must not be used where an event loop runs.
        cursor = self._connection.connection.cursor()
        cursor.execute(sql, parameters)
        cursor.close()

    def close(self) -> None:
        self._connection.close()


@contextlib.contextmanager
def holder() -> Iterator[Holder]:
    """A holder that holds nothing yet."""
    one = Holder()
    try:
        yield one
    finally:
        one.close()
