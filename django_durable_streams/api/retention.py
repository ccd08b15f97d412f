"""The functions behind `Stream.trim` and `Stream.retain`, in the caller's transaction. Knows no request."""

from __future__ import annotations

from typing import Any

from django.db import connections

from ..models import Retention
from ..models.methods import StreamMethods
from ..protocol import arguments
from ..protocol.errors import OffsetOutOfRange
from ..protocol.offsets import Offset
from ..protocol.retention import RetentionRules, rules
from ..store.operations import Trim, Trimmed
from ..store.read import lineage
from ..store.read.boundaries import boundary_before
from ..store.sql import statements
from ..store.stream_info import StreamInfo
from ..store.upkeep import retention
from . import transactions
from .conflicts import snapshot_errors


def trim(stream: StreamMethods, before: str) -> str:
    """Drop the data before an offset. See `Stream.trim`."""
    stream_id, using = stream._expected(), stream._alias()
    offset = arguments.offset(before)
    # The operation first: it locks the stream's row, so that the rows of two trims are written in the same order.
    with snapshot_errors(), transactions.atomic(using):
        info, position = _locate(transactions.find(stream.path, using, stream_id), offset, using)
        position = boundary_before(info, position, using)
        result = transactions.apply(Trim(stream.path, position, stream_id), using)
        assert isinstance(result, Trimmed)
        if result.first_position:
            row = Retention(stream_id=stream_id, trim_position=result.first_position)
            retention.upsert(using, [row], ["trim_position"])
    stream.first_position = result.first_position
    return lineage.first_offset(info._replace(first_position=result.first_position), using)


def _locate(info: StreamInfo, offset: Any, using: str) -> tuple[StreamInfo, int]:
    """Return the position of an offset, which must be one of the stream's: nothing is dropped by a guess.

    Raises:
        OffsetOutOfRange: it is past the tail, or belongs to another stream.
    """
    if not isinstance(offset, Offset):
        return info, info.locate(offset)
    info = lineage.around(info, using, offset.position - 1, offset.position)
    position = info.find(offset)
    if position is None:
        raise OffsetOutOfRange(
            f"The offset {offset} is past the end of the stream at {info.path}, or belongs to another stream. "
            "Nothing was trimmed."
        )
    return info, position


def retain(stream: StreamMethods, **limits: Any) -> None:
    """Give a stream rules of its own. See `Stream.retain`."""
    _set_rules(stream, rules(**limits))


def reset_retention(stream: StreamMethods) -> None:
    """Give a stream the rules of the setting. See `Stream.reset_retention`."""
    _set_rules(stream, None)


def _set_rules(stream: StreamMethods, own: RetentionRules | None) -> None:
    stream_id, using = stream._expected(), stream._alias()
    with snapshot_errors(), transactions.atomic(using):
        transactions.find(stream.path, using, stream_id)
        with connections[using].cursor() as cursor:  # locked, so that no purge deletes the stream meanwhile
            statements(using).select_streams(cursor, "id", [stream_id], lock="wait")
        retention.set_rules(using, stream_id, own)


def retention_of(stream: StreamMethods) -> RetentionRules:
    """Return the rules that are in force for a stream."""
    return retention.rules_of(stream.path, retention.row_of(stream._expected(), stream._alias()))
