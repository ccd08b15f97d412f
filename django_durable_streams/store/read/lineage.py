"""Lineages: which ranges of which streams a fork begins with, in few entries however long the chain of its sources is.

An entry is either a piece, a range of one stream's own bytes, or a run: what another stream has in a range, through a
lineage of its own. A run stands for `WIDTH` entries of the level below it, which that stream's row lists. So a row has
less than twice that for each level, and the levels are few: three for a chain of 30,000 forks. To read in a run is to
look up rows, one level after the other; what a fork was given last are always pieces, and read without.

The stream that a run names is always one of the fork's line of sources, whose rows are kept for as long as it is there.
What a lineage says never changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import connections

from ...protocol.offsets import Offset, Sentinel
from ..sql import statements
from ..stream_info import LineageEntry, StreamInfo

WIDTH = 32
"""Entries that one of the next level stands for."""

MAX_PIECES = 64
"""Pieces of a fork that are looked up together, and that one page reads."""

_GENERATION = LineageEntry._fields.index("generation")

Wanted = tuple[StreamInfo, int, int]
"""A stream, and two positions: the entries from the first one, what lies right before it included, to the second."""


def has_runs(lineage: Sequence[Sequence[int]] | None) -> bool:
    """Whether there is a run among the entries of a lineage."""
    return lineage is not None and any(entry[_GENERATION] < 0 for entry in lineage)


def of_fork(source: StreamInfo, cut: int) -> list[list[int]]:
    """Return the lineage of a fork of a stream.

    Args:
        source: with its entries at the cut looked up (`look_up`).
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
    """Return a stream with pieces in place of the runs between two positions: a token says of which piece it is."""
    if has_runs(info.lineage):
        (info,) = look_up([(info, first, last)], using)
    return info


def locate(info: StreamInfo, offset: Offset | Sentinel, using: str) -> tuple[StreamInfo, int]:
    """Return a stream as its tokens at an offset need it, and the position that the offset stands for.

    Raises:
        OffsetGone: none of this stream's (see `StreamInfo.locate`).
    """
    if isinstance(offset, Offset):
        info = around(info, using, offset.position - 1, offset.position)
    return info, info.locate(offset)


def look_up(wanted: Sequence[Wanted], using: str) -> list[StreamInfo]:
    """Return streams with pieces in place of the runs between two positions, as many pieces as a page reads.

    It takes a query for each level, for all of them together, and none for a stream whose lineage has no runs there.
    """
    found = [info for info, _, _ in wanted]
    while True:
        runs = [_first_run(info, first, last) for info, (_, first, last) in zip(found, wanted, strict=True)]
        owners = {run.owner for run in runs if run is not None}
        if not owners:
            return found
        sql = statements(using)
        with connections[using].cursor() as cursor:
            rows = {info.id: info for info in sql.select_streams(cursor, "id", owners)}
            younger = owners - rows.keys()
            if younger and sql.reads_old_snapshot():
                rows |= {info.id: info for info in sql.select_streams(cursor, "id", younger, lock="share")}
        found = [
            info if run is None else _with_entries(info, run, rows.get(run.owner))
            for info, run in zip(found, runs, strict=True)
        ]


def _first_run(info: StreamInfo, first: int, last: int) -> LineageEntry | None:
    """Return the first run between two positions that a page would reach."""
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
    """Put the entries that a run stands for in its place."""
    if owner is None:  # its row is gone, and so is the fork by now: there is nothing to read
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
