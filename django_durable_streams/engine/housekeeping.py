"""Work that nobody waits for: ending expired streams, and deleting the rows of removed ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Event, Thread

from django.db import Error, connections

from ..store import removal
from ..store.operations import Commit

logger = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between rounds. Expired streams are invisible at once; this only gives their space back."""

PAUSE = 0.01
"""Seconds between two deletions, so that appends come through."""


class Housekeeper:
    """A thread that cleans up, a little at a time.

    Args:
        using: alias of the database.
        publish: is told of streams that have expired.
    """

    def __init__(self, using: str, publish: Callable[[list[Commit]], None]) -> None:
        self._using = using
        self._publish = publish
        self._due = Event()
        self._stopping = False
        self._thread = Thread(target=self._run, name="durable-streams-housekeeping", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Start a round soon."""
        self._due.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopping = True
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self._due.wait(INTERVAL)
                self._due.clear()
                if self._stopping:
                    return
                self._round()
                # A connection for each process is too much for work that comes every few seconds.
                connections[self._using].close()
        finally:
            connections[self._using].close()

    def _round(self) -> None:
        try:
            while commits := removal.expire(self._using):
                self._publish(commits)
            while removal.collect(self._using) and not self._stopping:
                pass
            while removal.purge(self._using) and not self._stopping:
                Event().wait(PAUSE)
        except Error as error:  # the database is away, or busy: the next round is soon
            logger.debug("Cleaning up failed: %s", error)
