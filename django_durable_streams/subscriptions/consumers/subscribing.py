"""The subscriptions of consumers: created when a worker begins, and adapted when the code has another pattern.

Two versions of the code may run at once, each with its pattern, until the workers of one of them have ended. So links
that a new pattern does not match keep their cursors, and go on where they were when a pattern matches them again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection

from ...models import Subscription
from ...protocol.globs import glob
from ..backfill import Progress, link_portion, unfinished
from ..rows import change, links, locked, subscriptions, transaction
from ..rules import changing_link_rules
from .cursors import live_links
from .declarations import Consumer

logger = logging.getLogger(__name__)

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
    starts_early = consumer.start == "beginning" if from_beginning is None else from_beginning
    if existing is None:
        existing = _create(consumer, starts_early, using)
    _adapt(existing, consumer, starts_early, using)
    return existing.pk


def keep_pattern(consumer: Consumer, using: str) -> None:
    """Give the subscription of a consumer the pattern of the code again. Does nothing if there is none any more.

    Raises:
        django.db.OperationalError: a transaction that creates streams has not ended. Try again.
    """
    existing = find_subscription(consumer, using)
    if existing is not None:
        _adapt(existing, consumer, consumer.start == "beginning", using)


def _create(consumer: Consumer, starts_early: bool, using: str) -> Subscription:
    with changing_link_rules(using):
        existing = find_subscription(consumer, using)
        if existing is not None:  # somebody else has created it meanwhile
            return existing
        new = Subscription(
            name=consumer.stored_name,
            kind=Subscription.Kind.CONSUMER,
            pattern=consumer.pattern,
            lease_ms=int(consumer.lease * 1000),
            config_hash=_digest(consumer),
            from_beginning=starts_early,
            linked_through=0,
        )
        (created,) = subscriptions(using).bulk_create([new])
        return created


def _digest(consumer: Consumer) -> str:
    return hashlib.sha256(consumer.pattern.encode()).hexdigest()


def _adapt(subscription: Subscription, consumer: Consumer, starts_early: bool, using: str) -> None:
    """Give a subscription the pattern of a consumer, if it has another one, and end what another process has begun."""
    if subscription.pattern != consumer.pattern:
        _set_pattern(subscription, consumer, starts_early, using)
    if subscription.pattern == consumer.pattern and subscription.config_hash != _digest(consumer):
        _retire_links(subscription, consumer, using)


def _set_pattern(subscription: Subscription, consumer: Consumer, starts_early: bool, using: str) -> None:
    with changing_link_rules(using):
        present = subscriptions(using).filter(pk=subscription.pk).first()
        if present is None or present.pattern == consumer.pattern:
            return
        logger.warning(
            "The pattern of the consumer %s was changed to %s from %s. If this repeats, two versions of the code run.",
            consumer.name,
            consumer.pattern,
            present.pattern,
        )
        change(
            subscription,
            using,
            pattern=consumer.pattern,
            config_hash="",  # until the links are retired that the pattern does not match
            from_beginning=starts_early,
            linked_through=0,
        )


def _retire_links(subscription: Subscription, consumer: Consumer, using: str) -> None:
    """Let nobody handle the streams that a new pattern does not match. Their cursors stay."""
    pattern = glob(consumer.pattern)
    after = 0
    while True:
        with transaction(using):
            present = locked(subscriptions(using).filter(pk=subscription.pk), using).first()
            if present is None or present.pattern != subscription.pattern:  # another version of the code goes on
                return
            query = live_links(using, subscription=subscription, pk__gt=after).order_by("pk")
            rows = list(query.values_list("pk", "path")[:LINKS_PER_STEP])
            if not rows:
                change(present, using, config_hash=_digest(consumer))
                return
            links(using, pk__in=[pk for pk, path in rows if not pattern.matches(path)]).update(is_glob=False)
            after = rows[-1][0]


def unlinked(subscription_ids: Collection[int], using: str) -> list[int]:
    """Return those of some subscriptions whose existing streams are not all linked yet."""
    return [subscription_id for subscription_id in unfinished(using) if subscription_id in subscription_ids]


def link_existing(subscription_id: int, using: str) -> Progress:
    """Link some of the streams that are older than the subscription."""
    return link_portion(subscription_id, using)
