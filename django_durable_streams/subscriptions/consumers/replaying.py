"""Replay: the cursors of a consumer are set to another place, and its effects are taken back in the same transaction.

Workers must not handle a message between both. So the consumer is paused first, and its links get a holder that no
worker has: handlers that run at that moment cannot commit, and workers that have just seen a free link cannot take it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from django.db.models import OuterRef, Q, Subquery

from ...models import Stream, Subscription, SubscriptionLink
from ...protocol.globs import glob
from ...protocol.offsets import Offset, Sentinel
from ...runtime.caller_transaction import atomic
from ...store.read import lineage, log_reader
from ...store.stream_info import StreamInfo
from ..rows import change, links, locked, subscriptions, transaction
from .declarations import Consumer
from .isolation import read_committed
from .subscribing import find_subscription

FENCE = "replay"
"""The holder of all links while the cursors are set."""

LINKS_PER_STEP = 1000

LOCK_MS = 30_000
"""How long a replay waits for handlers that are about to commit, in milliseconds."""


class ReplayError(Exception):
    """A replay is not possible. Nothing was changed."""


class Cursor(NamedTuple):
    """A cursor that a replay sets."""

    link_id: int
    info: StreamInfo
    position: int | None

    @property
    def bytes_to_handle(self) -> int:
        """How many bytes are handled then."""
        return self.info.tail - (self.position or 0)


def subscription_of(consumer: Consumer, using: str) -> Subscription:
    """Return the subscription of a consumer.

    Raises:
        ReplayError: no worker has run the consumer yet.
    """
    subscription = find_subscription(consumer, using)
    if subscription is None:
        raise ReplayError(f"No worker has run the consumer {consumer.name} yet. Start manage.py streams_worker.")
    return subscription


def plan(consumer: Consumer, start: Offset | Sentinel, pattern: str, using: str) -> list[Cursor]:
    """Return the cursors that a replay sets.

    Args:
        consumer: the consumer.
        start: where to begin: an offset of the only stream that the pattern matches, the beginning, or the end.
        pattern: of the paths of streams. Empty: all streams of the consumer.
        using: alias of the database.

    Raises:
        ReplayError: no worker has run the consumer yet, or the offset is for another stream or several ones.
        DurableStreamsError: the pattern is invalid, or the offset is not one of the stream's.
    """
    cursors: list[Cursor] = []
    for link, info in _streams(subscription_of(consumer, using), pattern, using):
        if isinstance(start, Offset):
            if cursors:
                raise ReplayError("An offset belongs to one stream. Name it with --streams.")
            cursors.append(Cursor(link.pk, info, lineage.locate(info, start, using)[1]))
        else:
            cursors.append(Cursor(link.pk, info, None if start is Sentinel.START else info.tail))
    return cursors


def _streams(subscription: Subscription, pattern: str, using: str) -> Iterator[tuple[SubscriptionLink, StreamInfo]]:
    """Yield the links of a subscription to streams that exist and match a pattern."""
    for rows in _link_pages(subscription, pattern, using):
        ids = [link.stream_id for link in rows if link.stream_id is not None]
        infos = log_reader.find_ids(ids, using) if ids else {}
        for link in rows:
            info = infos.get(link.stream_id or 0)
            if info is not None:
                yield link, info


def _link_pages(subscription: Subscription, pattern: str, using: str) -> Iterator[list[SubscriptionLink]]:
    matches = glob(pattern).matches if pattern else None
    after = 0
    while True:
        query = links(using, subscription=subscription, pk__gt=after).order_by("pk")
        rows = list(query[:LINKS_PER_STEP])
        if not rows:
            return
        after = rows[-1].pk
        yield [link for link in rows if matches is None or matches(link.path)]


def replay(consumer: Consumer, start: Offset | Sentinel, pattern: str, using: str) -> int:
    """Set the cursors of a consumer, take back its effects, and return the number of streams. See `plan`.

    Raises:
        ReplayError, DurableStreamsError: as for `plan`.
        Exception: the reset function of the consumer has failed. Nothing was changed.
    """
    plan(consumer, start, pattern, using)  # before anything is stopped
    subscription = subscription_of(consumer, using)
    was_paused = _pause(subscription, using)
    try:
        with read_committed(using), atomic(using):
            cursors = plan(consumer, start, pattern, using)
            if consumer.reset_function is not None:
                # Before the lock on the subscription, for which the delivery waits.
                consumer.reset_function([cursor.info.path for cursor in cursors])
            locked(subscriptions(using).filter(pk=subscription.pk), using).first()
            for first in range(0, len(cursors), LINKS_PER_STEP):
                _set(cursors[first : first + LINKS_PER_STEP], start, using)
    finally:
        _continue(subscription, was_paused, using)
    return len(cursors)


def _pause(subscription: Subscription, using: str) -> bool:
    """Keep all workers away, and return whether the consumer was paused before."""
    with read_committed(using), transaction(using, LOCK_MS):
        present = locked(subscriptions(using).filter(pk=subscription.pk), using).first()
        if present is None or links(using, subscription=subscription, holder=FENCE).exists():
            raise ReplayError(
                "Another replay of the consumer runs, or was killed. In the second case run manage.py streams resume."
            )
        links(using, subscription=subscription).update(holder=FENCE, lease_expires_at=None)
        was_paused: bool = present.is_paused
        change(present, using, is_paused=True)
        return was_paused


def _continue(subscription: Subscription, is_paused: bool, using: str) -> None:
    with read_committed(using), transaction(using, LOCK_MS):
        locked(subscriptions(using).filter(pk=subscription.pk), using).first()
        links(using, subscription=subscription, holder=FENCE).update(holder="")
        change(subscription, using, is_paused=is_paused)


def _set(cursors: Sequence[Cursor], start: Offset | Sentinel, using: str) -> None:
    # A mark without messages is cleared by the worker that finds none.
    rows = links(using, pk__in=[cursor.link_id for cursor in cursors])
    rows.update(is_pending=True, failures=0, next_attempt_at=None, last_error="", is_stopped=False)
    if start is Sentinel.NOW:
        tail = Stream.objects.using(using).filter(pk=OuterRef("stream_id")).values("tail_position")
        rows.update(acked_position=Subquery(tail))
    else:
        for position in {cursor.position for cursor in cursors}:  # one: an offset is for one stream only
            rows.update(acked_position=position)


def resume(consumer: Consumer, pattern: str, using: str) -> int:
    """Let stopped streams, and those that wait for another attempt, go on. Return their number.

    It also ends a pause that a replay has left whose process was killed.

    Raises:
        ReplayError: no worker has run the consumer yet.
        InvalidPath: the pattern is invalid.
    """
    subscription = subscription_of(consumer, using)
    count = 0
    for rows in _link_pages(subscription, pattern, using):
        waiting = links(using, pk__in=[link.pk for link in rows])
        waiting = waiting.filter(Q(is_stopped=True) | Q(next_attempt_at__isnull=False))
        count += waiting.update(is_stopped=False, failures=0, next_attempt_at=None)
    if links(using, subscription=subscription, holder=FENCE).exists():
        _continue(subscription, False, using)
    return count
