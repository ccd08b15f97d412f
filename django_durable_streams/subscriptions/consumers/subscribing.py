"""The subscriptions of consumers: created when a worker begins, and adapted when the code has another pattern."""

from __future__ import annotations

import hashlib

from ...models import Subscription
from ...protocol.globs import Glob, glob
from ..backfill import Progress, link_portion
from ..rows import change, links, subscriptions
from ..rules import changing_link_rules
from .declarations import Consumer

LINKS_PER_STEP = 1000
"""Links that one statement compares with a new pattern."""


def find_subscription(consumer: Consumer, using: str) -> Subscription | None:
    """Return the subscription of a consumer, if there is one."""
    return subscriptions(using).filter(name=consumer.stored_name).first()


def subscribe(consumer: Consumer, using: str, *, from_beginning: bool | None = None) -> int:
    """Create the subscription of a consumer, or give it the pattern of the code, and return its key.

    Args:
        consumer: the consumer.
        using: alias of the database.
        from_beginning: whether older streams are read from their beginning. None: as the consumer says.

    Raises:
        django.db.OperationalError: a transaction that creates streams has not ended. Try again.
    """
    existing = find_subscription(consumer, using)
    if existing is not None and existing.pattern == consumer.pattern:
        return existing.pk
    starts_early = consumer.start == "beginning" if from_beginning is None else from_beginning
    digest = hashlib.sha256(consumer.pattern.encode()).hexdigest()
    with changing_link_rules(using):
        # Somebody else may have created it meanwhile.
        existing = find_subscription(consumer, using)
        if existing is None:
            new = Subscription(
                name=consumer.stored_name,
                kind=Subscription.Kind.CONSUMER,
                pattern=consumer.pattern,
                lease_ms=int(consumer.lease * 1000),
                config_hash=digest,
                from_beginning=starts_early,
                linked_through=0,
            )
            (created,) = subscriptions(using).bulk_create([new])
            return created.pk
        change(
            existing,
            using,
            pattern=consumer.pattern,
            config_hash=digest,
            from_beginning=starts_early,
            linked_through=0,
        )
    _unlink_others(existing, glob(consumer.pattern), using)
    return existing.pk


def _unlink_others(subscription: Subscription, pattern: Glob, using: str) -> None:
    """Delete the links to streams that a new pattern does not match. Their cursors are forgotten."""
    after = 0
    while True:
        query = links(using, subscription=subscription, pk__gt=after).order_by("pk")
        rows = list(query.values_list("pk", "path")[:LINKS_PER_STEP])
        if not rows:
            return
        links(using, pk__in=[pk for pk, path in rows if not pattern.matches(path)]).delete()
        after = rows[-1][0]


def link_existing(subscription_id: int, using: str) -> Progress:
    """Link some of the streams that are older than the subscription."""
    return link_portion(subscription_id, using)
