"""A watch: one stream with live readers, as far as this process knows it, and its newest segments.

All readers at the same position share one segment, one snapshot and one encoded SSE event.

Invariant: the tail of a watch never goes back, and its segments join exactly. `is_ahead_of` and `agrees` detect that
the database has lost data, and the hub then ends the watch. So shared objects stay valid until the next commit, which
drops them all.

Knows neither the database nor other streams. Use it in the event loop of its hub only.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple, TypeVar

from ..protocol import content, sse, text
from ..protocol.segments import Segment
from ..store.stream_info import StreamInfo
from .fan_out import FanOut, Listener
from .snapshot_reader import Snapshot

K = TypeVar("K")
V = TypeVar("V")

RING_BYTES = 256 * 1024
"""Recent data, in bytes, that a watch keeps beyond the newest segment."""

LARGE_SECONDS = 1.0
"""How long a watch keeps a newest segment of more than RING_BYTES. Hundreds of watches may each have one."""

RING_SEGMENTS = 256
"""Commits that a watch keeps. A commit of a few bytes takes a hundred times as much memory as its data."""

MAX_SHARED = 16
"""Entries of each cache of shared objects. Clients choose their cursors, so the number of keys has no other limit."""

LARGE_EVENT_BYTES = 256 * 1024
"""Size from which an event's control event is sent separately, so that all readers share the event without a copy."""


class Frame(NamedTuple):
    """The next SSE events of readers at one position."""

    chunk: bytes
    """Empty if all new data begins a character (see `protocol.text`).
    If it is large, the data event alone, without its id."""
    is_large: bool
    end: int
    """The position after the frame's data, including the bytes in `held`."""
    held: bytes
    """The bytes at the end that begin a character. The reader holds them back until the next frame."""
    closed: bool
    is_cut: bool
    """Whether the data begins in the middle of a character. A reader at its first data has to fetch the beginning."""


class Watch:
    """A stream with live readers: its tail, its newest segments, and the listeners.

    Args:
        info: the stream, as a query has just shown it.
        fan_out: notifies the listeners, together with those of other watches.
    """

    def __init__(self, info: StreamInfo, fan_out: FanOut | None = None) -> None:
        self.info = info
        self.tail = info.tail
        self.closed = info.closed
        self.ended = False
        """Whether this watch has ended: the stream is gone, or the database has lost a part of it. Query it again."""
        self.moved_at = time.monotonic()
        """When the last growth or closure of the stream was learned, in monotonic seconds."""
        self.listeners: set[Listener] = set()
        self.shared_responses: dict[Any, Any] = {}
        """Objects that listeners share for one commit. Empty again after all of them were notified."""
        self.companions: dict[Hashable, Any] = {}
        """Objects that listeners of a kind share for as long as the watch is known, such as rendered events."""
        self.after_notify: list[Callable[[], object]] = []
        """Functions to call after all listeners were notified: waiting readers come first."""
        self.ready: asyncio.Future[None] | None = None
        """Done once the first query after the registration has an answer or has failed. None afterwards."""
        self.is_unconfirmed = False
        """Whether that query has failed, so that commits from before the registration may be missing."""
        self.is_catching_up = False
        self.needs_query = False
        """Whether the stream has to be queried again."""
        self.idle_since: float | None = None
        """When the last listener left, in monotonic seconds. None while there are listeners."""
        self._fan_out = FanOut() if fan_out is None else fan_out
        self._frames: dict[tuple[int, int, bytes], Frame] = {}
        self._events: dict[tuple[int, bytes], tuple[bytes, bytes]] = {}
        self._ring: deque[Segment] = deque()
        self._ring_bytes = 0
        self._joined: dict[int, Segment] = {}
        self._snapshots: dict[int, Snapshot] = {}

    def feed(self, start: int, segment: Segment | None, tail: int, *, closed: bool, ended: bool = False) -> None:
        """Apply a commit, and notify all listeners soon if it changes anything.

        Args:
            start: the position where the commit begins.
            segment: the data of the commit. None: it has no data, or the data is not at hand.
            tail: the position where the commit ends.
            closed: whether the stream is closed.
            ended: whether this watch ends.
        """
        if ended:  # readers still get the data from before the end
            self._fan_out.finish_round(self)
        if tail > self.tail:
            if start != self.tail or segment is None:
                self._ring.clear()
                self._ring_bytes = 0
            if segment is not None:
                self._ring.append(segment)
                self._ring_bytes += len(segment.data)
                while len(self._ring) > RING_SEGMENTS or (self._ring_bytes > RING_BYTES and len(self._ring) > 1):
                    self._ring_bytes -= len(self._ring.popleft().data)
            self.tail = tail
        elif not (closed and not self.closed) and not ended:
            return
        self.moved_at = time.monotonic()
        self.closed = self.closed or closed
        self.ended = self.ended or ended
        self._drop_shared()
        self.shared_responses.clear()
        self._fan_out.notify(self)

    def drop_large(self, now: float) -> None:
        """Drop the newest segment if it is large and its readers had the time to take it. Others query the database."""
        if self._ring_bytes > RING_BYTES and now - self.moved_at >= LARGE_SECONDS:
            self._ring.clear()
            self._ring_bytes = 0
            self._drop_shared()

    def forget_before(self, position: int) -> None:
        """Drop data before a position, because the stream was trimmed. Readers there query the database."""
        ring = self._ring
        if ring and ring[0].start < position:
            while ring and ring[0].start < position:
                self._ring_bytes -= len(ring.popleft().data)
            self._drop_shared()

    def end(self) -> None:
        """End this watch, and notify its listeners."""
        self.feed(self.tail, None, self.tail, closed=self.closed, ended=True)

    def _drop_shared(self) -> None:
        self._frames.clear()
        self._events.clear()
        self._joined.clear()
        self._snapshots.clear()

    def lags_behind(self, info: StreamInfo) -> bool:
        """Return whether a query has shown a longer or closed stream."""
        return info.tail > self.tail or (info.closed and not self.closed)

    def is_ahead_of(self, info: StreamInfo, seen_at: float) -> bool:
        """Return whether the database has lost a part of the stream that this watch knows.

        All knowledge from before the query began was committed by then. So the query has to show it.

        Args:
            info: the stream, as a query has shown it.
            seen_at: when that query began, in monotonic seconds.
        """
        if info.generation != self.info.generation:
            return True
        return self.moved_at < seen_at and (info.tail < self.tail or (self.closed and not info.closed))

    def agrees(self, start: int, segment: Segment | None, tail: int, *, closed: bool) -> bool | None:
        """Return whether a commit fits the known data. None: the data to compare with is not at hand."""
        if start >= self.tail:
            return True  # it is new
        if tail > self.tail or (closed and tail < self.tail):
            return False  # a commit is visible as a whole or not at all, and no data follows a close
        if segment is None:
            return True if start == tail else None
        for recent in reversed(self._ring):
            if recent.start <= start and tail <= recent.end:
                if recent.places is not None or segment.places is not None:
                    return None
                return recent.data[start - recent.start : tail - recent.start] == segment.data
        return None

    def finish_notifying(self) -> list[Callable[[], object]]:
        """All listeners were notified: drop the objects that they have shared, and return the work that follows."""
        self.shared_responses.clear()
        after_notify, self.after_notify = self.after_notify, []
        return after_notify

    def segment_after(self, position: int) -> Segment | None:
        """Return the data between a position and the tail. None: it is not at hand, or there is none."""
        ring = self._ring
        if not ring or ring[-1].end != self.tail:
            return None
        if ring[-1].start == position:
            return ring[-1]
        joined = self._joined.get(position)
        if joined is None:
            parts: list[Segment] = []
            for segment in reversed(ring):  # most readers are near its end
                if segment.start < position:
                    break
                parts.append(segment)
            if not parts or parts[-1].start != position:
                return None
            joined = Segment.join(parts[::-1])
            _put(self._joined, position, joined)
        return joined

    def snapshot(self, position: int) -> Snapshot | None:
        """Return the stream as readers at a position see it now: the same object for all of them.

        None: there is data past the position, and it is not at hand.
        """
        snapshot = self._snapshots.get(position)
        if snapshot is None:
            segment = self.segment_after(position)
            if segment is None and self.tail > position:
                return None
            snapshot = Snapshot(self.info, position, segment, max(self.tail, position), self.closed)
            _put(self._snapshots, position, snapshot)
        return snapshot

    def frame(self, position: int, cursor: int, held: bytes = b"") -> Frame | None:
        """Return the SSE events for the data after a position, encoded once for all readers there.

        Args:
            cursor: for the control event (section 5.8).
            held: bytes before the position that the readers have held back.

        Returns:
            None: the data is not at hand.
        """
        frame = self._frames.get((position, cursor, held))
        if frame is None:
            segment = self.segment_after(position)
            if segment is None:
                return None
            content_type = self.info.content_type
            event, rest = self._event(segment, held)
            is_cut = text.is_cut(segment.data) and content.holds_text(content_type)
            is_large = len(event) >= LARGE_EVENT_BYTES
            if event and not is_large:
                offset = self.info.token(segment.end - len(rest))
                control = sse.control_event(offset, cursor=cursor, up_to_date=True, closed=self.closed)
                event = sse.event_id(offset) + event + control
            frame = Frame(event, is_large, segment.end, rest, self.closed, is_cut)
            _put(self._frames, (position, cursor, held), frame)
        return frame

    def _event(self, segment: Segment, held: bytes) -> tuple[bytes, bytes]:
        """Return the data event of a segment after held bytes, and the bytes to hold back of the segment."""
        event_and_rest = self._events.get((segment.start, held))
        if event_and_rest is None:
            event_and_rest = segment.data_event(self.info.content_type, held, final=self.closed)
            _put(self._events, (segment.start, held), event_and_rest)
        return event_and_rest


def _put(cache: dict[K, V], key: K, value: V) -> None:
    if len(cache) >= MAX_SHARED:
        cache.clear()
    cache[key] = value
