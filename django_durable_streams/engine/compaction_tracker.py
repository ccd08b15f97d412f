"""How fast the chunks of this process's streams grow in number, and which streams need compaction.

Knows no database. A read that meets many chunks, and commits of this process, are its only sources.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from threading import Lock

from ..models import StagedChunk
from ..store.operations import Commit

COMPACT_AFTER_CHUNKS = 256
"""New chunks of a stream after which it is compacted, even while it is written to."""

COMPACT_QUIET_AFTER_CHUNKS = 16
"""The same for a stream that is quiet or closed."""

QUIET_SECONDS = 2.0
"""Time without a commit after which a stream is quiet."""

MAX_COUNTED_STREAMS = 10_000
"""Streams whose chunks are counted at a time. The stream that was counted first is forgotten."""

STAGE_FROM_CHUNKS_PER_SECOND = 2000
"""Chunks that a process appends in a second from which it stages small chunks (`store.upkeep.staged_chunks`)."""


class _StreamGrowth:
    """The number of a stream's chunks since its last compaction, and the time of the last one."""

    __slots__ = ("chunks", "last")

    def __init__(self) -> None:
        self.chunks = 0
        self.last = 0.0


class CompactionTracker:
    """Counts the commits of this process. Safe to use from any thread.

    Args:
        flushes: whether a busy process stages its small chunks, and housekeeping flushes them.
    """

    def __init__(self, *, flushes: bool) -> None:
        self._flushes = flushes
        self._lock = Lock()
        self._streams: dict[int, _StreamGrowth] = {}
        self._due: set[int] = set()
        self._busy = False
        self._second = 0.0
        """When the second that is being counted began, in monotonic seconds."""
        self._chunks = 0
        """Chunks in that second."""

    def is_busy(self) -> bool:
        """Return whether appends are so many that small chunks should be staged."""
        return self._busy

    def count(self, commits: Iterable[Commit]) -> bool:
        """Count commits, each of them one chunk. Return whether one more stream needs compaction now."""
        now = time.monotonic()
        is_due = False
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
                    limit = COMPACT_QUIET_AFTER_CHUNKS if commit.closed else COMPACT_AFTER_CHUNKS
                    if growth is not None and growth.chunks >= limit and commit.stream_id not in self._due:
                        self._due.add(commit.stream_id)
                        is_due = True
            self._busy |= self._flushes and self._chunks >= STAGE_FROM_CHUNKS_PER_SECOND
        return is_due

    def flushed(self, stream_ids: Iterable[int]) -> None:
        """Count one new chunk for each stream whose staged chunks were flushed."""
        now = time.monotonic()
        with self._lock:
            for stream_id in stream_ids:
                if self._add(stream_id, now).chunks >= COMPACT_AFTER_CHUNKS:
                    self._due.add(stream_id)

    def request(self, stream_ids: set[int]) -> None:
        """Have streams compacted in which a read has met many chunks."""
        with self._lock:
            self._due |= stream_ids

    def take_due(self) -> set[int]:
        """Return the streams that need compaction now, and begin to count their chunks anew."""
        quiet_since = time.monotonic() - QUIET_SECONDS
        with self._lock:
            quiet = [stream_id for stream_id, growth in self._streams.items() if growth.last <= quiet_since]
            due, self._due = self._due, set()
            due.update(
                stream_id for stream_id in quiet if self._streams[stream_id].chunks >= COMPACT_QUIET_AFTER_CHUNKS
            )
            for stream_id in [*quiet, *due]:
                self._streams.pop(stream_id, None)
            return due

    def _add(self, stream_id: int, now: float) -> _StreamGrowth:
        growth = self._streams.get(stream_id)
        if growth is None:
            if len(self._streams) >= MAX_COUNTED_STREAMS:
                del self._streams[next(iter(self._streams))]
            growth = self._streams[stream_id] = _StreamGrowth()
        growth.chunks += 1
        growth.last = now
        return growth

    def _pace(self, now: float) -> None:
        """Begin to count another second, if the current one is over."""
        if now - self._second >= 1.0:
            self._busy = self._busy and self._chunks >= STAGE_FROM_CHUNKS_PER_SECOND * (now - self._second)
            self._second = now
            self._chunks = 0
