"""Lineages: the ranges of other streams with which a fork begins, in few entries however long the chain of sources is.

An entry is either a piece, a range of one stream's own bytes, or a run: the content of another stream in a range,
through the lineage of that stream. A run replaces `WIDTH` entries of the level below it, which the other stream's row
lists. So a row has less than twice `WIDTH` entries for each level, and three levels are enough for a chain of 30,000
forks. Reading in a run takes one query for each level. The newest entries of a fork are always pieces, which need none.

Invariants: the stream that a run names is a direct or indirect source of the fork, and its row exists for as long as
the fork. A lineage never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connections

from ...protocol import headers
from ...protocol.errors import OffsetTrimmed
from ...protocol.offsets import Offset, Sentinel
from ..sql import statements
from ..stream_info import LineageEntry, StreamInfo

WIDTH = 32
"""Entries of one level that one entry of the next level replaces."""

MAX_PIECES = 64
"""The largest number of pieces of a fork that one page reads, and that are looked up together."""

_GENERATION = LineageEntry._fields.index("generation")

LookUp = tuple[StreamInfo, int, int]
"""A stream and two positions. Requests the entries from the byte before the first position to the second."""


def has_runs(lineage: Sequence[Sequence[int]] | None) -> bool:
    """Whether a lineage has a run among its entries."""
    return lineage is not None and any(entry[_GENERATION] < 0 for entry in lineage)


def of_fork(source: StreamInfo, cut: int) -> list[list[int]]:
    """Return the lineage of a fork of a stream.

    Args:
        source: the stream, with pieces instead of runs at the cut (`look_up`).
        cut: the position at which the fork leaves the source.
    """
    entries = [
        entry._replace(end=min(entry.end, cut)) for entry in source.pieces() if entry.start < min(entry.end, cut)
    ]
    level = 0
    while (first := _first_of(entries, level)) is not None and _count_of(entries, level) >= 2 * WIDTH:
        last = first + WIDTH - 1
        run = LineageEntry(source.id, entries[first].start, entries[last].end, -level - 1)
        entries[first : last + 1] = [run]
        level += 1
    return [[*entry] for entry in entries]


def _first_of(entries: Sequence[LineageEntry], level: int) -> int | None:
    return next((number for number, entry in enumerate(entries) if entry.level == level), None)


def _count_of(entries: Sequence[LineageEntry], level: int) -> int:
    return sum(entry.level == level for entry in entries)


def around(info: StreamInfo, using: str, first: int, last: int) -> StreamInfo:
    """Return a stream with pieces instead of runs between two positions. Tokens of these positions need the pieces."""
    if has_runs(info.lineage):
        (info,) = look_up([(info, first, last)], using)
    return info


def first_offset(info: StreamInfo, using: str) -> str:
    """Return the offset of the first retained data."""
    position = info.first_position
    return around(info, using, position - 1, position).token(position)


def check_retained(info: StreamInfo, position: int, using: str) -> None:
    """Check that a stream still has the data after a position. A stream may be trimmed while somebody reads it.

    Raises:
        OffsetTrimmed: a part of it was trimmed (410). The error names the offset to go on from.
    """
    if position < info.first_position:
        token = first_offset(info, using)
        raise OffsetTrimmed(
            f"The data at this offset is no longer retained. Go on at {token}, or read from -1.",
            ((headers.STREAM_FIRST_OFFSET, token.encode("ascii")),),
            first_offset=token,
        )


def locate(info: StreamInfo, offset: Offset | Sentinel, using: str) -> tuple[StreamInfo, int]:
    """Return a stream with the pieces that tokens at an offset need, and the position of the offset.

    Raises:
        OffsetGone: the offset is not one of this stream's (see `StreamInfo.locate`).
    """
    if isinstance(offset, Offset):
        info = around(info, using, offset.position - 1, offset.position)
    elif offset is Sentinel.START and info.first_position:
        info = around(info, using, info.first_position - 1, info.first_position)
    return info, info.locate(offset)


def look_up(requests: Sequence[LookUp], using: str) -> list[StreamInfo]:
    """Return the streams with pieces instead of runs between two positions, up to the pieces that one page reads.

    Takes one query for each level, for all streams together, and none for streams without runs in their range.
    """
    infos = [info for info, _, _ in requests]
    while True:
        runs = [_first_run(info, first, last) for info, (_, first, last) in zip(infos, requests, strict=True)]
        owners = {run.owner for run in runs if run is not None}
        if not owners:
            return infos
        sql = statements(using)
        with connections[using].cursor() as cursor:
            rows = {info.id: info for info in sql.select_streams(cursor, "id", owners)}
            younger = owners - rows.keys()
            if younger and sql.reads_old_snapshot():
                rows |= {info.id: info for info in sql.select_streams(cursor, "id", younger, lock="share")}
        infos = [
            info if run is None else _with_entries(info, run, rows.get(run.owner))
            for info, run in zip(infos, runs, strict=True)
        ]


def _first_run(info: StreamInfo, first: int, last: int) -> LineageEntry | None:
    """Return the first run between two positions, if a page reaches it."""
    if not has_runs(info.lineage):
        return None
    pieces = 0
    for entry in info.pieces():
        if entry.start > last or pieces > MAX_PIECES:
            return None
        if entry.end < first:
            continue
        if entry.is_run:
            return entry
        pieces += 1
    return None


def _with_entries(info: StreamInfo, run: LineageEntry, owner: StreamInfo | None) -> StreamInfo:
    """Return a stream with the entries that a run replaces in place of the run."""
    if owner is None:  # its row was purged, and so was the fork: no data is left to read
        entries = [LineageEntry(run.owner, run.start, run.end, 0)]
    else:
        entries = [
            entry._replace(start=max(entry.start, run.start), end=min(entry.end, run.end))
            for entry in owner.pieces()
            if max(entry.start, run.start) < min(entry.end, run.end)
        ]
    lineage: list[list[int]] = []
    for entry in info.lineage or ():
        lineage += [[*part] for part in entries] if LineageEntry(*entry) == run else [entry]
    return info._replace(lineage=lineage)
