"""What follows from the delivery of a wake: its end, its lease, or another attempt.

The delivery calls these functions with the wake that it has delivered. If that wake has ended meanwhile, they do
nothing.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from .. import clock
from ..models import Subscription
from ..protocol.subscriptions import WEBHOOK
from ..store.read import log_reader
from . import leases
from .backoff import backoff, reminder
from .leases import Wake
from .rows import change, links, locked, move_cursors, subscriptions, transaction


def finish_delivery(wake: Wake, using: str) -> None:
    """Acknowledge the snapshot of a wake whose receiver has answered that it is done, and end the wake.

    Does nothing if the wake has ended meanwhile: a late answer never acknowledges a newer wake.
    """
    with transaction(using):
        subscription = _present(wake, using)
        if subscription is None:
            return
        delivered = {link.link_id: link for link in wake.pending}
        # A row that another transaction holds belongs to a stream that has ended.
        rows = list(locked(links(using, pk__in=delivered).order_by("id"), using, skip=True))
        infos = log_reader.find_ids([link.stream_id for link in rows if link.stream_id], using) if rows else {}
        moves = []
        for link in rows:
            tail = delivered[link.pk].tail
            # The path may have another stream by now.
            info = infos.get(link.stream_id or 0) if link.stream_id == delivered[link.pk].stream_id else None
            if info is not None and tail >= (link.acked_position or 0):
                moves.append((link, tail, info.tail > tail))
        move_cursors(moves, using)
        leases.end(subscription, using)


def confirm_delivery(wake: Wake, using: str) -> None:
    """Record that a wake was delivered. Its receiver calls back later, or a worker claims it."""
    with transaction(using):
        subscription = _present(wake, using)
        if subscription is None:
            return
        values: dict[str, Any] = {"due_at": subscription.lease_expires_at}
        if subscription.kind == WEBHOOK:
            # It has done nothing yet. If its lease ends in silence, the wake counts as a failed attempt, too.
            values["failures"] = subscription.failures
        elif not subscription.holder:
            # The event may be lost: a worker dies before its claim, or the wake stream is deleted and created again.
            notices = subscription.notices + 1
            values = {"notices": notices, "due_at": clock.now() + timedelta(seconds=reminder(notices))}
        change(subscription, using, **{"failures": 0, "last_error": "", "next_attempt_at": None, **values})


def fail_delivery(wake: Wake, error: str, using: str, *, is_certain: bool) -> None:
    """Record that a wake was not delivered, and schedule another attempt.

    Args:
        wake: the wake.
        error: what happened, for people.
        using: alias of the database.
        is_certain: whether the receiver cannot be at work. Otherwise its lease ends before another attempt.
    """
    with transaction(using):
        subscription = _present(wake, using)
        if subscription is None or subscription.holder:  # a worker has claimed it without being told
            return
        failures = subscription.failures + 1
        next_attempt_at = clock.now() + timedelta(seconds=backoff(failures))
        values: dict[str, Any] = {"wake_id": "", "holder": "", "lease_expires_at": None}
        if not is_certain and subscription.lease_expires_at is not None:
            next_attempt_at = max(next_attempt_at, clock.from_project(subscription.lease_expires_at))
            values = {}
        change(
            subscription,
            using,
            failures=failures,
            last_error=error,
            next_attempt_at=next_attempt_at,
            due_at=next_attempt_at,
            **values,
        )


def _present(wake: Wake, using: str) -> Subscription | None:
    """Return the subscription of a wake, locked, if the wake is still in flight."""
    query = subscriptions(using).filter(pk=wake.subscription.pk)
    subscription: Subscription | None = locked(query, using).first()
    if subscription is None or subscription.wake_id != wake.subscription.wake_id:
        return None
    return subscription
