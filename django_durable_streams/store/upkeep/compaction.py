"""Merging small chunks, so that a stream of many small appends reads like one of few large ones.

Chunks are merged until each is more than twice as large as the next one. A stream then has a number of chunks that
grows with the logarithm of its size, and a byte is written again as often as that at most. Positions stay as they are.

The chunks of streams that grow at the same time lie side by side in the table: merged together, they cost little more
than one of them alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from django.db import connections
from django.utils import timezone

from ...models import Chunk
from ..chunk_rows import MAX_CHUNK_BYTES, checked_ends, pack_ends
from ..sql import Row, statements

T = TypeVar("T")


class Span(NamedTuple):
    """Neighbouring chunks of a stream that are to be one: their ids, where the first starts and where each ends."""

    stream_id: int
    ids: tuple[int, ...]
    start: int
    ends: tuple[int, ...]

    def cut(self, rows: int) -> Iterator[Span]:
        """Yield it in spans of so many chunks, two at least, of which each is one to be."""
        if len(self.ids) <= rows:
            yield self
            return
        start = self.start
        for first in range(0, len(self.ids), rows):
            ids, ends = self.ids[first : first + rows], self.ends[first : first + rows]
            if len(ids) > 1:
                yield Span(self.stream_id, ids, start, ends)
            start = ends[-1]


class Merger(NamedTuple):
    """A span, and the data and packed ends of the chunk that is to take its place."""

    span: Span
    data: bytes
    ends: bytes


MERGE_BYTES = 2 * 1024 * 1024
MERGE_ROWS = 1000
"""What one transaction merges at the most: appends must not wait for it."""

PLAN_STREAMS = 64
"""Streams whose chunks are looked at together. Thousands may be due, with hundreds of chunks each."""

PLAN_ROWS = 20_000
"""Chunks that are looked at together, however many a stream has."""


def compact(using: str, stream_ids: Collection[int]) -> int:
    """Merge small chunks of streams, and return how many chunks went into the larger ones."""
    merged = 0
    while stream_ids:
        unfinished: set[int] = set()
        some = sum(merge(using, read(using, spans)) for spans in portions(using, stream_ids, unfinished))
        if not some:
            break
        merged += some
        stream_ids = unfinished
    return merged


def portions(using: str, stream_ids: Collection[int], unfinished: set[int]) -> Iterator[list[Span]]:
    """Yield what is to be merged in streams, as much at a time as one transaction should.

    Args:
        unfinished: gets those streams that have so many chunks that more is to be merged once this is.
    """
    planned = _planned(using, stream_ids, unfinished)
    return limited(planned, lambda span: len(span.ids), lambda span: span.ends[-1] - span.start)


def _planned(using: str, stream_ids: Collection[int], unfinished: set[int]) -> Iterator[Span]:
    ordered = sorted(stream_ids, reverse=True)
    while ordered:
        some = ordered[:PLAN_STREAMS]
        with connections[using].cursor() as cursor:
            rows = statements(using).select_spans(cursor, some, PLAN_ROWS)
        cut_off = rows[-1][0] if len(rows) == PLAN_ROWS else 0
        # Of that stream there are only the last chunks; those with smaller ids are looked at next.
        ordered = [stream_id for stream_id in some if stream_id < cut_off] + ordered[PLAN_STREAMS:]
        for stream_id, chunks in groupby(rows, itemgetter(0)):
            for span in plan([*chunks][::-1]):
                if stream_id == cut_off or len(span.ids) > MERGE_ROWS:
                    unfinished.add(stream_id)
                yield from span.cut(MERGE_ROWS)


def limited(items: Iterable[T], rows: Callable[[T], int], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield items, as many at a time as one transaction should take.

    Args:
        rows: returns how many chunks an item is.
        size: returns how much data it is, in bytes.
    """
    portion: list[T] = []
    total = count = 0
    for item in items:
        if portion and (total + size(item) > MERGE_BYTES or count + rows(item) > MERGE_ROWS):
            yield portion
            portion, total, count = [], 0, 0
        portion.append(item)
        total += size(item)
        count += rows(item)
    if portion:
        yield portion


def plan(chunks: Sequence[Sequence[int]]) -> Iterator[Span]:
    """Yield the spans to merge.

    Args:
        chunks: (stream id, chunk id, start, end) of a stream's chunks, in the order of their positions.
    """
    spans: list[tuple[int, int]] = []
    """The number of the first chunk in each, and its start."""
    position = None
    for number, (_, _, start, end) in enumerate(chunks):
        if start != position:  # a gap, where data is not retained: nothing goes across
            yield from _several(chunks[:number], spans)
            spans = []
        position = end
        first = number
        while spans:
            _, start_before = spans[-1]
            if start - start_before >= 2 * (end - start) or end - start_before > MAX_CHUNK_BYTES:
                break
            first, start = spans.pop()
        spans.append((first, start))
    yield from _several(chunks, spans)


def _several(chunks: Sequence[Sequence[int]], spans: Iterable[tuple[int, int]]) -> Iterator[Span]:
    for (first, start), (last, _) in pairwise([*spans, (len(chunks), 0)]):
        if last - first > 1:
            some = chunks[first:last]
            yield Span(some[0][0], tuple([chunk[1] for chunk in some]), start, tuple([chunk[3] for chunk in some]))


def read(using: str, spans: Sequence[Span]) -> list[Merger]:
    """Read the chunks of spans and return what is to take their place.

    Chunks never change: that need not be done while others wait for a transaction. A span of which somebody else has
    merged or deleted a chunk meanwhile is left out.

    Raises:
        CorruptChunk: one of them contradicts itself.
    """
    with connections[using].cursor() as cursor:
        ids, data, packed, sizes = statements(using).read_chunks(cursor, _ids(spans))
    mergers = []
    place = position = 0
    for span in spans:
        first, start, missing = position, span.start, False
        ends: list[int] = []
        for chunk_id, end in zip(span.ids, span.ends, strict=True):
            if place < len(ids) and ids[place] == chunk_id:
                ends += checked_ends(start, end, sizes[place], packed[place])
                place, position = place + 1, position + end - start
            else:
                missing = True
            start = end
        if not missing:
            mergers.append(Merger(span, data[first:position], pack_ends(span.start, ends)))
    return mergers


def merge(using: str, mergers: Sequence[Merger]) -> int:
    """Put chunks in the place of spans, in one transaction, and return how many chunks there were.

    A span of which somebody else has merged or deleted a chunk meanwhile, or holds one, is left alone.
    """
    sql = statements(using)
    now = _now(using)
    with sql.transaction() as cursor:
        ours = sql.lock_chunks(cursor, _ids(merger.span for merger in mergers))
        whole = [merger for merger in mergers if ours.issuperset(merger.span.ids)]
        ids = _ids(merger.span for merger in whole)
        if ids:
            sql.delete_rows(cursor, Chunk, ids)
            rows: list[Row] = [
                (span.stream_id, span.start, span.ends[-1], data, ends, now) for span, data, ends in whole
            ]
            sql.insert_chunks(cursor, rows)
    return len(ids)


def _ids(spans: Iterable[Span]) -> list[int]:
    return [chunk_id for span in spans for chunk_id in span.ids]


def _now(using: str) -> Any:
    return connections[using].ops.adapt_datetimefield_value(timezone.now())
