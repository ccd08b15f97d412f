"""Segments: ranges of a stream's bytes with whole appends, and their encoded forms.

Invariant: the bytes of a segment never change. So caches keep segments, readers share them, and each is encoded once
for all readers. A chat with 1,000 readers encodes each event once. Knows no stream and no store.

A segment of a JSON stream may be **sparse**: key compaction has removed messages, and positions stay as they were. Then
positions do not count its bytes. Each append is still in one piece, right before its end, and `places` says where that
end is in the data. An append without bytes stands for removed messages that no other append follows.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from sys import getsizeof
from typing import NamedTuple

from . import content, sse, text

SPLIT_BYTES = 64 * 1024
"""Bytes of JSON messages that are split at a time. An append may hold millions, which would all be objects at once."""


class Message(NamedTuple):
    """One message of a stream: the positions around it, and its bytes, in JSON mode without the line feed."""

    start: int
    end: int
    data: bytes


class Segment:
    """Stored bytes of a stream from one position to another.

    Args:
        start: position of the first byte.
        data: the stored bytes.
        ends: positions after each append inside, ascending. The last one is the segment's end.
        full: whether the segment ends here because the next append did not fit.
        places: of a sparse segment, the number of its bytes up to each of `ends`. None: every byte is there.
    """

    __slots__ = ("_body", "_event", "data", "end", "ends", "full", "on_encoded", "places", "start")

    def __init__(
        self,
        start: int,
        data: bytes,
        ends: Sequence[int],
        *,
        full: bool = False,
        places: Sequence[int] | None = None,
    ) -> None:
        self.start = start
        self.data = data
        self.ends = ends
        self.end = start + len(data) if places is None else ends[-1]
        self.full = full
        self.places = places
        self._body: bytes | None = None
        self._event: tuple[bytes, bytes] | None = None
        self.on_encoded: Callable[[int], None] | None = None
        """Called with the additional bytes of memory when an encoded form is kept."""

    def body(self, content_type: str) -> bytes:
        """Return the body of a response with this segment. A stream has one content type, so the body is made once."""
        if self._body is None:
            self._body = content.unpack(content_type, self.data)
            self._report_size(self._body)
        return self._body

    def data_event(self, content_type: str, held: bytes = b"", *, final: bool = False) -> tuple[bytes, bytes]:
        """Return the segment's SSE `data` event, which is made once, and the bytes that it holds back (see `text`).

        The event is empty if it holds back all bytes.

        Args:
            content_type: content type of the stream.
            held: bytes that the event before held back.
            final: whether no data can follow the segment.
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
            # Only an event that does not depend on `final`: a fork, which goes on, shares segments of its source.
            self._event = event
            self._report_size(event[0])
        return event

    def _report_size(self, encoded: bytes) -> None:
        on_encoded = self.on_encoded
        if on_encoded is not None and encoded is not self.data:
            on_encoded(getsizeof(encoded))

    def pack(self) -> None:
        """Store the ends as eight bytes each, for a segment in a cache. A list takes five times as much."""
        if isinstance(self.ends, list):
            self.ends = array("Q", self.ends)
        if isinstance(self.places, list):
            self.places = array("Q", self.places)

    def size(self) -> int:
        """Return the bytes of memory that the segment takes, with its encoded forms."""
        size = getsizeof(self) + getsizeof(self.data) + getsizeof(self.ends)
        if self._body is not None and self._body is not self.data:
            size += getsizeof(self._body)
        if self._event is not None:
            size += getsizeof(self._event[0])
        return size if self.places is None else size + getsizeof(self.places)

    def index(self, position: int) -> int:
        """Return how many bytes of the data lie before a position."""
        places = self.places
        if places is None:
            return position - self.start
        number = bisect_right(self.ends, position)
        if number == len(places):
            return len(self.data)
        first = places[number - 1] if number else 0
        return max(first, places[number] - (self.ends[number] - position))

    def position(self, index: int) -> int:
        """Return the position after the first `index` bytes of the data, at least one."""
        places = self.places
        if places is None:
            return self.start + index
        number = bisect_left(places, index)
        return self.ends[number] - (places[number] - index)

    def messages(self, content_type: str) -> Iterator[Message]:
        """Yield the messages inside: in JSON mode its values (section 9.1), else its appends."""
        if content.is_json(content_type):
            for begin, data in self._runs():
                for line in _lines(data):
                    end = begin + len(line) + 1
                    yield Message(begin, end, line)
                    begin = end
        else:
            begin = self.start
            for end in self.ends:
                yield Message(begin, end, self.data[begin - self.start : end - self.start])
                begin = end

    def _runs(self) -> Iterator[tuple[int, bytes]]:
        """Yield bytes that follow each other, with the position before them: all, unless the segment is sparse."""
        if self.places is None:
            if self.data:
                yield self.start, self.data
            return
        first = 0
        for end, place in zip(self.ends, self.places, strict=True):
            if place > first:
                yield end - (place - first), self.data[first:place]
                first = place

    def messages_after(self, content_type: str, position: int) -> Iterator[Message]:
        """Yield the messages that end after a position inside, one at a time.

        In JSON mode a message is always whole. Of an append of another stream, the part after the position is yielded.
        """
        if content.is_json(content_type):
            begin = self.data.rfind(b"\n", 0, self.index(position)) + 1
            while begin < len(self.data):
                after = self.data.index(b"\n", begin) + 1
                end = self.position(after)
                yield Message(end - (after - begin), end, self.data[begin : after - 1])
                begin = after
        else:
            for number in range(bisect_right(self.ends, position), len(self.ends)):
                end = self.ends[number]
                yield Message(position, end, self.data[position - self.start : end - self.start])
                position = end

    def messages_before(self, content_type: str, position: int) -> Iterator[Message]:
        """Yield the messages that end at a position or before it, the last one first, one at a time.

        In JSON mode a message is always whole. Of an append of another stream, the part before the position is yielded.
        """
        if content.is_json(content_type):
            after = self.data.rfind(b"\n", 0, self.index(position)) + 1
            while after:
                begin = self.data.rfind(b"\n", 0, after - 1) + 1
                end = self.position(after)
                yield Message(end - (after - begin), end, self.data[begin : after - 1])
                after = begin
        elif position > self.start:
            position = min(position, self.end)
            for number in range(bisect_left(self.ends, position), -1, -1):
                begin = self.ends[number - 1] if number else self.start
                yield Message(begin, position, self.data[begin - self.start : position - self.start])
                position = begin

    def upto(self, limit: int) -> Segment:
        """Return the appends that end at `limit` or before, at least the first one with bytes.

        Of a sparse segment, return the appends with as many bytes as lie before `limit` in others.
        """
        if self.end <= limit:
            return self
        places = self.places
        if places is None:
            count = max(bisect_right(self.ends, limit), 1)
        else:
            count = min(max(bisect_right(places, limit - self.start), bisect_right(places, 0) + 1), len(places))
        if count == len(self.ends):
            return self
        return self._part(self.start, 0, count, full=True)

    def clip(self, end: int) -> Segment:
        """Return the part before `end`, which may cut an append, as a fork may."""
        if self.end <= end:
            return self
        count, cut = bisect_right(self.ends, end), self.index(end)
        ends = [*self.ends[:count]]
        places = None if self.places is None else [*self.places[:count]]
        if not ends or ends[-1] < end:
            ends.append(end)
            if places is not None:
                places.append(cut)
        return Segment(self.start, self.data[:cut], ends, places=places)

    def held_before(self, position: int) -> bytes:
        """Return the bytes of an incomplete character before a position, if the segment reaches that position."""
        return text.split(self.data[: position - self.start])[1] if self.end >= position else b""

    def beginning(self, position: int) -> Segment:
        """Return the part after a position inside, which may be inside an append."""
        return self._part(position, bisect_right(self.ends, position), len(self.ends), full=self.full)

    def after(self, position: int) -> Segment | None:
        """Return the appends that end after `position`, or None if there are none."""
        first = bisect_right(self.ends, position)
        if first == len(self.ends):
            return None
        start = self.ends[first - 1] if first else self.start
        if self.places is not None:  # not before the position, where nothing is left up to there
            begin = self.ends[first] - (self.places[first] - self.index(start))
            start = max(start, min(position, begin))
        return self if start == self.start else self._part(start, first, len(self.ends), full=self.full)

    def _part(self, start: int, first: int, last: int, *, full: bool) -> Segment:
        """Return the appends with the numbers from `first` to before `last`, from the position `start` on."""
        cut, ends = self.index(start), self.ends[first:last]
        if self.places is None:
            return Segment(start, self.data[cut : ends[-1] - self.start], ends, full=full)
        places = [place - cut for place in self.places[first:last]]
        return Segment(start, self.data[cut : cut + places[-1]], ends, full=full, places=places)

    @classmethod
    def join(cls, parts: Sequence[Segment]) -> Segment:
        """Return consecutive segments as one."""
        if len(parts) == 1:
            return parts[0]
        ends = [end for part in parts for end in part.ends]
        data = b"".join([part.data for part in parts])
        places: list[int] | None = None
        if len(data) < ends[-1] - parts[0].start:
            places, before = [], 0
            for part in parts:
                inside = part.places if part.places is not None else [end - part.start for end in part.ends]
                places += [before + place for place in inside]
                before += len(part.data)
        return cls(parts[0].start, data, ends, full=parts[-1].full, places=places)


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield the messages of stored bytes in JSON mode, without their line feeds."""
    begin = 0
    while begin < len(data):
        after = data.rfind(b"\n", begin, begin + SPLIT_BYTES) + 1 or data.index(b"\n", begin) + 1
        yield from data[begin : after - 1].split(b"\n")
        begin = after
