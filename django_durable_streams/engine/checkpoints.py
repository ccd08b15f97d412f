"""Copying SQLite's write-ahead log into the database beside those who write.

Whatever is committed is written twice: to the log, and from there into the database once the log is long. SQLite has
whoever committed last do the second. Where much data comes, that takes as long as to commit it, and all wait.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from threading import Event, Lock, Thread

from django.db import Error, connections

from ..store.operations import Commit
from .line import LOG_PAGES, Line

logger = logging.getLogger(__name__)

STEP_BYTES = 4 * 1024 * 1024
"""Data after which the log is copied. Small appends write the same pages over and over: these are best copied late."""

IDLE_SECONDS = 2.0
"""Without any work for so long, the thread gives its connection back."""


class Checkpointer:
    """A thread that copies the log where much data comes. It starts with the first that is much.

    Args:
        line: its connection.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
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
            if self._thread is None:
                self._thread = Thread(target=self._run, name="durable-streams-checkpoints", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped = True
        self._due.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        is_long = False
        try:
            while not self._stopped:
                if not self._due.wait(IDLE_SECONDS):
                    self._line.close()
                    self._due.wait()
                self._due.clear()
                # A log begins anew once all of it is copied and nobody has written meanwhile. That is for the writer
                # to see to, and only one can copy at a time.
                is_long = not is_long and not self._stopped and self._copy() >= LOG_PAGES
        finally:
            self._line.close()

    def _copy(self) -> int:
        """Copy what is in the log, and return how many pages that has; 0 where that cannot be told."""
        try:
            with self._line:
                self._line.open()
                with connections[self._line.using].cursor() as cursor:
                    _, pages, _ = cursor.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            return int(pages)
        except Error as error:  # whoever writes copies it in the end
            logger.debug("The write-ahead log was not copied: %s", error)
        except Exception:  # the thread must outlive every bug
            logger.exception("The write-ahead log was not copied.")
        return 0
