"""A memory of immutable byte ranges of streams, bounded by the bytes that it takes.

This is an optimisation. Invariant: no cached segment can be stale, because the bytes at a position never change. An id
may come again, after a restored backup or `manage.py flush`, but then with another generation. The one exception is a
database that has lost data. Then readers call `forget` or `clear`. `CACHE_BYTES = 0` switches it off.

Key compaction removes messages that later ones replace, so an older segment with them is right, too. It also removes
deletes, after some time. So with key compaction, segments have a `max_age`: no cached value outlives its delete.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock

from ...protocol.segments import Segment

Key = tuple[int, int, int]
"""A stream's id, a position, and the stream's generation."""

_OVERHEAD_BYTES = 640
"""Memory for each segment besides the segment itself: its key, its places in two dicts, and its entry here."""


class _Entry:
    """A cached segment, the size for which it is counted, and its neighbours among the entries of its stream."""

    __slots__ = ("_cache", "born", "key", "newer", "older", "segment", "size")

    def __init__(self, cache: SegmentCache, key: Key, segment: Segment, size: int, born: float) -> None:
        self._cache = cache
        self.born = born
        self.key = key
        self.segment = segment
        self.size = size
        self.older: _Entry | None = None
        self.newer: _Entry | None = None

    def grow(self, size: int) -> None:
        """Count `size` more bytes: the segment was encoded, and keeps the result."""
        self._cache.grow(self, size)


class SegmentCache:
    """A least-recently-used cache, safe to use from several threads.

    Args:
        limit: the memory that the segments may take, in bytes. A segment of more than a quarter of it is not cached.
        max_age: seconds after which a segment is not returned any more. None: no limit.
    """

    def __init__(self, limit: int, max_age: float | None = None) -> None:
        self._limit = limit
        self._max_age = max_age
        self._size = 0
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._newest: dict[int, _Entry] = {}
        """The newest entry of each stream. The others are linked to it, so `forget` needs no scan of all entries."""
        self._lock = Lock()

    @property
    def count(self) -> int:
        """The number of segments."""
        return len(self._entries)

    @property
    def size(self) -> int:
        """The memory that the segments take, in bytes."""
        return self._size

    def get(self, stream_id: int, position: int, generation: int = 0) -> Segment | None:
        """Return the segment that is cached for reads of a stream from a position."""
        key = (stream_id, position, generation)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if self._max_age is not None and time.monotonic() - entry.born > self._max_age:
                self._drop(key)
                return None
            self._entries.move_to_end(key)
            return entry.segment

    def put(self, stream_id: int, position: int, segment: Segment, generation: int = 0) -> None:
        """Cache a segment for reads of a stream from a position. It is as old as the one that it replaces."""
        if len(segment.data) > self._limit // 4:
            return
        segment.pack()
        size = segment.size() + _OVERHEAD_BYTES
        if size > self._limit // 4:
            return
        entry = _Entry(self, (stream_id, position, generation), segment, size, time.monotonic())
        with self._lock:
            replaced = self._entries.get(entry.key)
            if replaced is not None:
                entry.born = replaced.born
            self._drop(entry.key)
            segment.on_encoded = entry.grow
            self._entries[entry.key] = entry
            self._size += size
            entry.older = self._newest.get(stream_id)
            if entry.older is not None:
                entry.older.newer = entry
            self._newest[stream_id] = entry
            self._shrink()

    def forget(self, stream_id: int) -> None:
        """Drop all segments of a stream."""
        with self._lock:
            while (entry := self._newest.get(stream_id)) is not None:
                self._drop(entry.key)

    def clear(self) -> None:
        """Drop all segments."""
        with self._lock:
            self._entries.clear()
            self._newest.clear()
            self._size = 0

    def grow(self, entry: _Entry, size: int) -> None:
        """Count `size` more bytes for an entry, if it is still cached."""
        with self._lock:
            if self._entries.get(entry.key) is entry:
                entry.size += size
                self._size += size
                self._shrink()

    def _shrink(self) -> None:
        while self._size > self._limit:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._size -= entry.size
        if entry.segment.on_encoded == entry.grow:  # the segment may be cached for another position, too
            entry.segment.on_encoded = None
        if entry.older is not None:
            entry.older.newer = entry.newer
        if entry.newer is not None:
            entry.newer.older = entry.older
        elif entry.older is not None:
            self._newest[key[0]] = entry.older
        else:
            del self._newest[key[0]]
        entry.older = entry.newer = None
