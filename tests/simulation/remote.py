"""PostgreSQL and MariaDB as simulated processes meet them: connections are lost, before a statement or after it.

The servers are real ones, and so is the time that they take: a run is not the same each time. While a task waits for a
server, others go on.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from . import primitives, sqlite


class Remote:
    """A connection of a task."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def undo(self) -> None:
        """Cut it: the server rolls back."""
        with suppress(Exception), socket.socket(fileno=os.dup(self._connection.fileno())) as plug:
            plug.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Cut it, whoever's it was."""
        self.undo()
        for process in self._owners():
            process.connections.pop(self, None)

    def _owners(self) -> list[Any]:
        return [self._connection.simulated_process]


def run(connection: Any, execute: Callable[[], Any], lost: Exception, drain: Callable[[], object] | None = None) -> Any:
    """Have a server do something, as the run has it.

    Args:
        lost: raised where the answer does not arrive.
        drain: takes the answer from the driver, which would mind to have it still.
    """
    scheduler = primitives.scheduler
    task = scheduler.current
    if task is None:
        return execute()
    remote = getattr(connection, "simulated", None)
    if remote is None:
        remote = connection.simulated = Remote(connection)
        connection.simulated_process = task.process
        task.process.connections[remote] = task
    fails = sqlite.faults.before_travel()
    if fails == "before":
        remote.undo()
    with scheduler.outside():
        result = execute()
    if fails == "after":
        if drain is not None:
            drain()
        remote.undo()
        raise lost
    return result


def install() -> None:
    """Have the drivers ask before each way to a server and back."""
    with suppress(ImportError):
        _install_psycopg()
    with suppress(ImportError):
        _install_mysqlclient()


def _install_psycopg() -> None:
    import psycopg

    wait: Any = psycopg.Connection.wait

    def simulated(self: Any, *args: Any, **options: Any) -> Any:
        lost = psycopg.OperationalError("server closed the connection unexpectedly")
        return run(self, lambda: wait(self, *args, **options), lost)

    psycopg.Connection.wait = simulated  # type: ignore[method-assign]


def _install_mysqlclient() -> None:
    from MySQLdb import OperationalError
    from MySQLdb.connections import Connection

    def wrapped(name: str) -> Any:
        real = getattr(Connection, name)

        def simulated(self: Any, *args: Any) -> Any:
            lost = OperationalError(2013, "Lost connection to server during query")
            return run(self, lambda: real(self, *args), lost, self.store_result if name == "query" else None)

        return simulated

    for name in ("query", "commit", "rollback"):
        setattr(Connection, name, wrapped(name))
