"""Copying SQLite's write-ahead log into the database beside those who write.

Whatever is committed is written twice: to the log, and from there into the database once the log is long. SQLite has
whoever committed last do the second. Where much data comes, that takes as long as to commit it, and all wait.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from threading import Event, Lock, Thread

from django.db import Error, connections

from ..runtime import execution
from ..runtime.connection import DedicatedConnection, limit_log
from ..store.operations import Commit

logger = logging.getLogger(__name__)

STEP_BYTES = 4 * 1024 * 1024
"""Data after which the log is copied. Small appends write the same pages over and over: these are best copied late."""

LONG = 8000
"""Pages of the log, 32 MB, from which on it should begin anew."""

TOO_LONG = 4 * LONG
"""Pages of the log from which on the lane copies it after all."""

IDLE_SECONDS = 2.0
"""Without so much data for so long, the log is the lane's again."""


class Checkpointer:
    """A thread that copies the log where much data comes. It starts with the first that is much.

    Args:
        line: its connection.
        write: has a piece of work done over the lane's connection between two batches, and waits for it.
    """

    def __init__(self, connection: DedicatedConnection, write: Callable[[Callable[[], object]], object]) -> None:
        self._connection = connection
        self._write = write
        self._bytes = 0
        self._due = Event()
        self._stopped = False
        self._thread: Thread | None = None
        self._lock = Lock()

    def count(self, commits: Iterable[Commit]) -> None:
        """Take note of commits. Safe to call from any thread: one that gets lost is no loss."""
        self._bytes += sum([commit.tail - commit.start for commit in commits])
        if self._bytes < STEP_BYTES:
            return
        self._bytes = 0
        self._due.set()
        with self._lock:
            if self._thread is None and not self._stopped:
                self._thread = execution.start_thread(self._run, "durable-streams-checkpoints")

    def stop(self) -> None:
        """End the thread and wait for it, while the lane still runs."""
        with self._lock:
            self._stopped = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while self._is_due():
            try:
                self._take_over()
            except Error as error:  # whoever writes copies the log in the end
                logger.debug("The write-ahead log was not copied: %s", error)
            except Exception:  # the thread must outlive every bug
                logger.exception("The write-ahead log was not copied.")

    def _is_due(self, seconds: float | None = None) -> bool:
        """Wait for much data, or so long; return whether it came and this is not the end."""
        came = self._due.wait(seconds)
        if self._stopped:
            return False
        self._due.clear()
        return came

    def _take_over(self) -> None:
        """Copy the log in place of the lane, for as long as much data comes."""
        using = self._connection.using
        self._write(partial(limit_log, using, TOO_LONG))
        try:
            self._connection.open()
            is_due = True
            while is_due:
                with self._connection:
                    pages = _copy(using)
                if pages >= LONG:
                    # It begins anew once all of it is copied and nobody has written meanwhile.
                    self._write(partial(_copy, using))
                is_due = self._is_due(IDLE_SECONDS)
        finally:
            self._connection.close()
            self._write(partial(limit_log, using))


def _copy(using: str) -> int:
    """Copy what is in the log, and return how many pages that has."""
    with connections[using].cursor() as cursor:
        _, pages, _ = cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages)
