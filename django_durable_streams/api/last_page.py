"""`Stream.read_last`: the last messages of a stream, and pages before them, in the caller's transaction.

Knows no request and no event loop.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..protocol import arguments, text
from ..protocol.values import decode
from ..store.read import browsing, lineage, log_reader
from ..store.stream_info import StreamInfo
from . import transactions
from .conflicts import snapshot_errors
from .tail import Page

MAX_COUNT = 10_000
"""The largest number of messages on such a page, which are in memory together."""

MAX_BYTES = 1 << 30
"""The largest number of bytes that a caller may ask for."""


@dataclass(frozen=True, slots=True)
class LastPage(Page):
    """The last messages of a stream, or the last ones before an offset. Iterates over them, the oldest first."""

    offset: str
    """The offset before the first message: `before` of the page before this one.

    It may be inside an append of several messages. A read from there would begin with the whole append.
    """
    has_earlier: bool
    """Whether the stream may have messages before the first one. Where it has data without a message, the next page is
    empty, and the last."""


def read_last(path: str, stream_id: int, count: int, before: str, max_bytes: int, using: str) -> LastPage:
    """Return the last messages that end at an offset or before it. See `Stream.read_last`."""
    max_bytes = arguments.integer("max_bytes", max_bytes, 1, MAX_BYTES)
    count, end_offset = arguments.integer("count", count, 1, MAX_COUNT), arguments.offset(before)
    with snapshot_errors():
        info = transactions.find(path, using, stream_id)
        info, end = lineage.locate(info, end_offset, using)
        transactions.renew(info, using)
        lineage.check_retained(info, end, using)
        messages, has_earlier = browsing.last(info, end, count=count, using=using, max_bytes=max_bytes)
        start = messages[0].start if messages else end
        is_end = end >= info.tail
        is_closed = is_end and info.closed
        held_size = 0 if is_closed else len(log_reader.held_before(info, end, using))
        values = [decode(info.content_type, message.data) for message in messages]
        next_offset = _token(info, end - held_size, using)
        return LastPage(values, next_offset, is_end, is_closed, _token(info, start, using), has_earlier)


def _token(info: StreamInfo, position: int, using: str) -> str:
    return lineage.around(info, using, position - text.MAX_HELD, position).token(position)
