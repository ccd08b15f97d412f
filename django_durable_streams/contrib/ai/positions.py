"""The position of an event in a chat's stream, for a branch. It counts the stored lines: each is an event."""

from __future__ import annotations

from ...api import transactions
from ...api.conflicts import snapshot_errors
from ...conf import config
from ...models import Stream
from ...protocol.offsets import Sentinel
from ...store.read import lineage, log_reader
from ...store.read.segment_cache import SegmentCache


def offset_after(stream: Stream, count: int, using: str) -> str:
    """Return the offset after a number of events, counted from the beginning of the stream.

    Raises:
        StreamNotFound, StreamGone: the stream was deleted.
        ValueError: the stream has fewer events.
    """
    with snapshot_errors():
        info = transactions.find(stream.path, using, stream.pk)
        info, position = lineage.locate(info, Sentinel.START, using)
        while count:
            segment = None
            if position < info.tail:
                request = log_reader.PageRequest(info, position, config().page_bytes)
                segment = log_reader.pages([request], SegmentCache(0), using)[info.id, position]
            if segment is None:
                raise ValueError("The chat has fewer events.")
            lines = segment.data.split(b"\n", count)
            count -= len(lines) - 1
            position = segment.end - len(lines[-1])
            info = lineage.around(info, using, position, position)
    return stream.offset_at(position)
