"""How streams have grown lately: which of them have so many chunks that these are to be merged, and how fast."""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Lock

from ..models import StagedChunk
from ..store.operations import Commit

MANY = 256
"""Chunks of a stream after which they are merged, however busy it is."""

SEVERAL = 16
"""Chunks of a stream that are merged once nothing comes any more, or nothing can."""

QUIET_SECONDS = 2.0
"""How long nothing has come to a quiet stream."""

MAX_COUNTED = 10_000
"""Streams that are counted at a time."""

BUSY = 2000
"""Chunks that a process appends in a second from which on it leaves them to be gathered (`store.recent`)."""


class _StreamGrowth:
    """A stream's chunks since they were merged last."""

    __slots__ = ("chunks", "last")

    def __init__(self) -> None:
        self.chunks = 0
        self.last = 0.0


class CompactionTracker:
    """Counts the commits of this process. Safe to use from any thread.

    Args:
        gathers: whether a busy process leaves its chunks to be gathered.
    """

    def __init__(self, *, flushes: bool) -> None:
        self._gathers = flushes
        self._lock = Lock()
        self._streams: dict[int, _StreamGrowth] = {}
        self._crowded: set[int] = set()
        self._busy = False
        self._second = 0.0
        """When the second began that is being counted."""
        self._chunks = 0
        """Chunks in it."""

    def is_busy(self) -> bool:
        """Return whether so much is appended that small chunks should wait to be gathered."""
        return self._busy

    def count(self, commits: Iterable[Commit]) -> bool:
        """Take note of commits, each of them a chunk; return whether something is to be merged now."""
        now = time.monotonic()
        due = False
        with self._lock:
            self._pace(now)
            for commit in commits:
                if commit.removed:
                    self._streams.pop(commit.stream_id, None)
                elif commit.ends:
                    self._chunks += 1
                    if self._busy and commit.tail - commit.start <= StagedChunk.MAX_BYTES:
                        growth = self._streams.get(commit.stream_id)
                    else:
                        growth = self._add(commit.stream_id, now)
                    if growth is not None and growth.chunks >= (SEVERAL if commit.closed else MANY):
                        self._crowded.add(commit.stream_id)
                        due = True
            self._busy |= self._gathers and self._chunks >= BUSY
        return due

    def flushed(self, stream_ids: Iterable[int]) -> None:
        """Take note of streams of which some recent chunks are one chunk now."""
        now = time.monotonic()
        with self._lock:
            for stream_id in stream_ids:
                if self._add(stream_id, now).chunks >= MANY:
                    self._crowded.add(stream_id)

    def note(self, stream_ids: set[int]) -> None:
        """Take note of streams that a read has found to have many chunks."""
        with self._lock:
            self._crowded |= stream_ids

    def take_due(self) -> set[int]:
        """Return the streams whose chunks are to be merged now: those with many, and quiet ones with several."""
        quiet_since = time.monotonic() - QUIET_SECONDS
        with self._lock:
            quiet = [stream_id for stream_id, growth in self._streams.items() if growth.last <= quiet_since]
            crowded, self._crowded = self._crowded, set()
            crowded.update(stream_id for stream_id in quiet if self._streams[stream_id].chunks >= SEVERAL)
            for stream_id in [*quiet, *crowded]:
                self._streams.pop(stream_id, None)
            return crowded

    def _add(self, stream_id: int, now: float) -> _StreamGrowth:
        growth = self._streams.get(stream_id)
        if growth is None:
            if len(self._streams) >= MAX_COUNTED:
                del self._streams[next(iter(self._streams))]
            growth = self._streams[stream_id] = _StreamGrowth()
        growth.chunks += 1
        growth.last = now
        return growth

    def _pace(self, now: float) -> None:
        """Begin another second, if that is over which is being counted."""
        if now - self._second >= 1.0:
            self._busy = self._busy and self._chunks >= BUSY * (now - self._second)
            self._second = now
            self._chunks = 0
