"""Recent chunks: what busy processes append on SQLite, until it is gathered and lies with all the rest.

A commit there costs the pages that it changes, and with many streams most of these are of the index of the chunks: each
stream has its own place in it. Recent chunks are in a table of their own, and its index has one block after the other:
a block is small, and is over soon. Once there are many blocks, or nothing comes any more, the oldest is gathered: the
chunks of each of its streams become one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import attrgetter
from typing import NamedTuple

from django.db import connections
from django.db.models import QuerySet
from django.utils import timezone

from ..models import RecentChunk
from . import rows
from .compaction import limited
from .sql import RecentSpan, Row, statements

MAX_BLOCKS = 64
"""Blocks that may wait while more is appended. A read looks into each."""

QUIET = timedelta(seconds=2)
"""How long nothing has been appended when all that waits is gathered."""


class Portion(NamedTuple):
    """The chunks that some streams have in a block, as they were read: how many, and what is to take their place."""

    block: int
    first: int
    last: int
    """The ids of its streams are in this range."""
    size: int
    chunks: list[Row]

    @property
    def stream_ids(self) -> set[int]:
        """Its streams, without those that are not there any more."""
        return {row[0] for row in self.chunks}


def blocks(using: str) -> list[int]:
    """Return the numbers of the blocks in which there are recent chunks, the oldest first."""
    with connections[using].cursor() as cursor:
        return statements(using).recent_blocks(cursor)


def chunks(using: str) -> QuerySet[RecentChunk]:
    """Return the recent chunks, as a query in which the index leads to those of a stream."""
    return RecentChunk.objects.using(using).filter(block__in=blocks(using))


class Due(NamedTuple):
    """A block to gather, and whether that is urgent: as more come than should wait."""

    block: int
    is_urgent: bool


def due(using: str, now: datetime | None = None) -> Due | None:
    """Return the block to gather next, if there is one."""
    found = blocks(using)
    if not found:
        return None
    if len(found) > MAX_BLOCKS:
        return Due(found[0], True)
    newest = RecentChunk.objects.using(using).order_by("-pk").values_list("created_at", flat=True).first()
    if newest is None:
        return None
    # One from the future is not new: with naive times, clocks that were set back make such.
    age = (now or timezone.now()) - newest
    return None if timedelta(0) <= age < QUIET else Due(found[0], False)


def portions(using: str, block: int) -> Iterator[Portion]:
    """Read a block and yield what is in it, as much at a time as one transaction should gather.

    Its chunks never change: that need not be done while others wait for a transaction.
    """
    with connections[using].cursor() as cursor:
        spans, data = statements(using).read_block(cursor, block)
    now = connections[using].ops.adapt_datetimefield_value(timezone.now())
    position = 0
    for streams in limited(_by_stream(spans), len, _size):
        chunks: list[Row] = []
        for run in (run for stream in streams for run in _runs(stream)):
            ends = [end for span in run for end in rows.unpack_ends(span.start, span.end, span.ends)]
            appends = []
            for start, end in pairwise((run[0].start, *ends)):
                appends.append(data[position : position + end - start])
                position += end - start
            if run[0].is_there:
                chunks += [(run[0].stream_id, *chunk, now) for chunk in rows.chunks(run[0].start, appends, ends)]
        yield Portion(block, streams[0][0].stream_id, streams[-1][0].stream_id, sum(map(len, streams)), chunks)


def _by_stream(spans: Iterable[RecentSpan]) -> Iterator[list[RecentSpan]]:
    for _, stream in groupby(spans, attrgetter("stream_id")):
        yield [*stream]


def _size(stream: Sequence[RecentSpan]) -> int:
    return sum(span.end - span.start for span in stream)


def _runs(stream: Sequence[RecentSpan]) -> Iterator[Sequence[RecentSpan]]:
    """Yield what follows each other of a stream's spans: others may have appended in between."""
    first = 0
    for number, (before, span) in enumerate(pairwise(stream), 1):
        if span.start != before.end:
            yield stream[first:number]
            first = number
    yield stream[first:]


class _Changed(Exception):
    """A portion is not what it was."""


def gather(using: str, portion: Portion) -> bool:
    """Put the chunks of a portion where chunks stay, in one transaction.

    Returns False, with nothing changed, where it is not as it was read: more was appended, or somebody else has
    gathered it or removed a stream.
    """
    sql = statements(using)
    try:
        with sql.transaction() as cursor:
            if sql.delete_recent(cursor, portion.block, portion.first, portion.last) != portion.size:
                raise _Changed
            sql.insert_chunks(cursor, portion.chunks)
    except _Changed:
        return False
    return True
