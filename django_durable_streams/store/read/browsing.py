"""Messages of a stream for people: a few at a time, in both directions.

A read is bounded. It takes one page, or one append where that is larger, and the chunks around them. An append may hold
millions of messages: only the page's own become objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, takewhile
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
"""Chunks whose positions are read to find the start of a page that ends at a position."""

MAX_PIECES = 8
"""Streams in a chain of forks that such a page may span."""

PORTION_BYTES = 256 * 1024
"""Data that `last` reads at a time."""


def after(info: StreamInfo, position: int, *, limit: int, count: int, using: str) -> list[Message]:
    """Return the first messages that begin at a position or after it.

    Args:
        info: the stream, as a query has just seen it.
        position: a position in it.
        limit: bytes to read, about. At least one message is returned.
        count: the largest number of messages.
        using: alias of the database.
    """
    segment = _read(info, max(position, info.first_position), limit, using)
    if segment is None:
        return []
    if content.is_json(info.content_type):
        messages = segment.messages_after(info.content_type, max(position, segment.start))
    else:
        messages = segment.messages(info.content_type)
    return [*islice((message for message in messages if message.start >= position), count)]


def before(info: StreamInfo, position: int, *, limit: int, count: int, using: str) -> list[Message]:
    """Return the last messages that end at a position or before it. The arguments are those of `after`.

    Of an append in which the position lies, the part before it is returned, as readers get it.
    """
    messages: list[Message] = []
    is_complete = True
    while is_complete and not messages and position > info.first_position:
        segments, start, is_complete = _portion_before(info, position, limit, using)
        messages = [*islice(_messages_before(info, segments, position), count)]
        position = start
    return messages[::-1]


def last(
    info: StreamInfo, position: int, *, count: int, using: str, max_bytes: int | None = None
) -> tuple[list[Message], bool]:
    """Return the last messages that end at a position or before it, and whether there may be others before them.

    There are exactly `count`, unless the stream has fewer, or `max_bytes` no room for them. Characters are `whole`. An
    append without the end of a character is no message, as for other readers. Each query reads about `PORTION_BYTES`.

    Args:
        info: the stream, as a query has just seen it.
        position: a position in it.
        count: the largest number of messages.
        using: alias of the database.
        max_bytes: the largest number of bytes that they have together, but for a single message. None: no limit.

    Raises:
        StreamNotFound: the stream was deleted meanwhile.
        ServiceUnavailable: its data is damaged.
    """
    portions: list[list[Message]] = []
    missing, room, is_full = count, max_bytes, False
    while missing > 0 and not is_full and position > info.first_position:
        segments, start, is_complete = _portion_before(info, position, PORTION_BYTES, using)
        if not is_complete:
            info = _trimmed_meanwhile(info, using)
            continue
        taken: list[Message] = []
        for message in _messages_before(info, segments, position):
            size = len(message.data)
            is_full = room is not None and size > room and (missing < count or bool(taken))
            if is_full or len(taken) == missing:
                start = taken[-1].start if taken else position
                break
            taken.append(message)
            room = None if room is None else room - size
        position = start
        portions.append([message for message in whole(info, taken[::-1], using) if message.data])
        missing -= len(portions[-1])
        is_full = is_full and missing < count  # otherwise only appends without the end of a character were taken
    return [message for part in reversed(portions) for message in part], position > info.first_position


def _trimmed_meanwhile(info: StreamInfo, using: str) -> StreamInfo:
    """Return a stream again whose data was not found, because it was trimmed after the first query."""
    present = log_reader.find_ids([info.id], using).get(info.id)
    if present is None or present.first_position <= info.first_position:
        raise log_reader.explain_missing(info, info.first_position, using)
    return info._replace(first_position=present.first_position)


def whole(info: StreamInfo, messages: list[Message], using: str) -> list[Message]:
    """Return messages without cut characters: a character that spans two appends is in the second one."""
    if not messages or not content.holds_text(info.content_type):
        return messages
    held = log_reader.held_before(info, messages[0].start, using)
    whole_messages = []
    for message in messages:
        data, held = text.split(held + message.data, final=info.closed and message.end >= info.tail)
        whole_messages.append(message._replace(data=data))
    return whole_messages


def _read(info: StreamInfo, position: int, limit: int, using: str) -> Segment | None:
    request = log_reader.PageRequest(info, position, limit)
    return log_reader.pages([request], SegmentCache(0), using)[info.id, position]


def _portion_before(info: StreamInfo, position: int, limit: int, using: str) -> tuple[list[Segment], int, bool]:
    """Return the data before a position, where its range begins, and whether all of it is there.

    It may hold no message: key compaction removes messages, and a message in JSON mode is never cut.
    """
    position = min(position, info.tail)
    start, end = _range_before(info, position, limit, using)
    segments: list[Segment] = []
    reached = start
    while reached < position:  # a page ends before an append that a fork has cut, and that is longer in the source
        segment = _read(info, reached, max(end - reached, 1), using)
        if segment is None:
            break
        segments.append(segment)
        reached = segment.end
    return segments, start, start < position <= reached


def _messages_before(info: StreamInfo, segments: Sequence[Segment], position: int) -> Iterator[Message]:
    """Yield the messages in consecutive segments that end at a position or before it, the last one first."""
    for segment in reversed(segments):
        yield from segment.messages_before(info.content_type, position)


def _range_before(info: StreamInfo, position: int, limit: int, using: str) -> tuple[int, int]:
    """Return the range to read for a page that ends at a position: it begins at a chunk about `limit` bytes before."""
    start = end = position
    for first, last in _spans_before(info, position, using):
        if start == position:
            end = last
        elif last != start or first < position - limit:
            break
        start = first
    return start, end


def _spans_before(info: StreamInfo, position: int, using: str) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the chunks before a position, the nearest first, without their data."""
    tables = (staged_rows.chunks(using), Chunk.objects.using(using))
    (info,) = look_up([(info, position, position)], using)
    pieces = [piece for piece in info.pieces() if piece.start < min(piece.end, position)]
    for piece in takewhile(_is_piece, pieces[: -MAX_PIECES - 1 : -1]):
        top = min(piece.end, position)
        nearest: list[tuple[int, int]] = []
        others: list[tuple[int, int]] = []
        # The staged chunks first, because a flush may move them to the other table meanwhile. Two queries for each
        # table: the index leads to the chunks of both, however many chunks follow.
        for table in tables:
            spans = table.filter(stream_id=piece.owner).values_list("start", "end")
            nearest += spans.filter(end__gte=top).order_by("end")[:1]
            others += spans.filter(end__lt=top, end__gt=piece.start).order_by("-end")[:MAX_CHUNKS]
        others.sort(key=itemgetter(1), reverse=True)
        for first, last in [*sorted(nearest, key=itemgetter(1))[:1], *others[:MAX_CHUNKS]]:
            first, last = max(first, piece.start, info.first_position), min(last, piece.end)
            if first < min(last, top):
                yield first, last


def _is_piece(entry: LineageEntry) -> bool:
    return not entry.is_run
