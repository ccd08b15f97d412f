"""The position at which a fork is cut from its source (section 4.2). Some rules need the data of the source."""

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


def resolve(source: StreamState, fork: Fork, using: str, *, is_new: bool = True) -> int:
    """Return the position of the cut: that of the fork's offset, plus its sub-offset.

    Expands the runs of the source's lineage near the cut in the working copy.

    Args:
        source: the source.
        fork: what the create says of it.
        using: alias of the database.
        is_new: whether the fork will be made. Otherwise it is compared with an existing one, which keeps data that was
            trimmed in the source since.

    Raises:
        OffsetOutOfRange: the cut is past the tail, inside a JSON message, past the append at the offset, or in trimmed
            data.
    """
    if fork.offset is not None and lineage.has_runs(source.lineage):
        cut = fork.offset.position
        source.lineage = lineage.around(source.info(), using, cut - 1, cut).lineage
    position = source.tail if fork.offset is None else source.info().find(fork.offset)
    if position is None:
        raise OffsetOutOfRange(
            "Stream-Fork-Offset is past the end of the source, or belongs to another stream. "
            "Use an offset that the server returned for the source."
        )
    # Only the working copy changes: the lineage in a row is written once, at the creation.
    source.lineage = lineage.around(source.info(), using, position, position).lineage
    if position < source.first_position:
        if not is_new and not fork.sub_offset:
            return position
        first_offset = lineage.first_offset(source.info(), using)
        raise OffsetOutOfRange(
            f"Data of the source before the offset {first_offset} was trimmed. Use this offset as Stream-Fork-Offset, "
            "or a later one."
        )
    is_json = content.is_json(source.content_type)
    if not fork.sub_offset and (not is_json or position in (0, source.first_position, source.tail)):
        return position
    append = _append_at(source, position, using)
    if append is None:
        raise OffsetOutOfRange("Stream-Fork-Sub-Offset is past the end of the source. Use a smaller number.")
    if is_json:
        inside = _after_messages(append.data, append.index(position), fork.sub_offset)
        return append.position(inside) if fork.sub_offset else position
    if fork.sub_offset > append.ends[0] - position:
        raise OffsetOutOfRange(
            "Stream-Fork-Sub-Offset is past the append at Stream-Fork-Offset. Use a smaller number, or a later offset."
        )
    return position + fork.sub_offset


def _after_messages(data: bytes, inside: int, count: int) -> int:
    """Return the position inside an append's data after `count` messages from the position `inside`."""
    if inside and data[inside - 1 : inside] != b"\n":
        raise OffsetOutOfRange("Stream-Fork-Offset is inside a message. Use an offset that the server returned.")
    if data.count(b"\n", inside) < count:
        raise OffsetOutOfRange(
            "Stream-Fork-Sub-Offset is past the messages of the append at Stream-Fork-Offset. "
            "Use a smaller number, or a later offset."
        )
    for _ in range(count):
        inside = data.index(b"\n", inside) + 1
    return inside


def _append_at(source: StreamState, position: int, using: str) -> Segment | None:
    """Return the one append that contains a position, or that begins there."""
    request = log_reader.PageRequest(source.info(), position, 1)
    return log_reader.pages([request], SegmentCache(0), using)[source.id, position]
