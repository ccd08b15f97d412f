"""The wakes of consumers that tasks run: while one is in flight, no further task of its consumer is enqueued.

A wake is in the row of the consumer's subscription. It begins when something can be handled, and ends with its task. A
task that is lost never ends it: its time does. A task whose wake is not in flight any more does nothing, so it does no
harm to enqueue a task twice.

The wake only saves work. As everywhere, the lease of a stream and the UPDATE of its cursor decide who handles what.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import NamedTuple

from django.db.models import F, Q

from ... import clock
from ..rows import subscriptions, transaction
from .cursors import claimable
from .declarations import Consumer

LOST_SECONDS = 60.0
"""Time after which a task counts as lost that has not begun, or that works no more. Another one follows."""

CANDIDATES = 32
"""Links that one query offers."""


class TaskWake(NamedTuple):
    """A wake in flight."""

    subscription_id: int
    id: str


def begin_wakes(consumers: Mapping[int, Consumer], using: str) -> list[TaskWake]:
    """Begin the wakes of consumers that have something to handle, and none in flight. Each is returned once only.

    Args:
        consumers: the consumers, by the keys of their subscriptions.
        using: alias of the database.
    """
    free_ids = subscriptions(using).filter(_is_free(), pk__in=[*consumers], is_paused=False)
    wakes = [
        _begin(subscription_id, using)
        for subscription_id in free_ids.values_list("pk", flat=True)
        if _has_work(consumers[subscription_id], subscription_id, using)
    ]
    return [wake for wake in wakes if wake is not None]


def _is_free() -> Q:
    return Q(wake_id="") | Q(lease_expires_at__isnull=True) | Q(lease_expires_at__lte=clock.now())


def _has_work(consumer: Consumer, subscription_id: int, using: str) -> bool:
    """Return whether a link can be claimed. Links that the consumer does not follow are passed over."""
    after = 0
    while True:
        offered = claimable(subscription_id, using, after, CANDIDATES)
        if any(consumer.follows(link.path) for link in offered):
            return True
        if len(offered) < CANDIDATES:
            return False
        after = offered[-1].pk


def _begin(subscription_id: int, using: str) -> TaskWake | None:
    wake = TaskWake(subscription_id, f"t_{secrets.token_hex(12)}")
    with transaction(using):
        is_begun = (
            subscriptions(using)
            .filter(_is_free(), pk=subscription_id)
            .update(wake_id=wake.id, generation=F("generation") + 1, lease_expires_at=_end_of_lease())
        )
    return wake if is_begun else None


def _end_of_lease() -> object:
    return clock.now() + timedelta(seconds=LOST_SECONDS)


def extend(wake: TaskWake, using: str) -> bool:
    """Keep a wake in flight. Return whether it is."""
    with transaction(using):
        rows = subscriptions(using).filter(pk=wake.subscription_id, wake_id=wake.id)
        return bool(rows.update(lease_expires_at=_end_of_lease()))


def end(wake: TaskWake, using: str) -> None:
    """End a wake, if it is still in flight."""
    with transaction(using):
        rows = subscriptions(using).filter(pk=wake.subscription_id, wake_id=wake.id)
        rows.update(wake_id="", lease_expires_at=None)


def run_by_tasks(consumers: Collection[Consumer], using: str) -> list[Consumer]:
    """Return those of some consumers that tasks run, with streams in a database."""
    return [consumer for consumer in consumers if consumer.tasks_alias and consumer.alias == using]
