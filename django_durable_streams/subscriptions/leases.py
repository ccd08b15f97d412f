"""The wakes of a subscription and their leases: a state machine with one row (specification, section 7).

A wake begins when a subscription is due and has pending links (`due`), or at once by a claim. It is in flight until its
`wake_id` is cleared or replaced. It ends by a `done`, by a release, by a failed delivery (`outcomes`), or by the next
wake after the end of its lease. Each wake has another `wake_id` and the next generation, so requests of an earlier one
are refused.

Invariant: whoever changes the state holds the lock of the subscription's row, so there is never more than one wake in
flight, however many processes there are. `due_at` is the time at which the state changes by itself: set while there is
something to deliver, while an attempt is scheduled, and while a lease runs.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from .. import clock
from ..models import Subscription
from ..protocol.errors import DurableStreamsError
from ..protocol.offsets import Offset
from ..protocol.subscriptions import (
    PULL_WAKE,
    Ack,
    WakeRequest,
    already_claimed,
    fenced,
    invalid_offset,
    invalid_request,
    no_pending_work,
    paused,
    subscription_not_found,
    token_invalid,
)
from ..store.read import lineage, log_reader
from ..store.stream_info import StreamInfo
from . import tokens
from .pending import PendingLink, pending_links
from .rows import change, find, links, locked, move_cursors, subscriptions, transaction
from .serialization import describe_pending

CALLBACK, CLAIM = "callback", "claim"
"""The purposes of tokens: one is for the receiver of a webhook, the other for a worker."""


class Wake(NamedTuple):
    """A wake that has to be delivered."""

    subscription: Subscription
    """As it is in the database, with the generation and id of the wake."""
    pending: Sequence[PendingLink]
    """The links that were pending when the wake began. It offers no others."""
    token: str
    """Authorises callbacks of this wake. Empty for pull-wake."""


def begin_wake(subscription: Subscription, using: str) -> None:
    """Give a locked subscription its next wake. Requests of earlier ones are refused from now on."""
    change(
        subscription,
        using,
        generation=subscription.generation + 1,
        wake_id=f"w_{secrets.token_hex(12)}",
        holder="",
        notices=0,
        lease_expires_at=None,
        next_attempt_at=None,
    )


def lease_of(subscription: Subscription) -> timedelta:
    """Return how long a lease lasts."""
    return timedelta(milliseconds=subscription.lease_ms)


def _lease_runs(subscription: Subscription, now: datetime) -> bool:
    expires_at = subscription.lease_expires_at
    return expires_at is not None and clock.from_project(expires_at) > now


def claim(name: str, worker: str, using: str) -> dict[str, Any]:
    """Give the lease of a pull-wake subscription to a worker, and return the answer to its claim (section 7.2).

    Raises:
        SubscriptionError: not found, of another type, claimed already, paused, or nothing is pending.
    """
    claimed = _claim(name, worker, using)
    if claimed is None:
        raise no_pending_work()
    return claimed


def _claim(name: str, worker: str, using: str) -> dict[str, Any] | None:
    with transaction(using):
        subscription = find(name, using, lock=True)
        if subscription.kind != PULL_WAKE:
            raise invalid_request(f"This is a {subscription.kind} subscription. Only one of type pull-wake is claimed.")
        now = clock.now()
        if subscription.holder and _lease_runs(subscription, now):
            raise already_claimed(subscription.holder, subscription.generation)
        if subscription.is_paused:
            raise paused()
        pending, is_complete = pending_links(subscription, using)
        if not pending:
            if not is_complete:  # the next claim, or the delivery, goes on with the other links
                change(subscription, using, due_at=now)
            return None
        if not subscription.wake_id or subscription.holder:  # no wake, or one whose lease has expired
            begin_wake(subscription, using)
        lease_expires_at = now + lease_of(subscription)
        change(
            subscription,
            using,
            holder=worker,
            offered_through=pending[-1].link_id,
            lease_expires_at=lease_expires_at,
            due_at=lease_expires_at,
            failures=0,
            last_error="",
        )
        return {
            "wake_id": subscription.wake_id,
            "generation": subscription.generation,
            "token": tokens.make(subscription, CLAIM),
            "streams": describe_pending(pending),
            "lease_ttl_ms": subscription.lease_ms,
        }


def callback(name: str, token: str, request: WakeRequest, using: str) -> bool:
    """Apply the callback of a webhook's receiver. Return whether another wake follows (section 7.1).

    Raises:
        SubscriptionError: nothing was changed.
    """
    return _acknowledge(name, token, request, using, CALLBACK)


def ack(name: str, token: str, request: WakeRequest, using: str) -> bool:
    """Apply the acknowledgement of a worker. Return whether another wake follows (section 7.2).

    Raises:
        SubscriptionError: nothing was changed.
    """
    return _acknowledge(name, token, request, using, CLAIM)


def _acknowledge(name: str, token: str, request: WakeRequest, using: str, purpose: str) -> bool:
    with transaction(using):
        subscription = _lock_current(name, token, request, using, purpose)
        _apply_acks(subscription, request.acks, using)
        if request.done:
            return end(subscription, using)
        lease_expires_at = clock.now() + lease_of(subscription)
        change(
            subscription,
            using,
            lease_expires_at=lease_expires_at,
            due_at=lease_expires_at,
            next_attempt_at=None,
            failures=0,
            last_error="",
        )
        return False


def release(name: str, token: str, request: WakeRequest, using: str) -> None:
    """Give a lease back without an acknowledgement (section 7.2).

    Raises:
        SubscriptionError: nothing was changed.
    """
    with transaction(using):
        end(_lock_current(name, token, request, using, CLAIM), using)


def _lock_current(name: str, token: str, request: WakeRequest, using: str, purpose: str) -> Subscription:
    """Lock a subscription whose current wake is that of a request, and return it (section 7.3).

    Raises:
        SubscriptionError: not found, the token is not valid, or the wake has ended.
    """
    key, generation = tokens.verify(token, purpose)
    subscription: Subscription | None = locked(subscriptions(using).filter(name=name), using).first()
    if subscription is None and not subscriptions(using).filter(pk=key).exists():
        raise subscription_not_found()
    # The same answer as for a name without a subscription: a token of another one tells nothing.
    if subscription is None or subscription.pk != key:
        raise token_invalid()
    is_current = (
        bool(subscription.wake_id)
        and generation == request.generation == subscription.generation
        and request.wake_id == subscription.wake_id
        and _lease_runs(subscription, clock.now())
    )
    if not is_current:
        raise fenced()
    return subscription


def _apply_acks(subscription: Subscription, acks: Sequence[Ack], using: str) -> None:
    """Move the cursors of links, all or none.

    Raises:
        SubscriptionError: a cursor would go back or past the tail, or the subscription has no such link.
        OperationalError: another transaction holds one of the links.
    """
    query = links(using, subscription=subscription, path__in=[ack.path for ack in acks]).order_by("id")
    # Fails at once: a transaction that creates a stream at one of the paths may hold a link for long.
    by_path = {link.path: link for link in locked(query, using, waits=False)}
    stream_ids = [link.stream_id for link in by_path.values() if link.stream_id is not None]
    infos = log_reader.find_ids(stream_ids, using) if stream_ids else {}
    moves = {}
    for ack in acks:
        link = by_path.get(ack.path)
        info = None if link is None or link.stream_id is None else infos.get(link.stream_id)
        if link is None or info is None:
            raise invalid_offset(f"This subscription has no stream at {ack.path}.")
        position = _position(ack, info, using)
        if position < (link.acked_position or 0):
            raise invalid_offset(f"The cursor of {ack.path} is past this offset already.")
        link.acked_position = position
        moves[link.pk] = link, position, info.bytes_after(position) > 0
    move_cursors(moves.values(), using)


def _position(ack: Ack, info: StreamInfo, using: str) -> int:
    if not isinstance(ack.offset, Offset):
        raise invalid_offset("Acknowledge the offset of a message, not -1 or now.")
    try:
        return lineage.locate(info, ack.offset, using)[1]
    except DurableStreamsError:
        raise invalid_offset(f"The offset is not one of the stream at {ack.path}, or lies past its tail.") from None


def end(subscription: Subscription, using: str) -> bool:
    """End the wake of a locked subscription, and return whether another one may follow.

    None follows while the subscription is paused. Where not all links were compared, the next look decides.
    """
    pending, is_complete = pending_links(subscription, using, limit=1)
    goes_on = (bool(pending) or not is_complete) and not subscription.is_paused
    set_idle(subscription, using, due_at=clock.now() if goes_on else None)
    return goes_on


def set_idle(subscription: Subscription, using: str, due_at: datetime | None) -> None:
    """Record that no wake of a locked subscription is in flight, and when the next one may begin."""
    change(
        subscription,
        using,
        wake_id="",
        holder="",
        lease_expires_at=None,
        next_attempt_at=None,
        failures=0,
        last_error="",
        due_at=due_at,
    )
