"""Recent chunks: what busy processes append on SQLite, until it is gathered and lies with all the rest.

A commit there costs the pages that it changes, and with many streams most of these are of the index of the chunks: each
stream has its own place in it. Recent chunks are in a table of their own, and its index has one block after the other:
a block is small, and is over soon. Once there are many blocks, or nothing comes any more, the oldest is gathered: the
chunks of each of its streams become one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from operator import attrgetter
from typing import Any, NamedTuple

from django.db import connections
from django.utils import timezone

from ...models import StagedChunk
from .. import chunk_rows, staged_rows
from ..chunk_rows import CorruptChunk
from ..sql import Row, StagedSpan, statements
from .compaction import limited

MAX_BLOCKS = 64
"""Blocks that may wait while more is appended. A read looks into each."""

QUIET = timedelta(seconds=2)
"""How long nothing has been appended when all that waits is gathered."""


class StagedPart(NamedTuple):
    """What one stream has in a block: the ids of its recent chunks as they were read, and what takes their place."""

    stream_id: int
    ids: list[int]
    chunks: list[Row]
    """Empty where the stream is not there any more."""
    size: int
    """Bytes that were read."""


class FlushPortion(NamedTuple):
    """What one transaction gathers: parts of a block."""

    block: int
    parts: list[StagedPart]

    @property
    def ids(self) -> list[int]:
        """The recent chunks that go."""
        return [chunk_id for part in self.parts for chunk_id in part.ids]

    @property
    def chunks(self) -> list[Row]:
        """What takes their place."""
        return [chunk for part in self.parts for chunk in part.chunks]

    @property
    def stream_ids(self) -> set[int]:
        """Its streams, without those that are not there any more."""
        return {part.stream_id for part in self.parts if part.chunks}

    def halves(self) -> list[FlushPortion]:
        """Return it as two, each with half of the streams. It has two at least."""
        middle = len(self.parts) // 2
        return [FlushPortion(self.block, self.parts[:middle]), FlushPortion(self.block, self.parts[middle:])]


class Due(NamedTuple):
    """A block to gather, and whether that is urgent: as more come than should wait."""

    block: int
    is_urgent: bool


def due(using: str, now: datetime | None = None, skip: Collection[int] = ()) -> Due | None:
    """Return the block to gather next, if there is one.

    Args:
        skip: blocks that cannot be gathered at present.
    """
    found = [block for block in staged_rows.blocks(using) if block not in skip]
    if not found:
        return None
    if len(found) > MAX_BLOCKS:
        return Due(found[0], True)
    newest = StagedChunk.objects.using(using).order_by("-pk").values_list("created_at", flat=True).first()
    if newest is None:
        return None
    # One from the future is not new: with naive times, clocks that were set back make such.
    age = (now or timezone.now()) - newest
    return None if timedelta(0) <= age < QUIET else Due(found[0], False)


def portions(using: str, block: int, torn: Callable[[int, CorruptChunk], object]) -> Iterator[FlushPortion]:
    """Read a block and yield what is in it, as much at a time as one transaction should gather.

    Its chunks never change: that need not be done while others wait for a transaction.

    Args:
        torn: is told of streams with a chunk there that contradicts itself. They stay as they are.
    """
    with connections[using].cursor() as cursor:
        spans, data = statements(using).read_block(cursor, block)
    now = connections[using].ops.adapt_datetimefield_value(timezone.now())
    found = _parts(spans, data, now, torn)
    for parts in limited(found, lambda part: len(part.ids), lambda part: part.size):
        yield FlushPortion(block, parts)


def _parts(
    spans: Iterable[StagedSpan], data: bytes, now: Any, torn: Callable[[int, CorruptChunk], object]
) -> Iterator[StagedPart]:
    first = 0
    for stream in _by_stream(spans):
        size = sum(span.size for span in stream)
        try:
            chunks = _chunks(stream, data[first : first + size], now)
        except CorruptChunk as error:
            torn(stream[0].stream_id, error)
        else:
            yield StagedPart(stream[0].stream_id, [span.id for span in stream], chunks, size)
        first += size


def _chunks(stream: Sequence[StagedSpan], data: bytes, now: Any) -> list[Row]:
    """Return the rows that take the place of what a stream has in a block."""
    if not stream[0].stream_exists:
        return []
    chunks: list[Row] = []
    position = 0
    for run in _runs(stream):
        ends = [end for span in run for end in chunk_rows.checked_ends(span.start, span.end, span.size, span.ends)]
        appends = []
        for start, end in pairwise((run[0].start, *ends)):
            appends.append(data[position : position + end - start])
            position += end - start
        chunks += [(run[0].stream_id, *chunk, now) for chunk in chunk_rows.chunks(run[0].start, appends, ends)]
    return chunks


def _by_stream(spans: Iterable[StagedSpan]) -> Iterator[list[StagedSpan]]:
    for _, stream in groupby(spans, attrgetter("stream_id")):
        yield [*stream]


def _runs(stream: Sequence[StagedSpan]) -> Iterator[Sequence[StagedSpan]]:
    """Yield what follows each other of a stream's spans: others may have appended in between."""
    first = 0
    for number, (before, span) in enumerate(pairwise(stream), 1):
        if span.start != before.end:
            yield stream[first:number]
            first = number
    yield stream[first:]


class _Changed(Exception):
    """A portion is not what it was."""


def flush(using: str, portion: FlushPortion) -> bool:
    """Put the chunks of a portion where chunks stay, in one transaction. What was appended since stays as it is.

    Returns False, with nothing changed, where one of them has gone since: somebody else has gathered it, or has
    removed its stream.
    """
    sql = statements(using)
    ids = portion.ids
    try:
        with sql.transaction() as cursor:
            if sql.delete_staged(cursor, ids) != len(ids):
                raise _Changed
            chunks = portion.chunks
            if chunks:
                sql.insert_chunks(cursor, chunks)
    except _Changed:
        return False
    return True
