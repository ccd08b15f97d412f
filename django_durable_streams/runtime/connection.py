"""A thread's own database connection: opened within a bounded time, and cut off from outside where nothing comes back.

Knows nothing of streams. `monitor` decides when a line is cut.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from threading import Lock, RLock
from types import TracebackType

from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from .connection_settings import service_settings
from .process_forks import wait_at_fork

logger = logging.getLogger(__name__)

_SOCKET_OPTIONS = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, 5),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, 2),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, 10_000),
}
"""A machine that has vanished sends nothing at all: without these, a thread would wait for it for a quarter hour."""


LOG_PAGES = 2000
"""Length of SQLite's write-ahead log, 8 MB, from which on whoever commits copies what is left of it."""


class DedicatedConnection:
    """The connection that a thread has to a database. A context in which it works.

    The connection has settings of its own (`service_settings`). In its thread it stands in for the project's connection
    of the same alias, so code there that uses `connections[using]` works with it.

    Args:
        using: alias of the database.
        lock_seconds: how long statements may wait for a lock, where that is set for a connection: MySQL's row locks.
            PostgreSQL is told in each transaction (`store.writing`), as poolers hand its connections on. SQLite's
            connection does not wait then: whoever begins a transaction asks again by itself (`store.sql.locked`).
    """

    def __init__(self, using: str, lock_seconds: int | None = None) -> None:
        self.using = using
        self.since: float | None = None
        """Since when the thread has been at its present work, in monotonic seconds; None where it has none."""
        self._lock_seconds = lock_seconds
        self._wrapper: BaseDatabaseWrapper | None = None
        self._opened: object = None
        self._connect: Callable[[], None]
        self._lock = Lock()
        self._at_work = RLock()
        self._plug: socket.socket | None = None

    def __enter__(self) -> None:
        self._at_work.acquire()
        self.since = time.monotonic()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.since = None
        self._at_work.release()

    def open(self) -> bool:
        """Connect if there is no connection, and return whether there was none. For the line's thread.

        Raises:
            django.db.Error: there is none to be had.
        """
        connection = connections[self.using]
        if connection.connection is not None and connection.connection is self._opened:
            return False
        with self._at_work:
            return self._open(connection)

    def _open(self, connection: BaseDatabaseWrapper) -> bool:
        if connection.vendor == "sqlite":
            wait_at_fork(self._at_work)
        self.close()
        if connection is not self._wrapper:
            connection = self._stand_in(connection)
        try:
            with connection.wrap_database_errors:
                self._connect()
                self._set_up(connection)
        except Error:
            raise
        except Exception as error:
            # A receiver of `connection_created` is the project's, and may not be made for threads without a request.
            raise OperationalError(f"The connection could not be set up: {type(error).__name__}: {error}") from error
        self._opened = connection.connection
        return True

    def _set_up(self, connection: BaseDatabaseWrapper) -> None:
        _begin_nothing(connection)
        if connection.vendor == "sqlite":
            _spare_disk(connection)
        if self._lock_seconds is not None:
            _limit_waits(connection, self._lock_seconds)
        self._plug_in(connection)

    def close(self) -> None:
        """Close the connection, however that ends: its thread must outlive it. For the line's thread."""
        self._opened = None
        self._unplug()
        try:
            with self._at_work:
                connections[self.using].close()
        except Exception as error:
            logger.debug("A connection could not be closed, and is left: %s", error)
            connections[self.using].connection = None

    def cut(self) -> None:
        """Make whatever the thread waits for from the database fail at once. Safe to call from any thread."""
        with self._lock:
            if self._plug is not None:
                try:
                    self._plug.shutdown(socket.SHUT_RDWR)
                except OSError:  # it had ended already
                    pass

    def _stand_in(self, projects: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
        """Put a connection of its own in the place of the thread's, and return it."""
        # Of the same class, whatever backend the project has chosen, but made and not copied: settings may hold what
        # cannot be copied, such as an SSL context.
        connection = type(projects)(service_settings(projects), self.using)
        # With DEBUG, each statement is kept with its parameters until a request ends, and here none ever does.
        connection.queries_log = deque(maxlen=0)
        connections[self.using] = connection
        self._connect = connection.connect
        self._wrapper = connection

        def refuse() -> None:
            raise OperationalError("The connection to the database was lost.")

        # Django connects anew at the end of a transaction whose connection was lost. That may take as long as the
        # first time, and the answers to those who wait with it.
        connection.connect = refuse  # type: ignore[method-assign]
        return connection

    def _plug_in(self, connection: BaseDatabaseWrapper) -> None:
        """Keep a hold of the connection's socket. Not its number, which may be another socket's a moment later."""
        self._unplug()
        if connection.vendor == "sqlite":
            return
        try:
            plug = socket.socket(fileno=os.dup(connection.connection.fileno()))
        except (OSError, AttributeError):  # a driver, or a system, that does not show it
            return
        for name, (level, value) in _SOCKET_OPTIONS.items():
            try:
                plug.setsockopt(level, getattr(socket, name), value)
            except (OSError, AttributeError):  # not TCP, or not on this system
                pass
        with self._lock:
            self._plug = plug

    def _unplug(self) -> None:
        with self._lock:
            plug, self._plug = self._plug, None
        if plug is not None:
            plug.close()


def _begin_nothing(connection: BaseDatabaseWrapper) -> None:
    """See that the connection commits what it is not told to keep open: a receiver may have changed that."""
    if not connection.get_autocommit():
        connection.set_autocommit(True)


def _limit_waits(connection: BaseDatabaseWrapper, seconds: int) -> None:
    statements = {
        "mysql": f"SET SESSION innodb_lock_wait_timeout = {seconds}",
        "sqlite": "PRAGMA busy_timeout = 0",
    }
    if connection.vendor in statements:
        with connection.cursor() as cursor:
            cursor.execute(statements[connection.vendor])


def _spare_disk(connection: BaseDatabaseWrapper) -> None:
    """Have SQLite write less often what it need not.

    A statement over many rows notes what it would have to undo: in a file, from some pages on, and most of the time
    of a batch over many streams went into that. And a write-ahead log of twice the usual size is copied into the
    database half as often, with each page only once: a lane waits for that.
    """
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA temp_store = MEMORY")
    limit_log(connection.alias)


def limit_log(using: str, pages: int = LOG_PAGES) -> None:
    """Have whoever commits over this thread's connection copy SQLite's write-ahead log once it has so many pages."""
    with connections[using].cursor() as cursor:
        cursor.execute(f"PRAGMA wal_autocheckpoint = {pages}")
