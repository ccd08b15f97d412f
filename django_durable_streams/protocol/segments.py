"""Segments: runs of whole appends, and what they look like on the wire.

A segment never changes, so it can be kept, shared by readers, and encoded once for all of them.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from sys import getsizeof
from typing import NamedTuple

from . import content, sse, text


class Message(NamedTuple):
    """One message of a stream: the positions around it, and its bytes, in JSON mode without the line feed."""

    start: int
    end: int
    data: bytes


class Segment:
    """Stored bytes of a stream from one position to another.

    Args:
        start: position of the first byte.
        data: the bytes, as stored.
        ends: positions after each append inside, ascending; the last one is the segment's end.
        full: the segment ends where it does because the next append would not have fit.
    """

    __slots__ = ("_body", "_event", "data", "end", "ends", "full", "on_encoded", "start")

    def __init__(self, start: int, data: bytes, ends: Sequence[int], *, full: bool = False) -> None:
        self.start = start
        self.data = data
        self.ends = ends
        self.end = start + len(data)
        self.full = full
        self._body: bytes | None = None
        self._event: tuple[bytes, bytes] | None = None
        self.on_encoded: Callable[[int], None] | None = None
        """Is told how many bytes the segment takes more, whenever it is encoded."""

    def body(self, content_type: str) -> bytes:
        """Return the segment as the body of a response. A stream has one content type, so it is made once."""
        if self._body is None:
            self._body = content.unpack(content_type, self.data)
            self._keeps(self._body)
        return self._body

    def data_event(self, content_type: str, held: bytes = b"", *, final: bool = False) -> tuple[bytes, bytes]:
        """Return the segment as an SSE `data` event, made once, and what is held back of it (see `text`).

        The event is empty where that is all of it.

        Args:
            held: bytes before the segment that were held back.
            final: nothing will ever come behind the segment.
        """
        if self._event is not None and not held and not (final and self._event[1]):
            return self._event
        data, rest = held + self.data, b""
        if content.holds_text(content_type):
            data, rest = sse.split(data)
        if final and rest:
            return sse.data_event(content_type, data + rest), b""
        event = sse.data_event(content_type, data) if data else b"", rest
        if not held:
            # Only what does not depend on `final`: a fork, which goes on, shares the segments of its source.
            self._event = event
            self._keeps(event[0])
        return event

    def _keeps(self, encoded: bytes) -> None:
        on_encoded = self.on_encoded
        if on_encoded is not None and encoded is not self.data:
            on_encoded(getsizeof(encoded))

    def pack(self) -> None:
        """Hold the ends in eight bytes each, for a segment that is kept: as a list they take five times as much."""
        if isinstance(self.ends, list):
            self.ends = array("Q", self.ends)

    def size(self) -> int:
        """Return how many bytes of memory it takes, its encoded forms included."""
        size = getsizeof(self) + getsizeof(self.data) + getsizeof(self.ends)
        if self._body is not None and self._body is not self.data:
            size += getsizeof(self._body)
        if self._event is not None:
            size += getsizeof(self._event[0])
        return size

    def messages(self, content_type: str) -> Iterator[Message]:
        """Yield the messages inside, in order: in JSON mode its values (section 9.1), else its appends."""
        begin = self.start
        if content.is_json(content_type):
            for line in self.data[:-1].split(b"\n"):
                end = begin + len(line) + 1
                yield Message(begin, end, line)
                begin = end
        else:
            for end in self.ends:
                yield Message(begin, end, self.data[begin - self.start : end - self.start])
                begin = end

    def upto(self, limit: int) -> Segment:
        """Return the appends that end at `limit` or before, and at least the first one."""
        if self.end <= limit:
            return self
        count = max(bisect_right(self.ends, limit), 1)
        if count == len(self.ends):
            return self
        return Segment(self.start, self.data[: self.ends[count - 1] - self.start], self.ends[:count], full=True)

    def clip(self, end: int) -> Segment:
        """Return what lies before `end`, cutting an append where a fork was cut inside it."""
        if self.end <= end:
            return self
        ends = [*self.ends[: bisect_right(self.ends, end)]]
        if not ends or ends[-1] < end:
            ends.append(end)
        return Segment(self.start, self.data[: end - self.start], ends)

    def held_before(self, position: int) -> bytes:
        """Return the bytes before a position that begin a character, if the segment has them all."""
        return text.split(self.data[: position - self.start])[1] if self.end >= position else b""

    def beginning(self, position: int) -> Segment:
        """Return what lies behind a position inside, also where that is inside an append."""
        first = bisect_right(self.ends, position)
        return Segment(position, self.data[position - self.start :], self.ends[first:], full=self.full)

    def after(self, position: int) -> Segment | None:
        """Return the appends that end past `position`, from the first of them on, or None if there are none."""
        first = bisect_right(self.ends, position)
        if first == 0:
            return self
        if first == len(self.ends):
            return None
        start = self.ends[first - 1]
        return Segment(start, self.data[start - self.start :], self.ends[first:], full=self.full)

    @classmethod
    def join(cls, parts: Sequence[Segment]) -> Segment:
        """Return neighbouring segments as one."""
        if len(parts) == 1:
            return parts[0]
        ends = [end for part in parts for end in part.ends]
        return cls(parts[0].start, b"".join([part.data for part in parts]), ends, full=parts[-1].full)
