"""The end of streams: what expires, what only its forks had kept, and the rows of what is gone.

Nobody waits for any of this. Reads and writes do not see an expired stream; a removed one has given its path back.
"""

from __future__ import annotations

from datetime import datetime

from django.db import connections, transaction
from django.db.models import Exists, OuterRef

from .. import clock
from ..models import Chunk, Producer, RecentChunk, Stream, StreamQuerySet
from . import recent, references
from .operations import Commit


def expire(using: str, now: datetime | None = None, limit: int = 500) -> list[Commit]:
    """Remove up to `limit` streams whose deadline has passed, or soft-delete those with forks; return what changed."""
    moment = now or clock.now()
    query = Stream.objects.using(using).expired(moment)
    if not query.exists():
        return []  # without a transaction, which would be a writer's turn on SQLite
    with transaction.atomic(using=using):
        found = list(_locked(query, using).order_by("id")[:limit])
        ids = [stream.pk for stream in found]
        streams = Stream.objects.using(using).filter(id__in=ids)
        kept = set(_has_forks(streams).values_list("id", flat=True))
        streams.filter(id__in=kept).unguarded().update(deleted_at=moment)
        _remove(streams.exclude(id__in=kept), moment)
    return [_removal(stream) for stream in found]


def collect(using: str, limit: int = 500) -> bool:
    """Remove soft-deleted streams whose last fork has gone, and return whether there were any.

    Each round ends the links of chains that have come free by the round before, however long the chains are. That it
    looks for what has no forks, instead of counting them down, makes it right for forks that end at the same moment.
    """
    query = Stream.objects.using(using).filter(deleted_at__isnull=False, path__isnull=False)
    free = query.exclude(id__in=_has_forks(query).values("id")).order_by("id").values_list("id", flat=True)
    if not free[:1]:
        return False
    with transaction.atomic(using=using):
        ids = list(_locked(query.filter(id__in=list(free[:limit])), using).values_list("id", flat=True))
        _remove(Stream.objects.using(using).filter(id__in=ids), clock.now())
    return bool(ids)


PURGE_ROWS = 200
PURGE_BYTES = 2 * 1024 * 1024
"""What one transaction of `purge` deletes at the most: appends must not wait for it."""


def purge(using: str) -> bool:
    """Delete some rows of removed streams, in a short transaction, and return whether there may be more."""
    stream_id = Stream.objects.using(using).purgeable().order_by("id").values_list("id", flat=True).first()
    if stream_id is None:
        return False
    with transaction.atomic(using=using):
        chunks = Chunk.objects.using(using).filter(stream_id=stream_id)
        producers = Producer.objects.using(using).filter(stream_id=stream_id)
        waiting = list(recent.chunks(using).filter(stream_id=stream_id).values_list("pk", flat=True)[:PURGE_ROWS])
        if waiting:
            RecentChunk.objects.using(using).filter(pk__in=waiting).unguarded().delete()
            return True
        found = list(chunks.order_by("end").values_list("pk", "start", "end")[:PURGE_ROWS])
        if found:
            limit = found[0][1] + PURGE_BYTES
            chunks.filter(pk__in=[pk for pk, start, _ in found if start < limit]).unguarded().delete()
            return True
        names = list(producers.values_list("pk", flat=True)[:PURGE_ROWS])
        if names:
            producers.filter(pk__in=names).unguarded().delete()
            return True
        over = Stream.objects.using(using).filter(id=stream_id, path__isnull=True)
        references.follow(list(over), using)
        over.unguarded()._raw_delete(using)
    return True


def _has_forks(query: StreamQuerySet) -> StreamQuerySet:
    forks = Stream.objects.using(query.db).filter(source_id=OuterRef("id"), path__isnull=False)
    return query.filter(Exists(forks))


def _locked(query: StreamQuerySet, using: str) -> StreamQuerySet:
    if connections[using].features.has_select_for_update_skip_locked:
        return query.select_for_update(skip_locked=True)
    return query


def _remove(query: StreamQuerySet, moment: datetime) -> None:
    """Give back the paths of streams, and let go of their sources."""
    query.unguarded().update(path=None, source=None, lineage=None, deleted_at=moment)


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
