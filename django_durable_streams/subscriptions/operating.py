"""What operators do with subscriptions and consumers: pause, resume, try again, move cursors, delete.

All functions work on the connection of their caller, and in its transaction if there is one. So an entry in a log
commits with the action. `perform` gives them a transaction that waits for others for a short time only.

A pause ends nothing: who has a wake or a stream finishes it. After a pause the same wakes follow that would have
followed without it, because links go on to collect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from django.db import Error, connections

from .. import clock
from ..models import Subscription
from ..protocol.errors import DurableStreamsError, ServiceUnavailable
from ..protocol.offsets import Offset, Sentinel
from ..protocol.subscriptions import invalid_offset
from ..runtime.caller_transaction import in_callers_transaction
from ..runtime.database_errors import FailureKind, diagnose
from ..store.stream_info import StreamInfo
from . import leases, registry
from .consumers import replaying
from .consumers.declarations import ConsumerError, of_stored_name
from .consumers.isolation import read_committed
from .rows import change, find, links, locked, move_cursors, transaction
from .rules import LOCK_MS
from .selection import Selection, with_streams

P = ParamSpec("P")
T = TypeVar("T")

BUSY_SECONDS = 5.0
"""For how long an action is tried again that waits for another transaction."""

BUSY_PAUSE = 0.05
"""Seconds between two such attempts. Others get the lock meanwhile."""

LOCK_SECONDS = 1
"""How long a statement waits for a lock, on databases that count in seconds."""


def perform(using: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a transaction, again for some seconds while another transaction holds a lock.

    Inside the caller's transaction it is called once, and waits as the caller does.

    Raises:
        ServiceUnavailable: the lock is still held. Nothing was changed.
        Exception: whatever the function raises.
    """
    is_own = not in_callers_transaction(connections[using])
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            with _short_lock_waits(using), read_committed(using), transaction(using, LOCK_MS):
                return function(*args, **kwargs)
        except Error as error:
            if diagnose(error) is not FailureKind.BUSY:
                raise
            if not is_own or time.monotonic() >= until:
                raise ServiceUnavailable("Another transaction holds a lock. Nothing was changed. Try again.") from error
        time.sleep(BUSY_PAUSE)


@contextmanager
def _short_lock_waits(using: str) -> Iterator[None]:
    """Bound the waits for locks on MySQL and MariaDB, whose limit belongs to the connection and is long by default."""
    connection = connections[using]
    if connection.vendor != "mysql" or in_callers_transaction(connection):
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@SESSION.innodb_lock_wait_timeout")
        (previous,) = cursor.fetchone()
        cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [LOCK_SECONDS])
    driver_connection = connection.connection
    try:
        yield
    finally:
        if connection.connection is driver_connection:
            with connection.cursor() as cursor:
                cursor.execute("SET SESSION innodb_lock_wait_timeout = %s", [previous])


def delete(name: str, using: str) -> None:
    """Delete a subscription, or the cursors of a consumer that the code does not have any more.

    Raises:
        ConsumerError: the code still has the consumer.
        SubscriptionError: there is no subscription of this name (404).
        django.db.OperationalError: a transaction that creates streams has not ended. Try again, as `perform` does.
    """
    consumer = of_stored_name(name)
    if consumer is not None and consumer.alias == using:
        raise ConsumerError(f"The code still has the consumer {consumer.name}. Remove it first, and stop its workers.")
    registry.delete(name, using)


def pause(name: str, using: str) -> bool:
    """Let no wake begin and no worker take a stream of a consumer. Return whether this is new.

    Raises:
        SubscriptionError: there is no subscription of this name (404).
    """
    with transaction(using):
        subscription = find(name, using, lock=True)
        if subscription.is_paused:
            return False
        change(subscription, using, is_paused=True)
        return True


def resume(name: str, using: str) -> bool:
    """End a pause, and a replay of a consumer whose process was killed. Return whether there was one.

    What has become pending meanwhile leads to a wake at once. A wake event that nobody could claim is written again.

    Raises:
        SubscriptionError: there is no subscription of this name (404).
    """
    with transaction(using):
        subscription = find(name, using, lock=True)
        has_wakes = subscription.kind != Subscription.Kind.CONSUMER
        is_held = not has_wakes and replaying.is_replayed(subscription)
        if is_held:
            replaying.end_replay(subscription, subscription.holder, using)
        if not subscription.is_paused:
            return is_held
        change(subscription, using, is_paused=False)
        has_event = subscription.kind == Subscription.Kind.PULL_WAKE and bool(subscription.wake_id)
        is_unclaimed = has_event and not subscription.holder
        if has_wakes and (subscription.due_at is None or is_unclaimed):
            change(subscription, using, due_at=clock.now())
        return True


def retry(name: str, using: str, which: Selection = Selection()) -> int:  # noqa: B008  an immutable value
    """Make the next attempts now, of a wake that was not delivered or of a consumer's streams. Return their number.

    An attempt that timed out is over then: its receiver gets FENCED. After another failure the waits begin anew.

    Args:
        name: the name of the subscription.
        using: alias of the database.
        which: the streams of a consumer, stopped ones as well as those that wait for another attempt.

    Raises:
        SubscriptionError: there is no subscription of this name (404).
        InvalidPath: the pattern of the selection is invalid.
    """
    with transaction(using):
        subscription = find(name, using, lock=True)
        if subscription.kind == Subscription.Kind.CONSUMER:
            return replaying.release(subscription, which, using)
        if subscription.next_attempt_at is None:
            return 0
        # The wake of an attempt that timed out ends, too. Its silence would count as one more failure.
        wake = {"wake_id": "", "lease_expires_at": None}
        change(subscription, using, failures=0, next_attempt_at=None, due_at=clock.now(), **wake)
        return 1


def set_cursors(name: str, start: Offset | Sentinel, which: Selection, using: str) -> int:
    """Set cursors of a webhook or pull-wake subscription, also backwards, and return their number.

    The present wake ends, so that late acknowledgements cannot move the cursors on. Many links take several
    transactions, and each of them ends the wake.

    Args:
        name: the id of the subscription.
        start: an offset of the only chosen stream, the beginning, or the end.
        which: the links.
        using: alias of the database.

    Raises:
        SubscriptionError: there is no subscription of this name (404), or the offset is not one of the stream's (409).
        ServiceUnavailable: another transaction holds a lock.
    """
    subscription = find(name, using)
    if isinstance(start, Offset):  # before the first page is committed
        _check_only_one(sum(len(with_streams(rows, using)) for rows in which.pages(subscription, using)))
    count = 0
    for rows in which.pages(subscription, using):
        try:
            count += perform(using, _set_some, name, start, [link.pk for link in rows], count, using)
        except ServiceUnavailable as error:
            if not count:
                raise
            raise ServiceUnavailable(
                f"Another transaction holds a lock. The cursors of {count} streams are set. Try again for the others."
            ) from error
    return count


def _check_only_one(count: int) -> None:
    if count > 1:
        raise invalid_offset(replaying.SEVERAL_STREAMS)


def _set_some(name: str, start: Offset | Sentinel, link_ids: list[int], already_set: int, using: str) -> int:
    """Set the cursors of a page of links."""
    subscription = find(name, using, lock=True)
    # Without a wait: a transaction that creates a stream at one of the paths may hold a link for long.
    query = links(using, subscription=subscription, pk__in=link_ids).order_by("pk")
    present = with_streams(list(locked(query, using, waits=False)), using)
    if isinstance(start, Offset):
        _check_only_one(already_set + len(present))
    # A mark without messages is cleared by the next wake.
    move_cursors([(link, _position(start, info, using), True) for link, info in present], using)
    if present:
        leases.set_idle(subscription, using, due_at=clock.now())
    return len(present)


def _position(start: Offset | Sentinel, info: StreamInfo, using: str) -> int | None:
    try:
        return replaying.position_of(start, info, using)
    except DurableStreamsError as error:
        raise invalid_offset(error.detail) from error
