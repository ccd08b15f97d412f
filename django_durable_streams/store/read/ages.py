"""How old the data of a stream is, by the times of its chunks. Reads no data.

A chunk has the time of its commit or, once compaction has merged it, of the merge. So its data is at least as old.
"""

from __future__ import annotations

from datetime import datetime

from ... import clock
from ...models import Chunk
from ..stream_info import StreamInfo


def position_before(info: StreamInfo, moment: datetime, using: str) -> int:
    """Return a position such that all data before it was appended at a moment or earlier.

    It is the end of a chunk, so older data may follow. Data that a fork has from its source counts only together with
    the first chunk of the fork.

    Args:
        info: the stream, as a query has just seen it.
        moment: an aware time.
        using: alias of the database.
    """
    query = Chunk.objects.using(using).filter(stream_id=info.id).order_by("end")
    chunks = query.values_list("start", "end", "created_at")
    low, high = info.first_position, info.tail
    while low < high:
        middle = (low + high) // 2
        row = chunks.filter(end__gt=middle).first()
        if row is not None and row[1] <= info.tail and _latest(row[2]) <= moment:
            low = row[1]
        else:  # a staged chunk is seconds old, and has no row here
            high = middle if row is None else min(middle, max(row[0], low))
    return low


def _latest(created_at: datetime) -> datetime:
    """Return the time of a chunk in UTC, so that no data counts as older than it is.

    When clocks are set back, a naive time has two meanings. This is the later one.
    """
    return clock.from_project(created_at.replace(fold=1))
