"""Compaction: small chunks are merged, so that a stream of many small appends reads like one of few large appends.

Chunks are merged until each is more than twice as large as the next one. The number of a stream's chunks then grows
with the logarithm of its size, and so does the number of times that a byte is written again. No byte and no position
changes. Chunks of streams that grow at the same time lie side by side in the table. Merging them together costs little
more than merging those of one stream.

A span is planned and read outside a transaction. `merge` then replaces its chunks, or leaves a span alone of which
another process has changed or locked a chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar

from django.db import connections
from django.utils import timezone

from ...models import Chunk
from ..chunk_rows import MAX_CHUNK_BYTES, checked_layout, pack_layout
from ..sql import Row, statements

T = TypeVar("T")


class Span(NamedTuple):
    """Neighbouring chunks of a stream that become one chunk: their ids, the first start, and the end of each."""

    stream_id: int
    ids: tuple[int, ...]
    start: int
    ends: tuple[int, ...]

    def cut(self, rows: int) -> Iterator[Span]:
        """Yield spans of at most `rows` chunks, two at least, each of which becomes one chunk."""
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
    """A span, and the data and packed ends of the chunk that replaces it."""

    span: Span
    data: bytes
    ends: bytes


MERGE_BYTES = 2 * 1024 * 1024
MERGE_ROWS = 1000
"""Data and chunks that one transaction merges at most. Appends wait for the transaction."""

PLAN_STREAMS = 64
"""Streams whose chunks one query plans. Thousands of streams may need compaction, with hundreds of chunks each."""

PLAN_ROWS = 20_000
"""Chunks that one query plans, however many a stream has."""


def compact(using: str, stream_ids: Collection[int]) -> int:
    """Merge small chunks of streams, and return how many chunks became part of larger ones."""
    merged = 0
    while stream_ids:
        unfinished: set[int] = set()
        merged_now = sum(merge(using, read(using, spans)) for spans in portions(using, stream_ids, unfinished))
        if not merged_now:
            break
        merged += merged_now
        stream_ids = unfinished
    return merged


def portions(using: str, stream_ids: Collection[int], unfinished: set[int]) -> Iterator[list[Span]]:
    """Yield the spans to merge in streams, as many at a time as fit into one transaction.

    Args:
        using: alias of the database.
        stream_ids: the streams.
        unfinished: a set to which streams are added that need another round, because they have so many chunks.
    """
    planned = _planned(using, stream_ids, unfinished)
    return limited(planned, lambda span: len(span.ids), lambda span: span.ends[-1] - span.start)


def _planned(using: str, stream_ids: Collection[int], unfinished: set[int]) -> Iterator[Span]:
    ordered = sorted(stream_ids, reverse=True)
    while ordered:
        planned = ordered[:PLAN_STREAMS]
        with connections[using].cursor() as cursor:
            rows = statements(using).select_spans(cursor, planned, PLAN_ROWS)
        cut_off = rows[-1][0] if len(rows) == PLAN_ROWS else 0
        # Of this stream the query has only the last chunks. The streams with smaller ids follow in the next query.
        ordered = [stream_id for stream_id in planned if stream_id < cut_off] + ordered[PLAN_STREAMS:]
        for stream_id, chunks in groupby(rows, itemgetter(0)):
            for span in plan([*chunks][::-1]):
                if stream_id == cut_off or len(span.ids) > MERGE_ROWS:
                    unfinished.add(stream_id)
                yield from span.cut(MERGE_ROWS)


def limited(items: Iterable[T], rows: Callable[[T], int], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield items, as many at a time as fit into one transaction.

    Args:
        items: the items.
        rows: returns the number of chunks of an item.
        size: returns the size of an item's data, in bytes.
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
    """Of each span, the index of its first chunk and the start of it."""
    position = None
    for number, (_, _, start, end) in enumerate(chunks):
        if start != position:  # a gap in the data: no span crosses it
            yield from _spans_of_several(chunks[:number], spans)
            spans = []
        position = end
        first = number
        while spans:
            _, start_before = spans[-1]
            if start - start_before >= 2 * (end - start) or end - start_before > MAX_CHUNK_BYTES:
                break
            first, start = spans.pop()
        spans.append((first, start))
    yield from _spans_of_several(chunks, spans)


def _spans_of_several(chunks: Sequence[Sequence[int]], spans: Iterable[tuple[int, int]]) -> Iterator[Span]:
    for (first, start), (last, _) in pairwise([*spans, (len(chunks), 0)]):
        if last - first > 1:
            merged = chunks[first:last]
            yield Span(
                merged[0][0], tuple([chunk[1] for chunk in merged]), start, tuple([chunk[3] for chunk in merged])
            )


def read(using: str, spans: Sequence[Span]) -> list[Merger]:
    """Read the chunks of spans and return the chunks that replace them.

    The content of a chunk never changes, so this needs no transaction. A span is left out if another process has merged
    or deleted one of its chunks meanwhile.

    Raises:
        CorruptChunk: the columns of a chunk contradict each other.
    """
    with connections[using].cursor() as cursor:
        ids, data, packed, sizes = statements(using).read_chunks(cursor, _ids(spans))
    mergers = []
    row = index = 0
    for span in spans:
        first, start, missing = index, span.start, False
        ends: list[int] = []
        places: list[int] = []
        for chunk_id, end in zip(span.ids, span.ends, strict=True):
            if row < len(ids) and ids[row] == chunk_id:
                layout = checked_layout(start, end, sizes[row], packed[row])
                inside = [at - start for at in layout.ends] if layout.places is None else layout.places
                ends += layout.ends
                places += [index - first + place for place in inside]
                row, index = row + 1, index + sizes[row]
            else:
                missing = True
            start = end
        if not missing:
            mergers.append(Merger(span, data[first:index], pack_layout(span.start, ends, places)))
    return mergers


def merge(using: str, mergers: Sequence[Merger]) -> int:
    """Replace the chunks of spans in one transaction, and return how many chunks were replaced.

    A span is left alone if another process has merged or deleted one of its chunks meanwhile, or holds its row.
    """
    sql = statements(using)
    now = _now(using)
    with sql.transaction() as cursor:
        locked = sql.lock_chunks(cursor, _ids(merger.span for merger in mergers))
        whole = [merger for merger in mergers if locked.issuperset(merger.span.ids)]
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
