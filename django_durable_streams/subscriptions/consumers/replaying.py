"""Replay: the cursors of a consumer are set to another place, and its effects are taken back in the same transaction.

Workers must not handle a message between both. So the replay becomes the holder of the consumer and of all its links
first: handlers that run at that moment cannot commit, and workers that have just seen a free link cannot take it. At
its end the replay sees by the holder that nobody has let workers go on meanwhile. An operator's pause is another
matter, which a replay leaves as it is.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from django.db import connections
from django.db.models import OuterRef, Q, Subquery

from ...models import Stream, Subscription
from ...protocol.offsets import Offset, Sentinel
from ...runtime.caller_transaction import atomic
from ...store.read import lineage
from ...store.stream_info import StreamInfo
from ..rows import change, links, locked, subscriptions, transaction
from ..selection import Selection, with_streams
from .cursors import IS_LIVE
from .declarations import Consumer, ConsumerError
from .isolation import read_committed
from .subscribing import find_subscription

FENCE = "replay-"
"""The beginning of the holder of the subscription and of all its links while the cursors are set."""

LINKS_PER_STEP = 1000

SEVERAL_STREAMS = "An offset belongs to one stream. Choose this stream alone, on the command line with --streams."

LOCK_MS = 30_000
"""How long a replay waits for handlers that are about to commit, in milliseconds."""


class ReplayError(ConsumerError):
    """A replay is not possible. Nothing was changed."""


class Cursor(NamedTuple):
    """A cursor that a replay sets."""

    link_id: int
    info: StreamInfo
    position: int | None

    @property
    def bytes_to_handle(self) -> int:
        """How many bytes are handled then."""
        return self.info.bytes_after(self.position)


def subscription_of(consumer: Consumer, using: str) -> Subscription:
    """Return the subscription of a consumer.

    Raises:
        ReplayError: no worker has run the consumer yet.
    """
    subscription = find_subscription(consumer, using)
    if subscription is None:
        raise ReplayError(f"No worker has run the consumer {consumer.name} yet. Start manage.py streams_worker.")
    return subscription


def plan(consumer: Consumer, start: Offset | Sentinel, which: Selection, using: str) -> list[Cursor]:
    """Return the cursors that a replay sets.

    Args:
        consumer: the consumer.
        start: where to begin: an offset of the only chosen stream, the beginning, or the end.
        which: the streams of the consumer.
        using: alias of the database.

    Raises:
        ReplayError: no worker has run the consumer yet, or the offset is for another stream or several ones.
        DurableStreamsError: the pattern is invalid, or the offset is not one of the stream's.
    """
    cursors: list[Cursor] = []
    for rows in which.pages(subscription_of(consumer, using), using, IS_LIVE):
        for link, info in with_streams([link for link in rows if consumer.follows(link.path)], using):
            if isinstance(start, Offset) and cursors:
                raise ReplayError(SEVERAL_STREAMS)
            cursors.append(Cursor(link.pk, info, position_of(start, info, using)))
    return cursors


def position_of(start: Offset | Sentinel, info: StreamInfo, using: str) -> int | None:
    """Return the cursor from which a stream is handled from a start on. None: it was never handled.

    Raises:
        DurableStreamsError: the offset is not one of the stream's, or its data was trimmed.
    """
    if start is Sentinel.START:
        return None
    info, position = lineage.locate(info, start, using)
    lineage.check_retained(info, position, using)
    return position


def replay(consumer: Consumer, start: Offset | Sentinel, which: Selection, using: str) -> int:
    """Set the cursors of a consumer, take back its effects, and return the number of streams. See `plan`.

    Raises:
        ReplayError, DurableStreamsError: as for `plan`.
        Exception: the reset function of the consumer has failed. Nothing was changed.
    """
    plan(consumer, start, which, using)  # before anything is stopped
    subscription = subscription_of(consumer, using)
    fence = _hold(subscription, using)
    try:
        # Not in the transaction, which could fail to write on SQLite after a read. No cursor moves meanwhile.
        cursors = plan(consumer, start, which, using)
        with read_committed(using), atomic(using):
            if connections[using].vendor == "sqlite":
                _check_fence(subscription, fence, using)
            if consumer.reset_function is not None:
                # Before the lock on the subscription, for which the delivery waits.
                consumer.reset_function([cursor.info.path for cursor in cursors])
            _check_fence(subscription, fence, using)
            for first in range(0, len(cursors), LINKS_PER_STEP):
                _set(cursors[first : first + LINKS_PER_STEP], start, using)
    finally:
        end_replay(subscription, fence, using)
    return len(cursors)


def _hold(subscription: Subscription, using: str) -> str:
    """Keep all workers away. Return the holder of the subscription and of its links."""
    fence = FENCE + secrets.token_hex(12)
    with read_committed(using), transaction(using, LOCK_MS):
        present = locked(subscriptions(using).filter(pk=subscription.pk), using).first()
        if present is None or present.holder:
            raise ReplayError(
                "Another replay of the consumer runs, or was killed. In the second case resume the consumer, as with "
                "manage.py streams resume."
            )
        links(using, subscription=subscription).update(holder=fence, lease_expires_at=None)
        change(present, using, holder=fence)
    return fence


def _check_fence(subscription: Subscription, fence: str, using: str) -> None:
    """Lock the subscription until the end of the transaction.

    Raises:
        ReplayError: somebody has let workers go on. They may have handled messages since.
    """
    if not subscriptions(using).filter(pk=subscription.pk, holder=fence).update(holder=fence):
        raise ReplayError("Somebody has resumed or deleted the consumer during the replay. Nothing was changed.")


def is_replayed(subscription: Subscription) -> bool:
    """Return whether a replay holds a subscription, or has left it so because its process was killed."""
    return subscription.holder.startswith(FENCE)


def end_replay(subscription: Subscription, fence: str, using: str) -> None:
    """Let workers go on after a replay, also after one whose process was killed, if nobody has done so.

    Args:
        subscription: of the consumer.
        fence: the holder that the replay has given the subscription. Another replay may have begun since.
        using: alias of the database.
    """
    with read_committed(using), transaction(using, LOCK_MS):
        locked(subscriptions(using).filter(pk=subscription.pk), using).first()
        links(using, subscription=subscription, holder=fence).update(holder="")
        subscriptions(using).filter(pk=subscription.pk, holder=fence).update(holder="")


def _set(cursors: Sequence[Cursor], start: Offset | Sentinel, using: str) -> None:
    # A mark without messages is cleared by the worker that finds none.
    # A link may have got a new stream since, which the consumer has not handled yet.
    stream_ids = [cursor.info.id for cursor in cursors]
    rows = links(using, pk__in=[cursor.link_id for cursor in cursors], stream_id__in=stream_ids)
    rows.update(is_pending=True, failures=0, next_attempt_at=None, last_error="", is_stopped=False)
    if start is Sentinel.NOW:
        tail = Stream.objects.using(using).filter(pk=OuterRef("stream_id")).values("tail_position")
        rows.update(acked_position=Subquery(tail))
    else:
        for position in {cursor.position for cursor in cursors}:  # one: an offset is for one stream only
            rows.update(acked_position=position)


def release(subscription: Subscription, which: Selection, using: str) -> int:
    """Let stopped streams, and those that wait for another attempt, go on. Return their number.

    Raises:
        InvalidPath: the pattern is invalid.
    """
    waits = Q(is_stopped=True) | Q(next_attempt_at__isnull=False)
    count = 0
    for rows in which.pages(subscription, using, waits & IS_LIVE):
        waiting = links(using, pk__in=[link.pk for link in rows]).filter(waits)
        count += waiting.update(is_stopped=False, failures=0, next_attempt_at=None)
    return count
