"""Merging small chunks, so that a stream of many small appends reads like one of few large ones.

Chunks are merged until each is more than twice as large as the next one. A stream then has a number of chunks that
grows with the logarithm of its size, and a byte is written again as often as that at most. Positions stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from django.db import connections, transaction
from django.utils import timezone

from ..models import Chunk
from .rows import MAX_CHUNK_BYTES, pack_ends, unpack_ends


class Span(NamedTuple):
    """Neighbouring chunks that are to be one: their ids, and the positions around them."""

    ids: tuple[int, ...]
    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def compact(using: str, stream_id: int) -> int:
    """Merge small chunks of a stream, each merge in a short transaction, and return how many chunks went into them."""
    rows = Chunk.objects.using(using).filter(stream_id=stream_id).order_by("end").values_list("id", "start", "end")
    merged = 0
    for span in plan(Span((id,), start, end) for id, start, end in rows):
        merged += _merge(using, stream_id, span)
    return merged


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


def _merge(using: str, stream_id: int, span: Span) -> int:
    with transaction.atomic(using=using):
        query = Chunk.objects.using(using).filter(id__in=span.ids)
        if connections[using].features.has_select_for_update_skip_locked:
            query = query.select_for_update(skip_locked=True)
        chunks = list(query.order_by("end"))
        if len(chunks) != len(span.ids):
            return 0  # somebody else merges or deletes them
        ends = [end for chunk in chunks for end in unpack_ends(chunk.start, chunk.end, bytes(chunk.ends))]
        Chunk.objects.using(using).filter(id__in=span.ids).delete()
        Chunk.objects.using(using).create(
            stream_id=stream_id,
            start=span.start,
            end=span.end,
            data=b"".join(bytes(chunk.data) for chunk in chunks),
            ends=pack_ends(span.start, ends),
            created_at=timezone.now(),
        )
    return len(chunks)
