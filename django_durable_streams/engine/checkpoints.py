"""Checkpoints: a thread that copies SQLite's write-ahead log into the database while the committer goes on.

SQLite writes each commit to the log first. The connection that commits with a long log then copies the log into the
database, which takes as long as the commits took, and all appends wait for it.

- Invariant: the thread only copies committed pages (`PASSIVE` checkpoints block no writer). The committer's connection
  copies the rest and starts the log over. Wherever the connection's limit is raised, the thread lowers it again.
- Gain: appends of 1 MB are 1.4 times as fast, and the answer to a large one does not wait for the copy
  (docs/decisions/write-ahead-log.md).
- It runs only on SQLite, and only while much data arrives. Without it SQLite's own limit applies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from threading import Event, Lock, Thread

from django.db import Error

from ..protocol.errors import ServiceUnavailable
from ..runtime import execution
from ..runtime.connection import DedicatedConnection, copy_log, forget_log_limit, limit_log
from ..store.operations import Commit

logger = logging.getLogger(__name__)

STEP_BYTES = 4 * 1024 * 1024
"""Data after which the log is copied. Small appends change the same pages many times, so a later copy is cheaper."""

LONG_LOG_PAGES = 8000
"""Length of the log, 32 MB, from which it should start over."""

MAX_LOG_PAGES = 4 * LONG_LOG_PAGES
"""Length of the log from which the committer's connection copies it after all."""

REST_SECONDS = 0.5
REST_BYTES = 64 * 1024 * 1024
"""A copy waits until no `STEP_BYTES` arrive for so long, or until so much data waits. The next requests of a client
that is alone come meanwhile, such as its next large append. Otherwise their commits would wait for the disk, which the
copy keeps busy."""

LEFT_PAGES = 256
"""Pages, 1 MB, that may be left to the committer's connection when a long log starts over."""

MAX_COPIES = 8
"""Copies in a row, each of the data that was committed during the copy before. A disk that needs more is too slow."""

STOP_SECONDS = 10.0
"""How long the end of a process waits for the thread. It may wait for a committer that hangs, and no data needs it."""

IDLE_SECONDS = 2.0
"""Time without `STEP_BYTES` of data after which the committer's connection has its usual limit again."""


class Checkpointer:
    """Copies the log while much data arrives. The thread starts with the first `STEP_BYTES` of data.

    Args:
        connection: the thread's own connection.
        write: does work on the committer's connection between two batches, and waits for it.
    """

    def __init__(self, connection: DedicatedConnection, write: Callable[[Callable[[], object]], object]) -> None:
        self._connection = connection
        self._write = write
        self._bytes = 0
        self._uncopied = 0
        self._due = Event()
        self._stopped = False
        self._thread: Thread | None = None
        self._lock = Lock()

    def count(self, commits: Iterable[Commit]) -> None:
        """Count the data of commits. Safe to call from any thread. A lost count does no harm.

        Raises:
            ServiceUnavailable: the thread cannot start.
        """
        self._bytes += sum([commit.tail - commit.start for commit in commits])
        if self._bytes < STEP_BYTES:
            return
        self._uncopied += self._bytes
        self._bytes = 0
        self._start()

    def before_commit(self, size: int) -> None:
        """Leave the log to the thread, if this commit may be large. Call this in the committer's transaction.

        Args:
            size: the bytes of data that are about to be committed, at most.
        """
        if size < STEP_BYTES or self._stopped:
            return
        try:
            self._start()
        except ServiceUnavailable:
            return  # without the thread, this commit copies the log
        limit_log(self._connection.using, MAX_LOG_PAGES)

    def _start(self) -> None:
        """Let the thread copy the log, and lower the limit of the committer's connection after that.

        Raises:
            ServiceUnavailable: the thread cannot start.
        """
        self._due.set()
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = execution.start_thread(self._run, "durable-streams-checkpoints")

    def stop(self) -> None:
        """End the thread, or leave it where its work hangs. The committer has to run until this returns."""
        with self._lock:
            self._stopped = True
        self._due.set()
        if self._thread is not None:
            self._connection.end(self._thread, STOP_SECONDS, 0.0)  # SQLite has no connection to cut
        forget_log_limit(self._connection.using)  # the thread may have ended between a large commit and its own work

    def _run(self) -> None:
        while self._is_due():
            try:
                self._copy_while_due()
            except Error as error:  # the next writer copies the log in the end
                logger.debug("The write-ahead log was not copied: %s", error)
            except BaseException:  # the thread must outlive every bug
                logger.exception("The write-ahead log was not copied. The committer copies it later.")

    def _is_due(self, seconds: float | None = None) -> bool:
        """Wait for `STEP_BYTES` of data, some seconds at most. Return whether they arrived and the thread goes on."""
        has_arrived = self._due.wait(seconds)
        if self._stopped:
            return False
        self._due.clear()
        return has_arrived

    def _rest(self) -> None:
        while self._uncopied < REST_BYTES and self._is_due(REST_SECONDS):
            pass
        self._uncopied = 0

    def _copy(self) -> int:
        """Copy the log, and return its length in pages. Of a log that should start over, little is left uncopied."""
        pages = copy_log(self._connection.using)
        for _ in range(MAX_COPIES):
            if pages < LONG_LOG_PAGES:
                break
            # A large commit during the copy would be left to the committer, and requests would wait.
            before, pages = pages, copy_log(self._connection.using)
            if pages - before < LEFT_PAGES:
                break
        return pages

    def _copy_while_due(self) -> None:
        """Raise the limit of the committer's connection, and copy the log until little data arrives."""
        using = self._connection.using
        self._write(partial(limit_log, using, MAX_LOG_PAGES))
        try:
            self._connection.open()
            is_due = True
            while is_due:
                self._rest()
                with self._connection:
                    pages = self._copy()
                if pages >= LONG_LOG_PAGES:
                    # The log starts over once all of it is copied while no connection writes.
                    self._write(partial(copy_log, using))
                is_due = self._is_due(IDLE_SECONDS)
        finally:
            self._connection.close()
            self._write(partial(limit_log, using))
