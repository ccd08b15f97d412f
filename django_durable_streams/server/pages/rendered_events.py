"""A memory of rendered events, bounded by the bytes that they take.

This is an optimisation: a message is rendered once for all readers of a page, also for those who come later. The
invariant: no event can be stale, because the message at a position never changes, and a feed ends with its watch, as
soon as the database has lost data. Knows no streams.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from itertools import count
from sys import getsizeof
from threading import Lock
from typing import NamedTuple

from .rendering import RenderedEvent

LIMIT_BYTES = 32 * 1024 * 1024
"""Memory of one process for the rendered events of all pages."""

_OVERHEAD_BYTES = 700
"""Memory for each event besides its bytes: its position, its id, and its places in two dicts."""

CHUNK_BYTES = 64 * 1024
"""Most bytes of a chunk of several events."""

MAX_JOINED = 64
"""Chunks of several events that are kept, of all feeds. Readers at the same position share them."""

_numbers = count()


class Chunk(NamedTuple):
    """Consecutive events. `data` is empty if none of the messages has one."""

    data: bytes
    end: int
    event_id: str
    """The id of the last message."""
    has_id: bool
    """Whether the last message has an event, so that the data ends with its id."""


class RenderedEvents:
    """The rendered events of feeds. Each feed has a number. Safe to use from any thread.

    Args:
        limit: the memory that the events may take, in bytes. The newest portion is kept in any case.
    """

    def __init__(self, limit: int = LIMIT_BYTES) -> None:
        self._limit = limit
        self._size = 0
        self._order: OrderedDict[tuple[int, int], RenderedEvent] = OrderedDict()
        """By feed and position, in the order of their last use."""
        self._positions: dict[int, set[int]] = {}
        """The positions of each feed, so that the end of a feed needs no scan of all events."""
        self._ended: deque[int] = deque()
        """Feeds whose events are to be dropped."""
        self._joined: OrderedDict[tuple[int, int], Chunk] = OrderedDict()
        """By feed and position, in the order in which they were made."""
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._order)

    def new_feed(self) -> int:
        """Return the number of a new feed."""
        return next(_numbers)

    def get(self, feed: int, position: int) -> RenderedEvent | None:
        """Return the event of the message after a position."""
        key = feed, position
        with self._lock:
            event = self._order.get(key)
            if event is not None:
                self._order.move_to_end(key)
            return event

    def chunk(self, feed: int, position: int) -> Chunk | None:
        """Return the events after a position, as far as they are there. None: not even the first one is."""
        joined = self._joined.get((feed, position))
        if joined is not None:
            return joined
        event = self.get(feed, position)
        if event is None:
            return None
        parts, size = [event.data], len(event.data)
        last = event
        while (following := self.get(feed, last.end)) is not None and size + len(following.data) <= CHUNK_BYTES:
            last = following
            parts.append(last.data)
            size += len(last.data)
        if last is event:
            return Chunk(*event, bool(event.data))  # as its bytes are, so that all readers share them
        joined = Chunk(b"".join(parts), last.end, last.event_id, bool(last.data))
        with self._lock:
            self._joined[feed, position] = joined
            if len(self._joined) > MAX_JOINED:
                self._joined.popitem(last=False)
        return joined

    def put(self, feed: int, events: list[tuple[int, RenderedEvent]]) -> None:
        """Keep a portion of events. Those that were not used for longest make room for it."""
        with self._lock:
            while self._ended:
                self._drop_feed(self._ended.popleft())
            positions = self._positions.setdefault(feed, set())
            for position, event in events:
                key = feed, position
                if key not in self._order:
                    self._size += _size_of(event)
                    positions.add(position)
                    self._order[key] = event
                self._order.move_to_end(key)
            while self._size > self._limit and len(self._order) > len(events):
                key, event = self._order.popitem(last=False)
                self._drop(key, event)

    def forget(self, feed: int) -> None:
        """Have the events of a feed that has ended dropped. The garbage collector may call this anywhere."""
        self._ended.append(feed)

    def _drop_feed(self, feed: int) -> None:
        for position in self._positions.pop(feed, ()):
            self._size -= _size_of(self._order.pop((feed, position)))

    def _drop(self, key: tuple[int, int], event: RenderedEvent) -> None:
        self._size -= _size_of(event)
        feed, position = key
        positions = self._positions[feed]
        positions.discard(position)
        if not positions:
            del self._positions[feed]


def _size_of(event: RenderedEvent) -> int:
    return getsizeof(event.data) + _OVERHEAD_BYTES


rendered_events = RenderedEvents()
"""The rendered events of this process that readers share."""
