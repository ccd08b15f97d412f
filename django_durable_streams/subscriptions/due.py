"""Which subscriptions are due, and the wakes that begin then (specification, section 7).

A subscription is due when something is pending for it, when another attempt is, and when its lease ends. Whoever begins
a wake holds the lock of the subscription's row (`leases`). Knows nothing of how a wake is delivered.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from .. import clock
from ..models import Subscription
from ..protocol.subscriptions import WEBHOOK
from . import leases, tokens
from .backoff import backoff
from .leases import Wake
from .pending import pending_links
from .rows import change, subscriptions, transaction
from .turns import RETRIES_SHARE, Turns, choose

MAX_STEPS = 16
"""Steps that find nothing to deliver, until others that are due wait for the next look."""

WAKES_PER_STEP = 16
"""Wakes from which one transaction begins no more. On SQLite appends wait for the transaction."""

OFFERED_PER_STEP = 500
"""The same for the pending links that its wakes offer. Wakes that follow failed ones have a share of their own beside
others: one wake may offer more than all this, and would leave nothing for them (`turns`)."""

NOTICE_SECONDS = 5.0
"""Time in which a process has to write a wake event. After it, another process writes the event."""


def begin_due(using: str, turns: Turns) -> list[Wake]:
    """Begin wakes of subscriptions that are due, and return them. Each is returned to one process only.

    Each step is a short transaction. If it returns wakes, others may be due as well.
    """
    for _ in range(MAX_STEPS):
        due = subscriptions(using).filter(due_at__lte=clock.now(), is_paused=False)
        if not due.exists():  # without a transaction, which would take the write lock on SQLite
            return []
        with transaction(using):
            chosen = choose(due, turns, WAKES_PER_STEP, using)
            wakes = _begin_some(chosen, using)
        if wakes or not chosen:  # subscriptions that were due without pending links do not delay others
            return wakes
    return []


def _begin_some(chosen: Iterable[Subscription], using: str) -> list[Wake]:
    wakes: list[Wake] = []
    left = {False: OFFERED_PER_STEP, True: OFFERED_PER_STEP}
    for subscription in chosen:
        is_retry = subscription.failures > 0
        if left[is_retry] <= 0:
            continue
        wake = _begin(subscription, using)
        if wake is not None:
            wakes.append(wake)
            left[is_retry] -= len(wake.pending)
            if not is_retry:
                left[True] = min(left[True], -(-OFFERED_PER_STEP // RETRIES_SHARE))
    return wakes


def _begin(subscription: Subscription, using: str) -> Wake | None:
    now = clock.now()
    pending, is_complete = pending_links(subscription, using)
    if not pending:
        leases.set_idle(subscription, using, due_at=None if is_complete else now)
        return None
    is_webhook = subscription.kind == WEBHOOK
    if not is_webhook and subscription.wake_id and not subscription.holder:
        # The process that began this wake has not written its event, or nobody has claimed it for long.
        change(subscription, using, due_at=now + timedelta(seconds=NOTICE_SECONDS))
        return Wake(subscription, pending, "")
    if is_webhook and _is_silent(subscription) and _postponed(subscription, now, using):
        return None
    leases.begin_wake(subscription, using)
    if is_webhook:
        lease_expires_at = now + leases.lease_of(subscription)
        last = pending[-1].link_id
        change(subscription, using, lease_expires_at=lease_expires_at, due_at=lease_expires_at, offered_through=last)
    else:
        change(subscription, using, due_at=now + timedelta(seconds=NOTICE_SECONDS))
    return Wake(subscription, pending, tokens.make(subscription, leases.CALLBACK) if is_webhook else "")


def _is_silent(subscription: Subscription) -> bool:
    """Return whether the lease of a webhook has ended, and nothing was heard of its receiver, not even a failure."""
    return bool(subscription.wake_id) and subscription.next_attempt_at is None


def _postponed(subscription: Subscription, now: datetime, using: str) -> bool:
    """Count a silent wake as a failed attempt, and return whether the next one has to wait.

    The time of the wait begins with the lease. So a receiver that has died once is replaced when its lease ends. One
    that never does its work is called as rarely as one that refuses it.
    """
    assert subscription.lease_expires_at is not None
    failures = subscription.failures + 1
    began = clock.from_project(subscription.lease_expires_at) - leases.lease_of(subscription)
    next_attempt_at = began + timedelta(seconds=backoff(failures))
    change(subscription, using, failures=failures, last_error="The lease ended before the receiver was done.")
    if next_attempt_at <= now:
        return False
    change(
        subscription,
        using,
        wake_id="",
        lease_expires_at=None,
        next_attempt_at=next_attempt_at,
        due_at=next_attempt_at,
    )
    return True


def next_due_seconds(using: str) -> float | None:
    """Return the seconds until another subscription is due, or None if none is scheduled.

    Those that are due already wait for another process, or for the end of a delivery.
    """
    now = clock.now()
    scheduled = subscriptions(using).filter(due_at__gt=now, is_paused=False).order_by("due_at")
    due_at = scheduled.values_list("due_at", flat=True).first()
    return None if due_at is None else (clock.from_project(due_at) - now).total_seconds()
