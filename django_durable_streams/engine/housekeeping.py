"""Work that nobody waits for: ending expired streams, deleting the rows of removed ones, merging small chunks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event, Lock, Thread
from typing import ParamSpec, TypeVar

from django.db import Error

from ..store import compaction, removal
from ..store.operations import Commit
from ..store.turns import Turn
from .pulse import Pulse

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

INTERVAL = 2.0
"""Seconds between rounds. Expired streams are invisible at once; this only gives their space back."""

PAUSE = 0.01
"""Seconds between two deletions, so that appends come through."""

COMPACT_AFTER = 256
"""Commits of a process to a stream after which its chunks are merged, however busy it is."""

COMPACT_QUIET = 16
"""Commits after which they are merged once nothing comes any more."""

QUIET_SECONDS = 2.0
"""How long nothing has come to a quiet stream."""

REST = 12
"""How many times as long as it merges this thread then rests: what people wait for, reads too, comes first."""

MAX_COUNTED = 10_000
"""Streams whose commits are counted at a time."""


class Housekeeper:
    """A thread that cleans up, a little at a time.

    Args:
        pulse: whether the database answers.
        publish: is told of streams that have expired.
        turn: held around each piece of work: whose turn it is to write, where only one can.
    """

    def __init__(self, pulse: Pulse, publish: Callable[[list[Commit]], None], turn: Turn) -> None:
        self._pulse = pulse
        self._line = pulse.line()
        self._using = self._line.using
        self._publish = publish
        self._turn = turn
        self._due = Event()
        self._stopping = False
        self._lock = Lock()
        # By stream: how many there were since its chunks were merged, and when the last one was.
        self._commits: dict[int, tuple[int, float]] = {}
        self._crowded: set[int] = set()
        self._thread = Thread(target=self._run, name="durable-streams-housekeeping", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Start a round soon."""
        self._due.set()

    def count(self, commits: list[Commit]) -> None:
        """Take note of commits: each is a chunk, and many chunks of a stream are to be merged."""
        now = time.monotonic()
        with self._lock:
            for commit in commits:
                if commit.removed:
                    self._commits.pop(commit.stream_id, None)
                elif commit.ends:
                    count = self._commits.get(commit.stream_id, (0, now))[0] + 1
                    if count >= COMPACT_AFTER or (commit.closed and count >= COMPACT_QUIET):
                        self._commits.pop(commit.stream_id, None)
                        self._crowded.add(commit.stream_id)
                        self._due.set()
                    else:
                        self._commits[commit.stream_id] = count, now
            while len(self._commits) > MAX_COUNTED:
                self._commits.pop(next(iter(self._commits)))

    def _count_quiet(self) -> None:
        """Add the streams to which nothing has come lately to those whose chunks are to be merged."""
        quiet_since = time.monotonic() - QUIET_SECONDS
        with self._lock:
            for stream_id, (count, last) in list(self._commits.items()):
                if last <= quiet_since:
                    del self._commits[stream_id]
                    if count >= COMPACT_QUIET:
                        self._crowded.add(stream_id)

    def crowded(self, stream_ids: set[int]) -> None:
        """Take note of streams that a read has found to have many chunks."""
        with self._lock:
            self._crowded |= stream_ids
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
                if self._pulse.answers:
                    self._clean_up()
        finally:
            self._line.close()

    def _clean_up(self) -> None:
        try:
            self._line.open()
            self._round()
        except Error as error:  # the database is away, or busy: the next round is soon
            logger.debug("Cleaning up failed: %s", error)
        except Exception:  # the thread must outlive every bug
            logger.exception("Cleaning up failed.")
        # A connection for each process is too much for work that comes every few seconds.
        self._line.close()

    def _round(self) -> None:
        while commits := self._do(removal.expire, self._using):
            self._publish(commits)
        while self._do(removal.collect, self._using):
            pass
        self._count_quiet()
        with self._lock:
            crowded, self._crowded = self._crowded, set()
        for stream_id in crowded:
            self._compact(stream_id)
        while self._do(removal.purge, self._using) and not self._stopping:
            Event().wait(PAUSE)

    def _compact(self, stream_id: int) -> None:
        for portion in compaction.portions(self._using, stream_id):
            if self._stopping:
                return
            began = time.monotonic()
            self._do(compaction.merge, self._using, stream_id, portion)
            time.sleep(REST * (time.monotonic() - began))

    def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn.taken(), self._line:
            return work(*args, **kwargs)
