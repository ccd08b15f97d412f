"""SQLite as a simulated process meets it: statements take time, others hold the lock, the disk fails.

The database is a real one. Each statement is a point at which others may go on, so one thread may be in the middle of
a transaction while another one begins its own, and finds the database locked.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from . import primitives
from .faults import Faults

BUSY_SECONDS = 5.0
"""How long a connection waits for the lock, as it is opened: SQLite's `busy_timeout`."""

faults: Faults
"""Of the run that is under way."""


def use(current: Faults) -> None:
    """Begin a run."""
    global faults
    faults = current


class SimulatedConnection(sqlite3.Connection):
    """A connection of a task. Passed as `factory` in the options of the database."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options["timeout"] = 0.0
        self.busy_seconds = BUSY_SECONDS
        task = primitives.scheduler.current
        self._process = task.process if task is not None else None
        super().__init__(*args, **options)
        if self._process is not None:
            self._process.connections[self] = task

    def cursor(self, factory: Any = None) -> Any:
        if factory is None:
            return super().cursor(SimulatedCursor)
        return super().cursor(_simulated(factory))

    def commit(self) -> None:
        if self.in_transaction:
            run(self, "COMMIT", super().commit)

    def rollback(self) -> None:
        if self.in_transaction:
            run(self, "ROLLBACK", super().rollback)

    def close(self) -> None:
        if self._process is not None and self._process.is_dead:
            return  # by whoever ends the process
        self.end()

    def undo(self) -> None:
        """Roll back, whoever's it is."""
        super().rollback()

    def end(self) -> None:
        """Close it, whoever's it was."""
        if self._process is not None:
            self._process.connections.pop(self, None)
        super().close()


def run(connection: Any, sql: str, execute: Any) -> Any:
    """Execute a statement, as the run has it."""
    if primitives.scheduler.current is None:
        return execute()
    if sql.startswith("PRAGMA busy_timeout"):
        connection.busy_seconds = float(sql.rpartition("=")[2]) / 1000
        return None
    before = primitives.scheduler.now
    faults.before_statement(connection, sql)
    while True:
        try:
            result = execute()
            break
        except sqlite3.OperationalError as error:
            code = getattr(error, "sqlite_errorcode", 0)
            # A transaction that has read already is told at once, as waiting would not help it.
            if code & 0xFF != sqlite3.SQLITE_BUSY or connection.in_transaction or code == sqlite3.SQLITE_BUSY_SNAPSHOT:
                raise
            if primitives.scheduler.now - before >= connection.busy_seconds:
                raise
        primitives.scheduler.sleep(primitives.scheduler.rng.choice((0.001, 0.005, 0.025, 0.1)))
    faults.after_statement(connection, sql)
    return result


class SimulatedCursor(sqlite3.Cursor):
    """What `sqlite3.Cursor` is in a simulated process. Its methods may be called for other cursors, as functions."""

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        run(self.connection, sql, lambda: sqlite3.Cursor.execute(self, sql, parameters))
        return self

    def executemany(self, sql: str, parameters: Any) -> Any:
        rows = list(parameters)
        run(self.connection, sql, lambda: sqlite3.Cursor.executemany(self, sql, rows))
        return self


_kinds: dict[type, type] = {}


def _simulated(factory: type) -> type:
    """Return a cursor class whose statements are simulated too: Django's calls the driver's by `super`."""
    if issubclass(factory, SimulatedCursor):
        return factory
    kind = _kinds.get(factory)
    if kind is None:
        # Its own methods prepare what they are given, and call those of the class behind them in this order.
        kind = _kinds[factory] = type(f"Simulated{factory.__name__}", (factory, SimulatedCursor), {})
    return kind
