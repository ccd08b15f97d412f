"""The end of streams: what expires, what only its forks had kept, and the rows of what is gone.

Nobody waits for any of this. Reads and writes do not see an expired stream; a removed one has given its path back.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.db import connections
from django.db.models import Exists, OuterRef, Q, QuerySet

from ... import clock
from ...models import Chunk, Producer, StagedChunk, Stream, StreamQuerySet
from ...runtime.caller_transaction import atomic
from .. import staged_rows
from ..operations import Commit
from ..sql import statements
from . import related_rows

AnyQuery = TypeVar("AnyQuery", bound=QuerySet[Any])


LIMIT = 500
"""Streams of one transaction where the caller does not say which."""

PURGE_ROWS = 500
PURGE_BYTES = 2 * 1024 * 1024
"""What one transaction of `purge_data` deletes at the most: appends must not wait for it."""


def expired(
    using: str, now: datetime | None = None, after: tuple[datetime, int] | None = None, limit: int = LIMIT
) -> list[tuple[datetime, int]]:
    """Return the deadlines and ids of streams whose deadline has passed, in order.

    Args:
        after: the deadline and id behind which to look.
    """
    query = Stream.objects.using(using).expired(now)
    if after is not None:
        deadline, stream_id = after
        behind = Q(deadline__gt=deadline) | Q(deadline=deadline, id__gt=stream_id)
        query = query.filter(behind, deadline__gte=deadline)  # the second leads the index there
    found = query.order_by("deadline", "id").values_list("deadline", "id")[:limit]
    return [(deadline, stream_id) for deadline, stream_id in found if deadline is not None]


def expire(using: str, now: datetime | None = None, ids: Collection[int] | None = None) -> list[Commit]:
    """Remove streams whose deadline has passed, or soft-delete those with forks; return what changed.

    Args:
        ids: of the streams, as `expired` has found them. None: the first ones.
    """
    moment = now or clock.now()
    if ids is None:
        ids = [stream_id for _, stream_id in expired(using, moment)]
    if not ids:
        return []  # without a transaction, which would be a writer's turn on SQLite
    with atomic(using), connections[using].cursor() as cursor:
        query = Stream.objects.using(using).expired(moment).filter(id__in=ids)
        found = list(_locked(query, using).order_by("id").defer("lineage"))
        ours = [stream.pk for stream in found]
        kept = set(_streams(using, ours).filter(Exists(_forks(using))).values_list("id", flat=True))
        sql, at = statements(using), clock.to_microseconds(moment)
        if kept:
            sql.soft_delete_streams(cursor, at, sorted(kept))
        if len(kept) < len(ours):
            sql.remove_streams(cursor, at, [stream_id for stream_id in ours if stream_id not in kept])
    return [_removal(stream) for stream in found]


def unneeded(using: str, after: int = 0, limit: int = LIMIT) -> list[int]:
    """Return the ids of soft-deleted streams whose last fork has gone, in order, from behind an id on."""
    return list(_unneeded(using).filter(id__gt=after).order_by("id").values_list("id", flat=True)[:limit])


def collect(using: str, ids: Collection[int] | None = None) -> int:
    """Remove soft-deleted streams whose last fork has gone, and return how many there were.

    Each round ends the links of chains that have come free by the round before, however long the chains are. That it
    looks for what has no forks, instead of counting them down, makes it right for forks that end at the same moment.

    Args:
        ids: of the streams, as `unneeded` has found them. None: the first ones.
    """
    if ids is None:
        ids = unneeded(using)
    if not ids:
        return 0
    with atomic(using), connections[using].cursor() as cursor:
        query = _unneeded(using).filter(id__in=ids).order_by("id")
        found = list(_locked(query, using).values_list("id", flat=True))
        if found:
            statements(using).remove_streams(cursor, clock.to_microseconds(clock.now()), found)
    return len(found)


def _unneeded(using: str) -> StreamQuerySet:
    query = Stream.objects.using(using).filter(deleted_at__isnull=False, path__isnull=False)
    return query.exclude(Exists(_forks(using)))


def removed(using: str, after: int = 0, limit: int = LIMIT) -> list[int]:
    """Return the ids of streams of which only rows are left, in order, from behind an id on."""
    query = Stream.objects.using(using).purgeable().filter(id__gt=after)
    return list(query.order_by("id").values_list("id", flat=True)[:limit])


def purge(using: str) -> bool:
    """Delete some rows of removed streams, in short transactions, and return whether there were any."""
    ids = removed(using)
    if ids and not purge_data(using, ids):
        purge_streams(using, ids)
    return bool(ids)


def purge_data(using: str, ids: Collection[int]) -> bool:
    """Delete data and producers of removed streams, in one short transaction, and return whether there may be more.

    Streams and chunks that another transaction holds are left alone: somebody else purges those, or merges them.
    """
    with atomic(using), connections[using].cursor() as cursor:
        ours = _ours(using, ids)
        waiting = _some(staged_rows.chunks(using).filter(stream_id__in=ours), "pk")
        found = _some(_locked(Chunk.objects.using(using).filter(stream_id__in=ours), using), "pk", "start", "end")
        few = _upto(found, PURGE_BYTES)
        producers = _some(Producer.objects.using(using).filter(stream_id__in=ours), "pk")
        for model, rows in ((StagedChunk, waiting), (Chunk, few), (Producer, producers)):
            if rows:
                statements(using).delete_rows(cursor, model, [row[0] for row in rows])
    return len(few) < len(found) or PURGE_ROWS in (len(waiting), len(found), len(producers))


def purge_streams(using: str, ids: Collection[int]) -> int:
    """Delete the rows of removed streams that have no data any more, with what else refers to them; return how many.

    Raises:
        ProtectedError, IntegrityError: something that refers to one of them does not let it go. None was deleted.
    """
    with atomic(using), connections[using].cursor() as cursor:
        query = _streams(using, _ours(using, ids))
        # What somebody else is merging meanwhile is there still.
        for model in (Chunk, Producer):
            query = query.exclude(Exists(model._default_manager.using(using).filter(stream_id=OuterRef("id"))))
        empty = list(query.values_list("id", flat=True))
        if empty:
            if related_rows.are_there():
                related_rows.follow(list(_streams(using, empty).defer("lineage")), using)
            statements(using).delete_rows(cursor, Stream, empty)
    return len(empty)


def _ours(using: str, ids: Collection[int]) -> list[int]:
    """Return those of some removed streams that nobody else holds, and hold them."""
    query = Stream.objects.using(using).purgeable().filter(id__in=ids).order_by("id")
    return list(_locked(query, using).values_list("id", flat=True))


def _some(rows: QuerySet[Any], *columns: str) -> list[tuple[Any, ...]]:
    return list(rows.order_by("stream_id", "end" if "end" in columns else "pk").values_list(*columns)[:PURGE_ROWS])


def _upto(chunks: Sequence[tuple[Any, ...]], limit: int) -> Sequence[tuple[Any, ...]]:
    """Return the first chunks, (id, start, end) each, that have so many bytes together, one at least."""
    size = 0
    for number, (_, start, end) in enumerate(chunks):
        size += end - start
        if size > limit and number:
            return chunks[:number]
    return chunks


def _forks(using: str) -> StreamQuerySet:
    """Return the forks of a stream, for a query of streams."""
    return Stream.objects.using(using).filter(source_id=OuterRef("id"), path__isnull=False)


def _streams(using: str, ids: Collection[int]) -> StreamQuerySet:
    return Stream.objects.using(using).filter(id__in=ids)


def _locked(query: AnyQuery, using: str) -> AnyQuery:
    if connections[using].features.has_select_for_update_skip_locked:
        return query.select_for_update(skip_locked=True)
    return query


def _removal(stream: Stream) -> Commit:
    path = stream.path or ""
    tail = stream.tail_position
    return Commit(
        stream.pk,
        path,
        stream.content_type,
        tail,
        tail,
        stream.closed,
        removed=True,
        expired=True,
        generation=stream.generation,
    )
