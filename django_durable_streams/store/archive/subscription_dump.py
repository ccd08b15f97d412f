"""Reads subscriptions, consumers and their cursors into records, before the streams are read.

So no cursor is behind the data that the archive has of its stream. Knows no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.db.models import Q

from ... import clock
from ...models import Subscription, SubscriptionLink
from ...protocol.globs import Glob
from .subscription_records import LinkRecord, SubscriptionFileRecord, SubscriptionRecord

LINKS_PER_QUERY = 2000


def dump_subscriptions(patterns: Sequence[Glob], using: str) -> Iterator[SubscriptionFileRecord]:
    """Yield all subscriptions, and their links to streams that match one of the patterns.

    Args:
        patterns: the patterns. None of them: all links. With patterns, subscriptions without such a link are left out.
        using: alias of the database.
    """
    rows = Subscription.objects.using(using).filter(name__isnull=False).order_by("name")
    for subscription in rows.iterator(chunk_size=500):
        links = _links(subscription, patterns, using)
        first = next(links, None)
        if first is not None or not patterns:
            yield _record(subscription)
        if first is not None:
            yield first
            yield from links


def _record(row: Subscription) -> SubscriptionRecord:
    return SubscriptionRecord(
        row.name or "",
        row.kind,
        row.pattern,
        row.webhook_url,
        row.wake_stream,
        row.lease_ms,
        row.description,
        row.config_hash,
        row.base_url,
        row.from_beginning,
        row.is_paused,
        row.generation,
        clock.to_microseconds(clock.from_project(row.created_at)),
    )


def _links(subscription: Subscription, patterns: Sequence[Glob], using: str) -> Iterator[LinkRecord]:
    is_alive = Q(stream__isnull=True) | Q(stream__path__isnull=False, stream__deleted_at__isnull=True)
    rows = SubscriptionLink.objects.using(using).filter(is_alive, subscription_id=subscription.pk)
    columns = ("path", "stream__generation", "is_explicit", "is_glob", "acked_position", "is_stopped")
    last = ""
    while True:  # by the unique index, because a cursor of the database would need a long transaction
        page = list(rows.filter(path__gt=last).order_by("path").values_list(*columns)[:LINKS_PER_QUERY])
        for path, generation, is_explicit, is_glob, position, is_stopped in page:
            # A link without a stream is explicit, or its stream has just been purged.
            if generation is None and not is_explicit:
                continue
            if not patterns or any(pattern.matches(path) for pattern in patterns):
                acked = None if generation is None else position
                yield LinkRecord(path, generation, is_explicit, is_glob, acked, is_stopped)
        if len(page) < LINKS_PER_QUERY:
            return
        last = page[-1][0]
