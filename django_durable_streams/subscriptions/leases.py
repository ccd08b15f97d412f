"""The wakes of a subscription and their leases: a state machine with one row (specification, section 7).

A wake begins when a subscription is due and has pending links. It is in flight while `wake_id` is set. It ends by a
`done`, by a release, by a failed delivery, or by the end of its lease. The next wake has another `wake_id` and the next
generation, so requests of an earlier one are refused.

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
    WEBHOOK,
    Ack,
    WakeRequest,
    already_claimed,
    fenced,
    invalid_offset,
    invalid_request,
    no_pending_work,
)
from ..store.read import lineage, log_reader
from ..store.stream_info import StreamInfo
from . import tokens
from .pending import PendingLink, pending_links
from .rows import change, find, links, locked, move_cursors, subscriptions, transaction

WAKES_PER_STEP = 16
"""Wakes from which one transaction begins no more. On SQLite appends wait for the transaction."""

NAMED_PER_STEP = 500
"""The same for the pending links that its wakes name."""

NOTICE_SECONDS = 5.0
"""Time in which a process has to write a wake event. After it, another process writes the event."""

CALLBACK, CLAIM = "callback", "claim"


class Wake(NamedTuple):
    """A wake that has to be delivered."""

    subscription: Subscription
    """As it is in the database, with the generation and id of the wake."""
    pending: Sequence[PendingLink]
    """The snapshot: the links that were pending when the wake began."""
    token: str
    """Authorises callbacks of this wake. Empty for pull-wake."""


def begin_due(using: str, limit: int, retries: int | None = None) -> list[Wake]:
    """Begin wakes of subscriptions that are due, and return them. Each is returned to one process only.

    It is one short transaction. If it returns wakes, others may be due as well.

    Args:
        using: alias of the database.
        limit: the largest number of subscriptions.
        retries: the largest number of those whose last wake has failed. They come after the others. None: no limit.
    """
    due = subscriptions(using).filter(due_at__lte=clock.now(), is_paused=False)
    if not due.exists():  # without a transaction, which would take the write lock on SQLite
        return []
    with transaction(using):
        query = locked(due.order_by("due_at"), using, skip=True)
        limit = min(limit, WAKES_PER_STEP)
        rows = list(query.filter(failures=0)[:limit])
        rest = limit - len(rows)
        rows += query.filter(failures__gt=0)[: rest if retries is None else min(rest, retries)]
        wakes: list[Wake] = []
        named = 0
        for subscription in rows:
            wake = _begin(subscription, using)
            if wake is not None:
                wakes.append(wake)
                named += len(wake.pending)
            if named >= NAMED_PER_STEP:
                break
    return wakes


def _begin(subscription: Subscription, using: str) -> Wake | None:
    now = clock.now()
    pending, is_complete = pending_links(subscription, using)
    if not pending:
        _rest(subscription, using, due_at=None if is_complete else now)
        return None
    is_webhook = subscription.kind == WEBHOOK
    if not is_webhook and subscription.wake_id and not subscription.holder:
        # The process that began this wake has not written its event.
        change(subscription, using, due_at=now + timedelta(seconds=NOTICE_SECONDS))
        return Wake(subscription, pending, "")
    _number(subscription, using)
    if is_webhook:
        lease_expires_at = now + _lease(subscription)
        named = pending[-1].link_id
        change(subscription, using, lease_expires_at=lease_expires_at, due_at=lease_expires_at, named_through=named)
    else:
        change(subscription, using, due_at=now + timedelta(seconds=NOTICE_SECONDS))
    return Wake(subscription, pending, tokens.make(subscription, CALLBACK) if is_webhook else "")


def _number(subscription: Subscription, using: str) -> None:
    """Give a subscription its next wake, which fences the earlier ones."""
    change(
        subscription,
        using,
        generation=subscription.generation + 1,
        wake_id=f"w_{secrets.token_hex(12)}",
        holder="",
        lease_expires_at=None,
        next_attempt_at=None,
    )


def _lease(subscription: Subscription) -> timedelta:
    return timedelta(milliseconds=subscription.lease_ms)


def _lease_runs(subscription: Subscription, now: datetime) -> bool:
    expires_at = subscription.lease_expires_at
    return expires_at is not None and clock.from_project(expires_at) > now


def claim(name: str, worker: str, using: str) -> dict[str, Any]:
    """Give the lease of a pull-wake subscription to a worker, and return the answer to its claim (section 7.2).

    Raises:
        SubscriptionError: not found, of another type, claimed already, or nothing is pending.
    """
    claimed = _claim(name, worker, using)
    if claimed is None:
        raise no_pending_work()
    return claimed


def _claim(name: str, worker: str, using: str) -> dict[str, Any] | None:
    with transaction(using):
        subscription = find(name, using, lock=True)
        _check_kind(subscription, PULL_WAKE)
        now = clock.now()
        if subscription.holder and _lease_runs(subscription, now):
            raise already_claimed(subscription.holder, subscription.generation)
        pending, is_complete = pending_links(subscription, using)
        if not pending:
            if not is_complete:  # the next claim, or the delivery, goes on with the other links
                change(subscription, using, due_at=now)
            return None
        if not subscription.wake_id or subscription.holder:  # no wake, or one whose lease has expired
            _number(subscription, using)
        lease_expires_at = now + _lease(subscription)
        change(
            subscription,
            using,
            holder=worker,
            named_through=pending[-1].link_id,
            lease_expires_at=lease_expires_at,
            due_at=lease_expires_at,
            failures=0,
            last_error="",
        )
        return {
            "wake_id": subscription.wake_id,
            "generation": subscription.generation,
            "token": tokens.make(subscription, CLAIM),
            "streams": stream_list(pending),
            "lease_ttl_ms": subscription.lease_ms,
        }


def stream_list(pending: Sequence[PendingLink]) -> list[dict[str, Any]]:
    """Return pending links as webhooks and claims name them."""
    return [
        {
            "path": link.path,
            "link_type": "explicit" if link.is_explicit else "glob",
            "acked_offset": link.acked_offset,
            "tail_offset": link.tail_offset,
            "has_pending": True,
        }
        for link in pending
    ]


def callback(name: str, token: str, request: WakeRequest, using: str) -> bool:
    """Apply the callback of a webhook's receiver. Return whether another wake follows (section 7.1).

    Raises:
        SubscriptionError: nothing was changed.
    """
    return _acknowledge(name, token, request, using, WEBHOOK, CALLBACK)


def ack(name: str, token: str, request: WakeRequest, using: str) -> bool:
    """Apply the acknowledgement of a worker. Return whether another wake follows (section 7.2).

    Raises:
        SubscriptionError: nothing was changed.
    """
    return _acknowledge(name, token, request, using, PULL_WAKE, CLAIM)


def _acknowledge(name: str, token: str, request: WakeRequest, using: str, kind: str, purpose: str) -> bool:
    with transaction(using):
        subscription = _fenced(name, token, request, using, kind, purpose)
        _apply_acks(subscription, request.acks, using)
        if request.done:
            return end(subscription, using)
        lease_expires_at = clock.now() + _lease(subscription)
        change(subscription, using, lease_expires_at=lease_expires_at, due_at=lease_expires_at)
        return False


def release(name: str, token: str, request: WakeRequest, using: str) -> None:
    """Give a lease back without an acknowledgement (section 7.2).

    Raises:
        SubscriptionError: nothing was changed.
    """
    with transaction(using):
        end(_fenced(name, token, request, using, PULL_WAKE, CLAIM), using)


def _fenced(name: str, token: str, request: WakeRequest, using: str, kind: str, purpose: str) -> Subscription:
    """Return a subscription, locked, whose present wake is the one of a request (section 7.3)."""
    subscription = find(name, using, lock=True)
    _check_kind(subscription, kind)
    generation = tokens.check(token, subscription, purpose)
    is_current = (
        bool(subscription.wake_id)
        and generation == request.generation == subscription.generation
        and request.wake_id == subscription.wake_id
        and _lease_runs(subscription, clock.now())
    )
    if not is_current:
        raise fenced()
    return subscription


def _check_kind(subscription: Subscription, kind: str) -> None:
    if subscription.kind != kind:
        raise invalid_request(f"This is a {subscription.kind} subscription. The request is for one of type {kind}.")


def _apply_acks(subscription: Subscription, acks: Sequence[Ack], using: str) -> None:
    """Move the cursors of links, all or none.

    Raises:
        SubscriptionError: a cursor would go back or past the tail, or the subscription has no such link.
    """
    query = links(using, subscription=subscription, path__in=[ack.path for ack in acks]).order_by("id")
    # Without a wait: a transaction that creates a stream at one of the paths may hold a link for long.
    by_path = {link.path: link for link in locked(query, using, waits=False)}
    stream_ids = [link.stream_id for link in by_path.values() if link.stream_id is not None]
    infos = log_reader.find_ids(stream_ids, using) if stream_ids else {}
    moves = {}
    for one in acks:
        link = by_path.get(one.path)
        info = None if link is None or link.stream_id is None else infos.get(link.stream_id)
        if link is None or info is None:
            raise invalid_offset(f"This subscription has no stream at {one.path}.")
        position = _position(one, info, using)
        if position < (link.acked_position or 0):
            raise invalid_offset(f"The cursor of {one.path} is past this offset already.")
        link.acked_position = position
        moves[link.pk] = link, position, info.tail > position
    move_cursors(moves.values(), using)


def _position(one: Ack, info: StreamInfo, using: str) -> int:
    if not isinstance(one.offset, Offset):
        raise invalid_offset("Acknowledge the offset of a message, not -1 or now.")
    try:
        return lineage.locate(info, one.offset, using)[1]
    except DurableStreamsError:
        raise invalid_offset(f"The offset is not one of the stream at {one.path}, or lies past its tail.") from None


def end(subscription: Subscription, using: str) -> bool:
    """End the wake of a locked subscription. Return whether more is pending, maybe.

    Another wake then follows, unless the subscription is paused.
    """
    pending, is_complete = pending_links(subscription, using, limit=1)
    has_more = bool(pending) or not is_complete
    _rest(subscription, using, due_at=clock.now() if has_more and not subscription.is_paused else None)
    return has_more


def _rest(subscription: Subscription, using: str, due_at: datetime | None) -> None:
    """Record that no wake is in flight, and when the next one may begin."""
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


def next_due_seconds(using: str) -> float | None:
    """Return the seconds until another subscription is due, or None if none is scheduled.

    Those that are due already wait for another process, or for the end of a delivery.
    """
    now = clock.now()
    scheduled = subscriptions(using).filter(due_at__gt=now, is_paused=False).order_by("due_at")
    due_at = scheduled.values_list("due_at", flat=True).first()
    return None if due_at is None else (clock.from_project(due_at) - now).total_seconds()
