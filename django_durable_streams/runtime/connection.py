"""Dedicated connections: a thread's own database connection, which another thread can cut.

Connecting takes a limited time. A thread that waits for a database that has vanished is freed by `cut`, which closes
the connection's socket. `monitor` decides when to cut. Knows no stream.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from threading import Lock, RLock, Thread
from types import TracebackType
from typing import Any

from django.db import Error, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from . import execution
from .connection_settings import service_settings
from .preferred_hosts import remember_host, with_preferred_host
from .process_forks import wait_at_fork

logger = logging.getLogger(__name__)

_SOCKET_OPTIONS = {
    "SO_KEEPALIVE": (socket.SOL_SOCKET, 1),
    "TCP_KEEPIDLE": (socket.IPPROTO_TCP, 5),
    "TCP_KEEPINTVL": (socket.IPPROTO_TCP, 2),
    "TCP_KEEPCNT": (socket.IPPROTO_TCP, 3),
    "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, 10_000),
}
"""A machine that has vanished sends nothing. Without these options a thread would wait for it for a quarter hour."""

LOG_PAGES = 2000
"""Pages of SQLite's write-ahead log, 8 MB. The connection that commits with a longer log copies it to the database."""

SPILL_BYTES = 32 * 1024 * 1024
"""Size of changed pages from which a SQLite transaction writes pages to the log before its commit."""

CUT_SECONDS = 20.0
"""How long the end of a process cuts the connection of a thread that works on. Then it leaves the thread."""

CUT_AGAIN_SECONDS = 0.2
"""Time between two cuts of the connection of a thread that has to end."""


class DedicatedConnection:
    """A database connection that belongs to one thread. As a context manager it marks the time in which it works.

    Do not nest these contexts: the end of the inner one would count as the end of the work.

    The connection has settings of its own (`connection_settings`). In its thread it replaces the project's connection
    of the same alias, so code that uses `connections[using]` there works with it.

    Args:
        using: alias of the database.
        lock_seconds: limit for the wait for a row or a table on MySQL, in seconds. On PostgreSQL each transaction sets
            its limit (`store.write.group_commit`), because poolers pass connections on. A SQLite connection with a
            limit does not wait at all: the code that begins a transaction tries again (`store.sql.sqlite_busy`).
        on_open: called in the connection's thread each time it has connected, before anything is done with it.
    """

    def __init__(self, using: str, lock_seconds: int | None = None, on_open: Callable[[], None] | None = None) -> None:
        self.using = using
        self._on_open = on_open
        self.since: float | None = None
        """When the thread's present work began, in monotonic seconds. None while it does not work."""
        self._lock_seconds = lock_seconds
        self._wrapper: BaseDatabaseWrapper | None = None
        self._opened: object = None  # the driver's connection that `open` made
        self._is_outdated = False
        self._log_pages = LOG_PAGES
        self._connect: Callable[[], None]
        self._lock = Lock()
        self._at_work = RLock()
        self._socket: socket.socket | None = None

    def __enter__(self) -> None:
        self._at_work.acquire()
        self.since = time.monotonic()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.since = None
        self._at_work.release()

    def open(self) -> bool:
        """Connect if there is no connection, and return whether a new one was made. Only for the connection's thread.

        A connection that is outdated is replaced. Inline (see `execution`), the project's connection is used as it is.

        Raises:
            django.db.Error: the database cannot be reached, or refuses the connection.
        """
        connection = connections[self.using]
        if connection.connection is not None and connection.connection is self._opened and not self._is_outdated:
            if self._log_pages != _log_limits.get(self.using, LOG_PAGES) and connection.vendor == "sqlite":
                self._limit_log()
            return False
        if execution.is_inline():
            return False
        with self._at_work:
            return self._open(connection)

    def _open(self, connection: BaseDatabaseWrapper) -> bool:
        if connection.vendor == "sqlite":
            wait_at_fork(self._at_work)
        self._is_outdated = False
        self.close()
        if connection is not self._wrapper:
            connection = self._replace(connection)
        try:
            with connection.wrap_database_errors:
                self._connect()
                self._set_up(connection)
        except Error:
            raise
        except BaseException as error:
            # Receivers of `connection_created` belong to the project, and may raise anything.
            raise OperationalError(f"The connection could not be set up: {type(error).__name__}: {error}") from error
        self._opened = connection.connection
        if self._on_open is not None:
            self._on_open()
        return True

    def _set_up(self, connection: BaseDatabaseWrapper) -> None:
        _ensure_autocommit(connection)
        if connection.vendor == "sqlite":
            _reduce_disk_writes(connection)
            self._limit_log()
        if self._lock_seconds is not None:
            _limit_lock_waits(connection, self._lock_seconds)

    def _limit_log(self) -> None:
        pages = self._log_pages = _log_limits.get(self.using, LOG_PAGES)
        _set_log_limit(self.using, pages)

    def close(self) -> None:
        """Close the connection. Never raises, as the thread must outlive it. Only for the connection's thread."""
        if execution.is_inline():
            return
        self._opened = None
        self._close_socket()
        try:
            with self._at_work:
                connections[self.using].close()
        except BaseException as error:
            logger.debug("A connection could not be closed. It is dropped as it is: %s", error)
            connections[self.using].connection = None

    def mark_outdated(self) -> None:
        """Let the next `open` connect again: the server may not be the right one any more. Safe from any thread."""
        self._is_outdated = True

    def cut(self) -> None:
        """Let the thread's wait for the database fail at once. Safe to call from any thread."""
        with self._lock:
            if self._socket is not None:
                try:
                    self._socket.shutdown(socket.SHUT_RDWR)
                except OSError:  # the connection has ended already
                    pass

    def end(self, thread: Thread, seconds: float, cut_seconds: float = CUT_SECONDS) -> bool:
        """Wait for the end of the connection's thread. After some seconds cut what it waits for, until it has ended.

        A thread that has lost its connection may try once more over a new one. A thread in which code of the project
        waits for something else is left after `cut_seconds` more. It ends with the process.

        Returns:
            Whether the thread has ended.
        """
        thread.join(seconds)
        until = time.monotonic() + cut_seconds
        while thread.is_alive():
            if time.monotonic() >= until:
                logger.warning("The thread %s does not end. The end of the process does not wait for it.", thread.name)
                return False
            self.cut()
            thread.join(CUT_AGAIN_SECONDS)
        return True

    def _replace(self, project_connection: BaseDatabaseWrapper) -> BaseDatabaseWrapper:
        """Put a connection of the service in the place of the thread's project connection, and return it."""
        # The class is that of the project's backend. The settings are built, not copied: they may hold objects that
        # cannot be copied, such as an SSL context.
        connection = type(project_connection)(service_settings(project_connection), self.using)
        # With DEBUG, Django keeps each statement with its parameters until a request ends. No request ends here.
        connection.queries_log = deque(maxlen=0)
        connections[self.using] = connection
        self._connect = connection.connect
        self._wrapper = connection

        def refuse() -> None:
            raise OperationalError("The connection to the database was lost.")

        # Django connects again at the end of a transaction whose connection was lost. That may take as long as the
        # first time, and would delay all responses of the batch.
        connection.connect = refuse  # type: ignore[method-assign]
        if connection.vendor != "sqlite":
            connect_driver = connection.get_new_connection

            def connect_and_duplicate(conn_params: Any) -> Any:
                driver_connection = connect_driver(with_preferred_host(self.using, conn_params))
                remember_host(self.using, conn_params, driver_connection)
                self._duplicate_socket(
                    driver_connection
                )  # before the statements that Django sends, which may wait, too
                return driver_connection

            connection.get_new_connection = connect_and_duplicate  # type: ignore[method-assign]
        return connection

    def _duplicate_socket(self, driver_connection: Any) -> None:
        """Duplicate a connection's socket for `cut`. Its number could belong to another socket a moment later."""
        self._close_socket()
        duplicate = _duplicate_socket(driver_connection)
        if duplicate is None:
            return
        _set_options(duplicate)
        with self._lock:
            self._socket = duplicate

    def _close_socket(self) -> None:
        with self._lock:
            duplicate, self._socket = self._socket, None
        if duplicate is not None:
            duplicate.close()


def notice_vanished_server(connection: BaseDatabaseWrapper) -> None:
    """Let statements on a connection of the project fail within seconds after its server's machine has vanished."""
    duplicate = None if connection.vendor == "sqlite" else _duplicate_socket(connection.connection)
    if duplicate is not None:
        with duplicate:
            _set_options(duplicate)


def _duplicate_socket(driver_connection: Any) -> socket.socket | None:
    try:
        return socket.socket(fileno=os.dup(driver_connection.fileno()))
    except (OSError, AttributeError):  # the driver or the system does not show its socket
        return None


def _set_options(duplicate: socket.socket) -> None:
    for name, (level, value) in _SOCKET_OPTIONS.items():
        try:
            duplicate.setsockopt(level, getattr(socket, name), value)
        except (OSError, AttributeError):  # not TCP, or not on this system
            pass


def _ensure_autocommit(connection: BaseDatabaseWrapper) -> None:
    """Switch autocommit on. A receiver of `connection_created` may have switched it off."""
    if not connection.get_autocommit():
        connection.set_autocommit(True)


def _limit_lock_waits(connection: BaseDatabaseWrapper, seconds: int) -> None:
    statements = {
        "mysql": f"SET SESSION innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}",
        "sqlite": "PRAGMA busy_timeout = 0",
    }
    if connection.vendor in statements:
        with connection.cursor() as cursor:
            cursor.execute(statements[connection.vendor])


def _reduce_disk_writes(connection: BaseDatabaseWrapper) -> None:
    """Let SQLite write less to disk.

    A statement over many rows records how to undo itself. From some pages on SQLite writes that record to a file, which
    took most of the time of a batch over many streams. A write-ahead log of twice the usual size (`limit_log`) is
    copied half as often, and each page in it only once. The committer waits for these copies.

    SQLite keeps 2 MB of changed pages in memory, and writes others before the commit, one by one. Pages that it changes
    again then make it read all of them once more, for their checksums. In a loop of inserts of 14 MB and deletes, a
    commit took 78 ms of processor time, and takes 51 with its pages in memory. Their memory is free after it.
    """
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA temp_store = MEMORY")
        cursor.execute("PRAGMA page_size")
        (page_bytes,) = cursor.fetchone()
        # An odd number, because SQLite takes a multiple of 256 for "never".
        cursor.execute(f"PRAGMA cache_spill = {SPILL_BYTES // page_bytes | 1}")


_log_limits: dict[str, int] = {}
"""The limit of each database's write-ahead log, by alias, where it is not LOG_PAGES."""


def limit_log(using: str, pages: int = LOG_PAGES) -> None:
    """Let commits copy SQLite's write-ahead log from so many pages on.

    This holds for this thread's connection at once, and for the other dedicated connections when they are opened or
    used next. Otherwise the thread that writes seldom would copy the whole log that the others leave alone.
    """
    _log_limits[using] = pages
    _set_log_limit(using, pages)


def forget_log_limit(using: str) -> None:
    """Let dedicated connections have the usual limit again when they are opened or used next. Safe from any thread."""
    _log_limits.pop(using, None)


def copy_log(using: str) -> int:
    """Copy SQLite's write-ahead log into the database as far as possible, and return its length in pages.

    No other connection waits for it. Call it outside of a transaction.
    """
    with connections[using].cursor() as cursor:
        cursor.execute("PRAGMA wal_checkpoint(PASSIVE)")
        _, pages, _ = cursor.fetchone()
    return int(pages)


def _set_log_limit(using: str, pages: int) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(f"PRAGMA wal_autocheckpoint = {pages}")


# A child process has no thread that lowers a limit.
os.register_at_fork(after_in_child=_log_limits.clear)
