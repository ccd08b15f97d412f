"""Merging small chunks, so that a stream of many small appends reads like one of few large ones.

Chunks are merged until each is more than twice as large as the next one. A stream then has a number of chunks that
grows with the logarithm of its size, and a byte is written again as often as that at most. Positions stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import connections, transaction
from django.utils import timezone

from ..models import Chunk
from .rows import MAX_CHUNK_BYTES, pack_ends, unpack_ends
from .sql import Row, statements


class Span(NamedTuple):
    """Neighbouring chunks that are to be one: their ids, and the positions around them."""

    ids: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


MERGE_BYTES = 2 * 1024 * 1024
MERGE_ROWS = 2000
"""What one transaction merges at the most: appends must not wait for it."""


def compact(using: str, stream_id: int) -> int:
    """Merge small chunks of a stream, and return how many chunks went into the larger ones."""
    return sum(merge(using, stream_id, spans) for spans in portions(using, stream_id))


def portions(using: str, stream_id: int) -> Iterator[list[Span]]:
    """Yield what is to be merged in a stream, as much at a time as one transaction should."""
    rows = Chunk.objects.using(using).filter(stream_id=stream_id).order_by("end").values_list("id", "start", "end")
    portion: list[Span] = []
    size = count = 0
    for span in plan(Span((id,), start, end) for id, start, end in rows):
        if portion and (size + span.size > MERGE_BYTES or count + len(span.ids) > MERGE_ROWS):
            yield portion
            portion, size, count = [], 0, 0
        portion.append(span)
        size += span.size
        count += len(span.ids)
    if portion:
        yield portion


def plan(chunks: Iterable[Span]) -> Iterator[Span]:
    """Yield the spans to merge, of chunks in the order of their positions."""
    stack: list[Span] = []
    for chunk in chunks:
        if stack and stack[-1].end != chunk.start:  # a gap, where data is not retained: nothing goes across
            yield from _several(stack)
            stack = []
        stack.append(chunk)
        while len(stack) > 1 and stack[-2].size < 2 * stack[-1].size:
            last, before = stack[-1], stack[-2]
            if before.size + last.size > MAX_CHUNK_BYTES:
                break
            stack[-2:] = [Span(before.ids + last.ids, before.start, last.end)]
    yield from _several(stack)


def _several(spans: Iterable[Span]) -> Iterator[Span]:
    return (span for span in spans if len(span.ids) > 1)


def merge(using: str, stream_id: int, spans: Sequence[Span]) -> int:
    """Merge the chunks of each span in one transaction, and return how many there were.

    A span of which somebody else has merged or deleted a chunk meanwhile is left alone.
    """
    ids = [chunk_id for span in spans for chunk_id in span.ids]
    with transaction.atomic(using=using):
        query = Chunk.objects.using(using).filter(id__in=ids)
        if connections[using].features.has_select_for_update_skip_locked:
            query = query.select_for_update(skip_locked=True)
        found = {row[0]: row[1:] for row in query.values_list("id", "start", "end", "data", "ends")}
        whole = [span for span in spans if all(chunk_id in found for chunk_id in span.ids)]
        merged = [chunk_id for span in whole for chunk_id in span.ids]
        if not merged:
            return 0
        Chunk.objects.using(using).filter(id__in=merged).delete()
        now = connections[using].ops.adapt_datetimefield_value(timezone.now())
        with connections[using].cursor() as cursor:
            statements(using).insert_chunks(
                cursor, [_row(stream_id, span, [found[chunk_id] for chunk_id in span.ids], now) for span in whole]
            )
    return len(merged)


def _row(stream_id: int, span: Span, chunks: Sequence[tuple[int, int, Any, Any]], now: Any) -> Row:
    ends = [position for start, end, _, packed in chunks for position in unpack_ends(start, end, bytes(packed))]
    data = b"".join([bytes(data) for _, _, data, _ in chunks])
    return stream_id, span.start, span.end, data, pack_ends(span.start, ends), now
