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
    """A connection of a task, by its socket.

    A driver refuses what another thread asks of a connection that waits for the server, even its number. And that
    number may be another socket's later on. So the socket is duplicated while the task itself has the connection.

    Args:
        process: the one that has opened it.
    """

    def __init__(self, fileno: int, process: Any) -> None:
        self._plug = socket.socket(fileno=os.dup(fileno))
        self._process = process

    def undo(self) -> None:
        """Cut it: the server rolls back."""
        with suppress(OSError):  # it has ended already
            self._plug.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        """Cut it, whoever's it was."""
        self.undo()
        self._plug.close()
        self._process.connections.pop(self, None)


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
        remote = connection.simulated = Remote(connection.fileno(), task.process)
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
