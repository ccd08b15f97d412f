"""Memory of what was read: segments by stream and position, bounded by their bytes.

What lies at a position never changes, and a stream's number is never used again, so nothing here can be stale.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from ..protocol.segments import Segment

Key = tuple[int, int]

_OVERHEAD = 512
"""Bytes counted for a segment besides its data, so that many small ones are bounded too."""


class SegmentCache:
    """A least-recently-used cache, safe to use from several threads.

    Args:
        limit: most bytes to keep. A single segment of more than a quarter of it is not kept at all.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._segments: OrderedDict[Key, Segment] = OrderedDict()
        self._lock = Lock()

    def get(self, stream_id: int, position: int) -> Segment | None:
        """Return the segment that was kept for reads of a stream from a position."""
        key = (stream_id, position)
        with self._lock:
            segment = self._segments.get(key)
            if segment is not None:
                self._segments.move_to_end(key)
            return segment

    def put(self, stream_id: int, position: int, segment: Segment) -> None:
        """Keep a segment for reads of a stream from a position."""
        cost = _cost(segment)
        if cost > self._limit // 4:
            return
        key = (stream_id, position)
        with self._lock:
            known = self._segments.pop(key, None)
            if known is not None:
                self._size -= _cost(known)
            self._segments[key] = segment
            self._size += cost
            while self._size > self._limit:
                _, oldest = self._segments.popitem(last=False)
                self._size -= _cost(oldest)

    def forget(self, stream_id: int) -> None:
        """Drop what is kept of a stream that is no more."""
        with self._lock:
            for key in [key for key in self._segments if key[0] == stream_id]:
                self._size -= _cost(self._segments.pop(key))

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._segments.clear()
            self._size = 0


def _cost(segment: Segment) -> int:
    # Twice the data: a segment may keep an encoded form beside it. Eight bytes or more for each append's end.
    return 2 * len(segment.data) + 8 * len(segment.ends) + _OVERHEAD
