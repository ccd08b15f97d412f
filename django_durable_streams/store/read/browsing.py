"""Looking at a stream's messages, some at a time and in both directions, for people.

What is read is bounded: a page, or a single append where that is larger, with the chunks that they lie in.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from operator import itemgetter

from ...models import Chunk
from ...protocol import content, text
from ...protocol.segments import Message, Segment
from .. import staged_rows
from ..stream_info import LineageEntry, StreamInfo
from . import log_reader
from .lineage import look_up
from .segment_cache import SegmentCache

MAX_CHUNKS = 256
"""Chunks whose positions are looked at to find where a page that ends somewhere begins."""

MAX_PIECES = 8
"""Streams in a line of forks that such a page reaches back into."""


def after(info: StreamInfo, position: int, *, limit: int, count: int, using: str) -> list[Message]:
    """Return the first messages that begin at a position or after it.

    Args:
        limit: bytes that are enough; there is one message at least.
        count: most messages.
    """
    segment = _read(info, max(position, info.first_position), limit, using)
    if segment is None:
        return []
    found = [message for message in segment.messages(info.content_type) if message.start >= position]
    return found[:count]


def before(info: StreamInfo, position: int, *, limit: int, count: int, using: str) -> list[Message]:
    """Return the last messages that end at a position or before it. The arguments are those of `after`."""
    position = min(position, info.tail)
    start, end = _reach(info, position, limit, using)
    if start >= position:
        return []
    segment = _read(info, start, end - start, using)
    if segment is None:
        return []
    found = [message for message in segment.messages(info.content_type) if message.end <= position]
    return found[-count:]


def whole(info: StreamInfo, messages: list[Message], using: str) -> list[Message]:
    """Return messages as people read them: a character that appends have cut is in the one that completes it."""
    if not messages or not content.holds_text(info.content_type):
        return messages
    held = log_reader.held_before(info, messages[0].start, using)
    found = []
    for message in messages:
        data, held = text.split(held + message.data, final=info.closed and message.end >= info.tail)
        found.append(message._replace(data=data))
    return found


def _read(info: StreamInfo, position: int, limit: int, using: str) -> Segment | None:
    request = log_reader.PageRequest(info, position, limit)
    return log_reader.pages([request], SegmentCache(0), using)[info.id, position]


def _reach(info: StreamInfo, position: int, limit: int, using: str) -> tuple[int, int]:
    """Return where to begin reading, at an append about `limit` bytes before a position, and how far to read."""
    start = end = position
    for first, last in _spans(info, position, using):
        if start == position:
            end = last
        elif last != start or first < position - limit:
            break
        start = first
    return start, end


def _spans(info: StreamInfo, position: int, using: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the chunks before a position, the nearest first, without their data."""
    tables = (staged_rows.chunks(using), Chunk.objects.using(using))
    (info,) = look_up([(info, position, position)], using)
    pieces = [piece for piece in info.pieces() if piece.start < min(piece.end, position)]
    for piece in takewhile(_is_own, pieces[: -MAX_PIECES - 1 : -1]):
        top = min(piece.end, position)
        nearest: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        # The recent ones first, as they go to the others meanwhile. In two steps each, so that the index leads to both,
        # however much lies behind.
        for table in tables:
            spans = table.filter(stream_id=piece.owner).values_list("start", "end")
            nearest += spans.filter(end__gte=top).order_by("end")[:1]
            others += spans.filter(end__lt=top, end__gt=piece.start).order_by("-end")[:MAX_CHUNKS]
        others.sort(key=itemgetter(1), reverse=True)
        for first, last in [*sorted(nearest, key=itemgetter(1))[:1], *others[:MAX_CHUNKS]]:
            first, last = max(first, piece.start, info.first_position), min(last, piece.end)
            if first < min(last, top):
                yield first, last


def _is_own(piece: LineageEntry) -> bool:
    return not piece.is_run
