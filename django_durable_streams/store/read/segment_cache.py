"""Memory of what was read: segments by stream and position, bounded by their bytes.

What lies at a position never changes, and a stream's number is never used again, so nothing here can be stale.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from ...protocol.segments import Segment

Key = tuple[int, int]

_OVERHEAD = 640
"""Bytes for a segment besides itself: its key, its places in two dicts, and what counts it."""


class _Kept:
    """A segment that is kept, how many bytes it was counted for, and its neighbours among those of its stream."""

    __slots__ = ("_cache", "key", "newer", "older", "segment", "size")

    def __init__(self, cache: SegmentCache, key: Key, segment: Segment, size: int) -> None:
        self._cache = cache
        self.key = key
        self.segment = segment
        self.size = size
        self.older: _Kept | None = None
        self.newer: _Kept | None = None

    def grow(self, size: int) -> None:
        """Take note that the segment takes so many bytes more: it has been encoded."""
        self._cache.grow(self, size)


class SegmentCache:
    """A least-recently-used cache, safe to use from several threads. What it counts is the memory that it takes.

    Args:
        limit: most bytes to keep. A single segment of more than a quarter of it is not kept at all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._newest: dict[int, _Kept] = {}
        """Of each stream: the others hang on to it, so that a stream is forgotten without a look at all others."""
        self._lock = Lock()

    def get(self, stream_id: int, position: int) -> Segment | None:
        """Return the segment that was kept for reads of a stream from a position."""
        key = (stream_id, position)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            self._kept.move_to_end(key)
            return kept.segment

    def put(self, stream_id: int, position: int, segment: Segment) -> None:
        """Keep a segment for reads of a stream from a position."""
        if len(segment.data) > self._limit // 4:
            return
        segment.pack()
        size = segment.size() + _OVERHEAD
        if size > self._limit // 4:
            return
        kept = _Kept(self, (stream_id, position), segment, size)
        segment.on_encoded = kept.grow
        with self._lock:
            self._drop(kept.key)
            self._kept[kept.key] = kept
            self._size += size
            kept.older = self._newest.get(stream_id)
            if kept.older is not None:
                kept.older.newer = kept
            self._newest[stream_id] = kept
            self._shrink()

    def forget(self, stream_id: int) -> None:
        """Drop what is kept of a stream that is no more."""
        with self._lock:
            while (kept := self._newest.get(stream_id)) is not None:
                self._drop(kept.key)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._kept.clear()
            self._newest.clear()
            self._size = 0

    def grow(self, kept: _Kept, size: int) -> None:
        """Count so many bytes more for a segment, if that is kept still."""
        with self._lock:
            if self._kept.get(kept.key) is kept:
                kept.size += size
                self._size += size
                self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        self._size -= kept.size
        kept.segment.on_encoded = None
        if kept.older is not None:
            kept.older.newer = kept.newer
        if kept.newer is not None:
            kept.newer.older = kept.older
        elif kept.older is not None:
            self._newest[key[0]] = kept.older
        else:
            del self._newest[key[0]]
        kept.older = kept.newer = None
