"""The end of streams: expiry, removal of soft-deleted streams, and the purge of their rows.

Housekeeping does all of this in short transactions, and no request waits for it. Reads and writes never see an expired
stream. A removed stream has no path any more.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, TypeVar

from django.db import connections
from django.db.models import Exists, OuterRef, Q, QuerySet

from ... import clock
from ...models import Chunk, Producer, Retention, StagedChunk, Stream, StreamQuerySet, SubscriptionLink
from ...runtime.caller_transaction import atomic
from .. import staged_rows
from ..operations import Commit
from ..sql import statements
from ..sql.ids import has_id
from ..write import registry_entries
from . import related_rows
from .next_ids import next_ids

AnyQuery = TypeVar("AnyQuery", bound=QuerySet[Any])

STREAMS_PER_TRANSACTION = 500
"""Streams of one transaction, where the caller names none."""

PURGE_ROWS = 500
PURGE_BYTES = 2 * 1024 * 1024
"""Rows of a table, and data, that one transaction of `purge_data` deletes at most. Appends wait for the transaction."""


def expired(
    using: str,
    now: datetime | None = None,
    after: tuple[datetime, int] | None = None,
    limit: int = STREAMS_PER_TRANSACTION,
) -> list[tuple[datetime, int]]:
    """Return the deadlines and ids of expired streams, in this order.

    Args:
        using: alias of the database.
        now: the time, the current one by default.
        after: return only streams after this deadline and id.
        limit: the largest number of streams.
    """
    query = Stream.objects.using(using).expired(now)
    if after is not None:
        deadline, stream_id = after
        is_after = Q(deadline__gt=deadline) | Q(deadline=deadline, id__gt=stream_id)
        query = query.filter(is_after, deadline__gte=deadline)  # the index can use only the second condition
    rows = query.order_by("deadline", "id").values_list("deadline", "id")[:limit]
    return [(deadline, stream_id) for deadline, stream_id in rows if deadline is not None]


def expired_without_forks(using: str, now: datetime) -> StreamQuerySet:
    """Return the expired streams without forks, or with forks that have expired as well: no fork keeps them."""
    return Stream.objects.using(using).expired(now).exclude(Exists(_forks(using).exclude(deadline__lte=now)))


def expire(using: str, now: datetime | None = None, ids: Collection[int] | None = None) -> list[Commit]:
    """Remove expired streams, or soft-delete those with forks; return the changes.

    Args:
        using: alias of the database.
        now: the time, the current one by default.
        ids: the streams, from `expired`. By default the first STREAMS_PER_TRANSACTION.
    """
    moment = now or clock.now()
    if ids is None:
        ids = [stream_id for _, stream_id in expired(using, moment)]
    if not ids:
        return []  # without a transaction, which would take the write lock on SQLite
    with atomic(using), connections[using].cursor() as cursor:
        query = Stream.objects.using(using).expired(moment).filter(has_id("id", ids, using))
        streams = list(_locked(query, using).order_by("id").defer("lineage"))
        locked_ids = [stream.pk for stream in streams]
        with_forks = set(_streams(using, locked_ids).filter(Exists(_forks(using))).values_list("id", flat=True))
        sql, at = statements(using), clock.to_microseconds(moment)
        if with_forks:
            sql.soft_delete_streams(cursor, at, sorted(with_forks))
        if len(with_forks) < len(locked_ids):
            sql.remove_streams(cursor, at, [stream_id for stream_id in locked_ids if stream_id not in with_forks])
        registry_entries.insert(sql, cursor, registry_entries.expirations(streams, moment))
    commits = [_removal(stream) for stream in streams]
    if registry_entries.path() is not None:
        registry_entries.mark(commits)
    return commits


def unneeded(using: str, after: int = 0, limit: int = STREAMS_PER_TRANSACTION) -> list[int]:
    """Return the ids of soft-deleted streams that have no forks any more, in order, after the id `after`."""
    return next_ids(unneeded_streams, "id", using, after, limit)


def unneeded_count(using: str) -> int:
    """Return how many soft-deleted streams have no forks any more."""
    return unneeded_streams(using).count()


def collect(using: str, ids: Collection[int] | None = None) -> int:
    """Remove soft-deleted streams that have no forks any more, and return how many were removed.

    A chain of forks takes one call for each of its streams. The query for streams without forks is right even for forks
    that end at the same moment. A counter of forks would not be.

    Args:
        using: alias of the database.
        ids: the streams, from `unneeded`. By default the first STREAMS_PER_TRANSACTION.
    """
    if ids is None:
        ids = unneeded(using)
    if not ids:
        return 0
    with atomic(using), connections[using].cursor() as cursor:
        query = unneeded_streams(using).filter(has_id("id", ids, using)).order_by("id")
        locked_ids = list(_locked(query, using).values_list("id", flat=True))
        if locked_ids:
            statements(using).remove_streams(cursor, clock.to_microseconds(clock.now()), locked_ids)
    return len(locked_ids)


def unneeded_streams(using: str) -> StreamQuerySet:
    """Return the soft-deleted streams that have no forks any more."""
    query = Stream.objects.using(using).filter(deleted_at__isnull=False, path__isnull=False)
    return query.exclude(Exists(_forks(using)))


def removed(using: str, after: int = 0, limit: int = STREAMS_PER_TRANSACTION) -> list[int]:
    """Return the ids of removed streams whose rows are not purged yet, in order, after the id `after`."""
    return next_ids(_removed_streams, "id", using, after, limit)


def purge(using: str) -> bool:
    """Delete some rows of removed streams in short transactions, and return whether there were such streams."""
    ids = removed(using)
    if ids and not purge_data(using, ids):
        purge_streams(using, ids)
    return bool(ids)


def purge_data(using: str, ids: Collection[int]) -> bool:
    """Delete data and producers of removed streams in one short transaction, and return whether more may be left.

    Streams and chunks that another transaction holds are left alone: it purges or merges them.
    """
    with atomic(using), connections[using].cursor() as cursor:
        locked_ids = _lock_removed(using, ids)
        staged = _first_rows(staged_rows.chunks(using).filter(has_id("stream_id", locked_ids, using)), "pk")
        query = _locked(Chunk.objects.using(using).filter(has_id("stream_id", locked_ids, using)), using)
        chunks = _first_rows(query, "pk", "start", "end")
        small_chunks = _up_to_bytes(chunks, PURGE_BYTES)
        producers = _first_rows(Producer.objects.using(using).filter(has_id("stream_id", locked_ids, using)), "pk")
        for model, rows in ((StagedChunk, staged), (Chunk, small_chunks), (Producer, producers)):
            if rows:
                statements(using).delete_rows(cursor, model, [row[0] for row in rows])
    return len(small_chunks) < len(chunks) or PURGE_ROWS in (len(staged), len(chunks), len(producers))


def purge_streams(using: str, ids: Collection[int]) -> int:
    """Delete the rows of removed streams without data, and the project's rows that refer to them; return how many.

    Raises:
        ProtectedError, IntegrityError: a row that refers to one of the streams forbids it. No stream was deleted.
    """
    with related_rows.counted_if_kept(), atomic(using), connections[using].cursor() as cursor:
        query = _streams(using, _lock_removed(using, ids))
        # Chunks that another transaction merges right now are still there.
        for model in (Chunk, Producer):
            query = query.exclude(Exists(model._default_manager.using(using).filter(stream_id=OuterRef("id"))))
        # With the retention in the same query: a statement more would make each step longer, and the steps smaller.
        retention = dict(query.values_list("id", "retention_row__is_explicit"))
        empty = _unlink(using, [*retention])
        if empty:
            if related_rows.refer_to(_streams(using, empty), using):
                related_rows.follow(list(_streams(using, empty).defer("lineage")), using)
            with_retention = [stream_id for stream_id in empty if retention[stream_id] is not None]
            if with_retention:
                Retention.objects.using(using).unguarded().filter(stream_id__in=with_retention).delete()
            statements(using).delete_rows(cursor, Stream, empty)
    return len(empty)


def _unlink(using: str, ids: Collection[int]) -> list[int]:
    """End the links of subscriptions to streams, and return the ids of the streams that have none any more.

    Explicit links wait for a new stream at their path. A transaction that creates one holds them.
    """
    links = SubscriptionLink.objects.using(using).unguarded()
    query = links.filter(has_id("stream_id", ids, using))
    if not query.exists():
        return [*ids]
    rows = _locked(query.order_by("id"), using).values_list("id", "is_explicit")
    kinds = dict(rows)
    links.filter(pk__in=[pk for pk, is_explicit in kinds.items() if not is_explicit]).delete()
    waiting = [pk for pk, is_explicit in kinds.items() if is_explicit]
    links.filter(pk__in=waiting).update(stream=None, acked_position=None, is_pending=False)
    held = set(query.values_list("stream_id", flat=True))
    return [stream_id for stream_id in ids if stream_id not in held]


def _lock_removed(using: str, ids: Collection[int]) -> list[int]:
    """Lock the rows of removed streams and return their ids, without rows that other transactions hold."""
    query = Stream.objects.using(using).purgeable().filter(has_id("id", ids, using)).order_by("id")
    return list(_locked(query, using).values_list("id", flat=True))


def _first_rows(rows: QuerySet[Any], *columns: str) -> list[tuple[Any, ...]]:
    return list(rows.order_by("stream_id", "end" if "end" in columns else "pk").values_list(*columns)[:PURGE_ROWS])


def _up_to_bytes(chunks: Sequence[tuple[Any, ...]], limit: int) -> Sequence[tuple[Any, ...]]:
    """Return the first chunks, (id, start, end) each, that have at most `limit` bytes together, and at least one."""
    size = 0
    for number, (_, start, end) in enumerate(chunks):
        size += end - start
        if size > limit and number:
            return chunks[:number]
    return chunks


def _removed_streams(using: str) -> StreamQuerySet:
    return Stream.objects.using(using).purgeable()


def _forks(using: str) -> StreamQuerySet:
    """Return the forks of a stream, as a subquery of a query for streams."""
    return Stream.objects.using(using).filter(source_id=OuterRef("id"), path__isnull=False)


def _streams(using: str, ids: Collection[int]) -> StreamQuerySet:
    return Stream.objects.using(using).filter(has_id("id", ids, using))


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
