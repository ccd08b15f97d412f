"""Where a fork is cut from its source (specification, section 4.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...protocol import content
from ...protocol.errors import OffsetOutOfRange
from ...protocol.segments import Segment
from ..operations import Fork
from ..read import lineage, log_reader
from ..read.segment_cache import SegmentCache

if TYPE_CHECKING:
    from .stream_state import StreamState


def resolve(source: StreamState, fork: Fork, using: str) -> int:
    """Return the position at which a fork is cut: its offset, and the sub-offset past that.

    Raises:
        OffsetOutOfRange: past the tail, inside a JSON message, or past the append that the sub-offset leads into.
    """
    if fork.offset is not None and lineage.has_runs(source.lineage):
        cut = fork.offset.position
        source.lineage = lineage.around(source.info(), using, cut - 1, cut).lineage
    position = source.tail if fork.offset is None else source.info().find(fork.offset)
    if position is None:
        raise OffsetOutOfRange("Stream-Fork-Offset lies past the end of the source, or is of another stream.")
    # Of the working copy: no row's lineage is written twice.
    source.lineage = lineage.around(source.info(), using, position, position).lineage
    is_json = content.is_json(source.content_type)
    if not fork.sub_offset and (not is_json or position in (0, source.tail)):
        return position
    append = _append_at(source, position, using)
    if append is None:
        raise OffsetOutOfRange("Stream-Fork-Sub-Offset leads past the end of the source.")
    inside = position - append.start
    if is_json:
        return append.start + _after_messages(append.data, inside, fork.sub_offset)
    if fork.sub_offset > append.ends[0] - position:
        raise OffsetOutOfRange("Stream-Fork-Sub-Offset leads past the append at Stream-Fork-Offset.")
    return position + fork.sub_offset


def _after_messages(data: bytes, inside: int, count: int) -> int:
    """Return where `count` messages of an append end, counted from a place inside it."""
    if inside and data[inside - 1 : inside] != b"\n":
        raise OffsetOutOfRange("Stream-Fork-Offset lies inside a message. Use an offset that the server returned.")
    if data.count(b"\n", inside) < count:
        raise OffsetOutOfRange("Stream-Fork-Sub-Offset leads past the messages of the append at Stream-Fork-Offset.")
    for _ in range(count):
        inside = data.index(b"\n", inside) + 1
    return inside


def _append_at(source: StreamState, position: int, using: str) -> Segment | None:
    """Return the one append that contains a position, or begins there."""
    request = log_reader.PageRequest(source.info(), position, 1)
    return log_reader.pages([request], SegmentCache(0), using)[source.id, position]
