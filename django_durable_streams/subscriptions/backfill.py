"""Links the streams that exist when a subscription with a pattern is created, in portions.

A new subscription begins at the present tails, so nothing old is replayed (specification, section 6.2). Only consumers
may begin at the beginning. Streams that are created later are linked in their own transaction (`store.write.linking`),
so each stream is linked exactly once: whichever comes second finds the link.

Appends wait for a portion, because it locks the rows of its streams, and all of SQLite. So it is as small as the time
of the last one asks for, compares paths before it locks anything, and skips rows that another transaction holds. The
next portion begins with the first of them.
A process links one portion at a time, and then rests for as much time as the portion took of the processor. Without it,
the request that creates a subscription and the delivery would link side by side, and leave appends no time.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Collection, Mapping
from threading import Lock
from typing import NamedTuple

from django.db import Error, connections
from django.db.models import QuerySet

from ..models import Stream, Subscription, SubscriptionLink
from ..protocol.globs import glob
from ..runtime.connection import copy_log
from ..runtime.database_errors import FailureKind, diagnose
from .registry import add_links, link_new
from .rows import LOCK_MS, brief_waits, change, links, locked, subscriptions, transaction

PORTION_SECONDS = 0.02
"""Time that the transaction of a portion should take."""

MIN_STREAMS, MAX_STREAMS = 200, 500
"""Streams that such a transaction links, at least and at most. Fewer take hardly less time."""

PORTION_SCANNED = 5000
"""Ids of streams among which one portion looks for paths that begin as the pattern does."""

PORTION_READ = 500
"""Such paths that one portion reads and compares with the pattern. The requests of the process need the interpreter."""

MAX_REST_SECONDS = 0.5
"""The longest rest after a portion."""

HELD_UP_PAUSE = 0.05
"""Time for another transaction to release a row, or for another thread to link its portion, in seconds."""

WAIT_AFTER = 5
"""A portion that has found the row of its subscription held so many times waits for it. The workers of a busy consumer
hold it one after the other, without a gap."""

WAIT_MS = 200
"""How long a portion waits for locks then, in milliseconds."""


class Progress(NamedTuple):
    """The result of a portion."""

    is_done: bool
    is_held_up: bool
    """Whether another transaction holds the row of the next stream, or another process links this subscription."""
    pause: float = 0.0
    """Seconds until the next portion."""


def _copy_log(using: str) -> None:
    """Copy what a portion has written to SQLite's log. A later one would copy it in its commit, and hold the lock."""
    connection = connections[using]
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        copy_log(using)


class _Pace:
    """How many streams this process may link in one transaction of a database, and when the next time."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.rests_until = 0.0
        self.streams = MIN_STREAMS
        self.held_up: Counter[int] = Counter()
        """How many portions have found the row of their subscription held, by its key."""

    def adapt(self, seconds: float) -> None:
        """Adapt the number of streams to the time that a transaction with so many streams has taken."""
        fitting = int(self.streams * PORTION_SECONDS / max(seconds, 0.001))
        self.streams = max(MIN_STREAMS, min(fitting, 2 * self.streams, MAX_STREAMS))


def link_portion(subscription_id: int, using: str) -> Progress:
    """Link some of the existing streams that match the pattern of a subscription."""
    pace = _pace_of(using)
    if not pace.lock.acquire(blocking=False):
        return Progress(is_done=False, is_held_up=True, pause=HELD_UP_PAUSE)
    try:
        rest = pace.rests_until - time.monotonic()
        if rest > 0.0:
            return Progress(is_done=False, is_held_up=False, pause=rest)
        began = time.thread_time()
        progress = _link_unless_busy(subscription_id, using, pace)
        _copy_log(using)
        rest = min(time.thread_time() - began, MAX_REST_SECONDS)
        pace.rests_until = time.monotonic() + rest
    finally:
        pace.lock.release()
    if progress.is_done:
        return progress
    return progress._replace(pause=HELD_UP_PAUSE if progress.is_held_up else rest)


def _link_unless_busy(subscription_id: int, using: str, pace: _Pace) -> Progress:
    try:
        return _link_next(subscription_id, using, pace)
    except Error as error:
        if diagnose(error) is not FailureKind.BUSY:
            raise
        return Progress(is_done=False, is_held_up=True)


_paces: dict[str, _Pace] = {}


def _pace_of(using: str) -> _Pace:
    return _paces.get(using) or _paces.setdefault(using, _Pace())


# A lock that another thread holds at the moment of a fork would never be released in the child.
os.register_at_fork(after_in_child=_paces.clear)


def _link_next(subscription_id: int, using: str, pace: _Pace) -> Progress:
    query = subscriptions(using).filter(pk=subscription_id, linked_through__isnull=False)
    seen = query.first()
    if seen is None:
        return Progress(is_done=True, is_held_up=False)
    limit = pace.streams
    matching, scanned_through = _next_matching(seen, using, limit)
    waits = pace.held_up[subscription_id] >= WAIT_AFTER
    held_up = 0 if waits else pace.held_up[subscription_id] + 1
    del pace.held_up[subscription_id]
    with transaction(using, WAIT_MS if waits else LOCK_MS):
        began = time.monotonic()
        subscription = _locked_subscription(query, using, waits=waits)
        if subscription is None:
            pace.held_up[subscription_id] = held_up
            return Progress(is_done=False, is_held_up=True)
        if (subscription.pattern, subscription.linked_through) != (seen.pattern, seen.linked_through):
            return Progress(is_done=False, is_held_up=False)  # another process has linked a portion meanwhile
        linked = _link(subscription, matching, using)
        held = [stream_id for stream_id in matching if stream_id not in linked]
        is_done = scanned_through is None and not held
        through = held[0] - 1 if held else scanned_through
        change(subscription, using, linked_through=None if is_done else through)
    if len(linked) == limit:
        pace.adapt(time.monotonic() - began)
    return Progress(is_done, bool(held))


def _locked_subscription(query: QuerySet[Subscription], using: str, *, waits: bool) -> Subscription | None:
    """Lock a subscription and return it. None: it is deleted, or another transaction holds it and this does not wait.

    Usually that is another process that links the same subscription, and nobody waits for it.
    """
    if not waits:
        return locked(query, using, skip=True).first()
    with brief_waits(using, WAIT_MS):
        return locked(query, using).first()


def _next_matching(subscription: Subscription, using: str, limit: int) -> tuple[dict[int, str], int | None]:
    """Return the paths of the next matching streams by their ids, and the id up to which was compared. None: all were.

    Args:
        limit: number of streams to return at most.
    """
    pattern = glob(subscription.pattern)
    rest = Stream.objects.using(using).filter(id__gt=subscription.linked_through).order_by("id")
    first = rest.values_list("id", flat=True).first()
    if first is None:
        return {}, None
    # A range of ids, and not only a number of rows: to find so many that match, the database may have to read all.
    through = first + PORTION_SCANNED - 1
    query = rest.filter(id__lte=through, path__startswith=pattern.prefix, deleted_at__isnull=True)
    paths = list(query.values_list("id", "path")[:PORTION_READ])
    if len(paths) == PORTION_READ:
        through = paths[-1][0]
    matching = [(one, path) for one, path in paths if path is not None and pattern.matches(path)]
    if len(matching) > limit:
        matching = matching[:limit]
        through = matching[-1][0]
    return dict(matching), through


def _link(subscription: Subscription, matching: Mapping[int, str], using: str) -> Collection[int]:
    """Link streams at their tails, except those whose rows are held. Return the ids of the others."""
    query = Stream.objects.using(using).filter(pk__in=matching).order_by("id")
    ids: Collection[int] = matching.keys()
    if connections[using].features.has_select_for_update:  # SQLite's lock is that of the transaction
        ids = set(locked(query, using, skip=True).values_list("id", flat=True))
    paths = [matching[stream_id] for stream_id in ids]
    if links(using, subscription=subscription, path__in=paths).exists():
        rows = query.filter(pk__in=ids).values_list("id", "path", "tail_position")
        wanted = [_link_to(subscription, one, path, tail) for one, path, tail in rows if path is not None]
        add_links(subscription, wanted, using, is_glob=True)
    elif ids:
        link_new(subscription, [*ids], using)
    return ids


def _link_to(subscription: Subscription, stream_id: int, path: str, tail: int) -> SubscriptionLink:
    return SubscriptionLink(
        subscription=subscription,
        path=path,
        stream_id=stream_id,
        is_glob=True,
        acked_position=None if subscription.from_beginning else tail,
        is_pending=subscription.from_beginning and tail > 0,
    )


def unfinished(using: str) -> list[int]:
    """Return the ids of the subscriptions whose existing streams are not all linked yet."""
    return list(subscriptions(using).filter(linked_through__isnull=False).values_list("pk", flat=True))
