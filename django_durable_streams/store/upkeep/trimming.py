"""Trimmed data is deleted, so that its space can be used again.

A chunk that lies before the first position of its stream is deleted. If the first position is inside a chunk, and much
of the chunk lies before it, the rest becomes a chunk of its own. Forks read the data of their sources, so data is kept
for them from the position from which they have it.

Invariant: a position from which a stream, or a fork of it, can be read is never deleted. A trim never goes back, and a
fork that is made meanwhile begins at the first position of its source or after it. So it does not matter when the first
position was read. A reader who has read it before the trim finds its data missing, and is refused (`explain_missing`).

`find` only reads. `delete` then changes nothing but chunks, in one short transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import Case, Exists, F, Min, OuterRef, QuerySet, When
from django.db.models.functions import Coalesce

from ...models import Chunk, Retention, Stream
from ...runtime.caller_transaction import atomic
from .. import staged_rows
from ..chunk_rows import CorruptChunk, checked_segment, pack_layout
from ..sql import Row, statements
from .next_ids import next_ids

ROWS = 500
BYTES = 2 * 1024 * 1024
"""Chunks, and data, that one transaction deletes or cuts at most. Appends wait for the transaction."""

CUT_SHARE = 4
"""A chunk is cut if the part before the first position has 1 / CUT_SHARE of the rest, or more."""


class Limit(NamedTuple):
    """How far the data of a stream can be deleted."""

    stream_id: int
    position: int
    is_complete: bool
    """Whether that is all trimmed data: no fork needs any of it."""
    token: int
    """The `trim_position` that the row had."""


class Cut(NamedTuple):
    """A chunk that is replaced by its part after a position."""

    chunk_id: int
    start: int
    end: int
    position: int


class DropPortion(NamedTuple):
    """Data of some streams that can be deleted, as much as fits into one transaction."""

    chunk_ids: list[int]
    cuts: list[Cut]
    done: list[Limit]
    """Streams of whose trimmed data nothing is left. Only given where nothing can be deleted."""
    kept: list[int]
    """Streams whose trimmed data is kept for now: forks need it, or it is staged. Only given as `done` is."""


def trimmed(using: str, after: int, limit: int) -> list[int]:
    """Return the ids of streams with trimmed data that may still be stored, in order, after the id `after`."""
    return next_ids(_trimmed_rows, "stream_id", using, after, limit)


def _trimmed_rows(using: str) -> QuerySet[Retention]:
    return Retention.objects.using(using).filter(trim_position__isnull=False)


def find(using: str, ids: Collection[int]) -> DropPortion:
    """Return trimmed data of streams that can be deleted."""
    limits = _limits(using, ids)
    staged = _with_staged(using, limits)  # before the chunks, because a flush may move staged chunks to them meanwhile
    chunk_ids: list[int] = []
    cuts: list[Cut] = []
    size = 0
    for limit in limits:
        before = Chunk.objects.using(using).filter(stream_id=limit.stream_id, end__lte=limit.position).order_by("end")
        for chunk_id, start, end in before.values_list("id", "start", "end")[: ROWS - len(chunk_ids)]:
            chunk_ids.append(chunk_id)
            size += end - start
            if size >= BYTES:
                break
        cut = _cut(using, limit)
        if cut is not None:
            cuts.append(cut)
            size += cut.end - cut.start
        if size >= BYTES or len(chunk_ids) >= ROWS:
            return DropPortion(chunk_ids, cuts, [], [])
    if chunk_ids or cuts:
        return DropPortion(chunk_ids, cuts, [], [])
    done = [limit for limit in limits if limit.is_complete and limit.stream_id not in staged]
    finished = {limit.stream_id for limit in done}
    return DropPortion([], [], done, [limit.stream_id for limit in limits if limit.stream_id not in finished])


def _limits(using: str, ids: Collection[int]) -> list[Limit]:
    query = Retention.objects.using(using).filter(stream_id__in=ids, trim_position__isnull=False)
    rows: list[tuple[int, int, int]] = [*query.values_list("stream_id", "stream__first_position", "trim_position")]  # type: ignore[list-item]
    needed = _needed_by_forks(using, [stream_id for stream_id, _, _ in rows])
    limits = []
    for stream_id, first_position, token in rows:
        position = min(first_position, needed.get(stream_id, first_position))
        limits.append(Limit(stream_id, position, position == first_position >= token, token))
    return limits


def _needed_by_forks(using: str, ids: Collection[int]) -> Mapping[int, int]:
    """Return the position from which forks need the data of each stream that has such forks.

    A fork of a fork began with the first position that its own source had then: `inherited_from`, or a later one.
    """
    forks = Stream.objects.using(using).filter(source_id__in=ids, path__isnull=False)
    has_forks = Exists(Stream.objects.using(using).filter(source_id=OuterRef("id"), path__isnull=False))
    needs = Case(
        When(has_forks, then=Coalesce("inherited_from", 0)),  # unknown: all of it may be needed
        When(first_position__lt=F("fork_position"), then=F("first_position")),
    )
    rows = forks.annotate(needs=needs).filter(needs__isnull=False).order_by()
    return dict(rows.values("source_id").annotate(first=Min("needs")).values_list("source_id", "first"))


def _cut(using: str, limit: Limit) -> Cut | None:
    """Return the cut of the chunk around a limit, if that frees enough."""
    around = Chunk.objects.using(using).filter(stream_id=limit.stream_id, end__gt=limit.position).order_by("end")
    for chunk_id, start, end in around.values_list("id", "start", "end")[:1]:
        if start < limit.position and CUT_SHARE * (limit.position - start) >= end - limit.position:
            return Cut(chunk_id, start, end, limit.position)
    return None


def _with_staged(using: str, limits: Collection[Limit]) -> set[int]:
    """Return the streams with trimmed data in staged chunks. A flush will move it soon."""
    positions = {limit.stream_id: limit.position for limit in limits}
    rows = staged_rows.chunks(using).filter(stream_id__in=[*positions]).order_by()
    firsts = rows.values("stream_id").annotate(first=Min("start")).values_list("stream_id", "first")
    return {stream_id for stream_id, first in firsts if first < positions[stream_id]}


def delete(using: str, portion: DropPortion) -> int:
    """Delete the data of a portion, and return how many chunks were deleted or cut.

    Chunks are left that another transaction holds or has replaced meanwhile, or that are damaged and would be cut.
    """
    sql = statements(using)
    with atomic(using), connections[using].cursor() as cursor:
        locked = sql.lock_chunks(cursor, [*portion.chunk_ids, *(cut.chunk_id for cut in portion.cuts)])
        ids = [chunk_id for chunk_id in portion.chunk_ids if chunk_id in locked]
        cuts = {cut.chunk_id: cut for cut in portion.cuts if cut.chunk_id in locked}
        rows = _rests(using, cuts)
        ids += cuts
        if ids:
            sql.delete_rows(cursor, Chunk, ids)
        if rows:
            sql.insert_chunks(cursor, rows)
    return len(ids)


def _rests(using: str, cuts: dict[int, Cut]) -> list[Row]:
    """Return the chunks that replace cut chunks. A damaged chunk is removed from `cuts`, and stays as it is."""
    rows: list[Row] = []
    adapt = connections[using].ops.adapt_datetimefield_value
    query: QuerySet[Any] = Chunk.objects.using(using).filter(pk__in=[*cuts])
    for chunk_id, stream_id, data, packed, created_at in query.values_list(
        "id", "stream_id", "data", "ends", "created_at"
    ):
        _, start, end, position = cuts[chunk_id]
        try:
            rest = checked_segment(start, end, bytes(data), bytes(packed)).beginning(position)
        except CorruptChunk:
            del cuts[chunk_id]
        else:
            ends = pack_layout(position, rest.ends, rest.places)
            rows.append((stream_id, position, end, rest.data, ends, adapt(created_at)))
    return rows


def finish(using: str, done: Collection[Limit]) -> None:
    """Record for which streams nothing is left to delete. A trim since then has set another position."""
    rows = Retention.objects.using(using).unguarded()
    for limit in done:
        rows.filter(pk=limit.stream_id, trim_position=limit.token).update(trim_position=None)
