"""Where data can be cut off: at the start of an append, so that each read goes on to return whole appends.

In a stream of text, reads begin anywhere, and so may the retained data, except inside a character.
"""

from __future__ import annotations

from ...models import Chunk
from ...protocol import content
from .. import staged_rows
from ..chunk_rows import readable_ends
from ..stream_info import StreamInfo
from . import log_reader
from .lineage import look_up


def boundary_before(info: StreamInfo, position: int, using: str) -> int:
    """Return the last position, up to a given one, from which the data can be retained. Reads no data of appends.

    Args:
        info: the stream, as a query has just seen it.
        position: a position between its first one and its tail.
        using: alias of the database.

    Raises:
        OffsetTrimmed, StreamNotFound: the stream was trimmed or deleted meanwhile.
        ServiceUnavailable: its data is damaged.
    """
    if position <= info.first_position:
        return info.first_position
    if content.holds_text(info.content_type):
        return position - len(log_reader.held_before(info, position, using))
    if position >= info.tail:
        return info.tail
    (info,) = look_up([(info, position, position)], using)
    piece = next(piece for piece in info.pieces() if piece.start <= position < piece.end)
    chunk = _chunk_with(piece.owner, position, using)
    if chunk is None:
        raise log_reader.explain_missing(info, position, using)
    start, end, packed = chunk
    before = [at for at in (start, *readable_ends(start, end, packed)) if at <= position]
    return max(before[-1], piece.start, info.first_position)


def _chunk_with(owner: int, position: int, using: str) -> tuple[int, int, bytes] | None:
    """Return the start, the end and the packed ends of the chunk that has the byte after a position."""
    # The staged chunks first, because a flush may move them to the other table meanwhile.
    for table in (staged_rows.chunks(using), Chunk.objects.using(using)):
        query = table.filter(stream_id=owner, end__gt=position).order_by("end").values_list("start", "end", "ends")
        for start, end, packed in query[:1]:
            if start <= position:
                return start, end, bytes(packed)
    return None
