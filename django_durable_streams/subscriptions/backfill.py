"""Links the streams that exist when a subscription with a pattern is created, in portions.

A new subscription begins at the present tails, so nothing old is replayed (specification, section 6.2). Only consumers
may begin at the beginning. Streams that are created later are linked in their own transaction (`store.write.linking`),
so each stream is linked exactly once: whichever comes second finds the link.

Appends wait for a portion, because it locks the rows of its streams, and all of SQLite. So it is as small as the time
of the last one asks for, compares paths before it locks anything, and skips rows that another transaction holds. The
next portions try these again, and go on behind them: a long transaction on one stream delays the links of no other one.
`linked_through` stays before the first of them, so nothing is missed if the process is killed.

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

from ..models import DatabaseIdentity, Stream, Subscription, SubscriptionLink
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

MAX_SKIPPED = 100
"""Streams that the portions of a subscription may have skipped. No portion goes on behind more of them."""

MAX_POSITIONS = 1000
"""Subscriptions of which a process remembers the skipped streams."""

WAIT_AFTER = 5
"""A portion that has found the row of its subscription held so many times waits for it. The workers of a busy consumer
hold it one after the other, without a gap."""

WAIT_MS = 200
"""How long a portion waits for locks then, in milliseconds."""


class Progress(NamedTuple):
    """The result of a portion."""

    is_done: bool
    is_held_up: bool
    """Whether other transactions hold all rows that are left, or another process links this subscription."""
    pause: float = 0.0
    """Seconds until the next portion."""


def _copy_log(using: str) -> None:
    """Copy what a portion has written to SQLite's log. A later one would copy it in its commit, and hold the lock."""
    connection = connections[using]
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        copy_log(using)


class _Position(NamedTuple):
    """How far the links of a subscription are, as this process knows."""

    linked_through: int | None
    """That of the database. With another one the position no longer holds: another process links, too."""
    rules_version: int | None
    """Of the link rules. With another one the position no longer holds: the pattern may have been changed, and changed
    back."""
    compared_through: int
    """The id up to which streams were compared with the pattern."""
    skipped: tuple[int, ...]
    """The ids of matching streams up to there that are not linked, because other transactions hold them."""


class _Pace:
    """How many streams this process may link in one transaction of a database, and when the next time."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.rests_until = 0.0
        self.streams = MIN_STREAMS
        self.held_up: Counter[int] = Counter()
        """How many portions have found the row of their subscription held, by its key."""
        self.positions: dict[int, _Position] = {}
        """Of the subscriptions with skipped streams, by their keys."""

    def position_of(self, subscription: Subscription) -> _Position:
        """Return how far the links of a subscription are."""
        position, linked_through = self.positions.get(subscription.pk), subscription.linked_through
        if position is not None and position.linked_through == linked_through:
            return position
        return _Position(linked_through, None, linked_through or 0, ())

    def set_position(self, subscription_id: int, position: _Position) -> None:
        """Remember how far the links of a subscription are, unless the database says it."""
        self.positions.pop(subscription_id, None)
        if position.skipped:
            self.positions[subscription_id] = position
        while len(self.positions) > MAX_POSITIONS:  # other processes have linked the oldest ones
            del self.positions[next(iter(self.positions))]

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
    position = pace.position_of(seen)
    matching, scanned_through = _next_matching(seen.pattern, position.compared_through, using, limit)
    matching = {**_paths_of(position.skipped, using), **matching}
    waits = pace.held_up[subscription_id] >= WAIT_AFTER
    held_up = 0 if waits else pace.held_up[subscription_id] + 1
    del pace.held_up[subscription_id]
    with transaction(using, WAIT_MS if waits else LOCK_MS):
        began = time.monotonic()
        subscription = _locked_subscription(query, using, waits=waits)
        if subscription is None:
            pace.held_up[subscription_id] = held_up
            return Progress(is_done=False, is_held_up=True)
        version = _rules_version(using)  # every change of the pattern locks the subscription, too
        if (subscription.pattern, subscription.linked_through) != (seen.pattern, seen.linked_through) or (
            position.rules_version not in (None, version)
        ):
            pace.positions.pop(subscription_id, None)
            return Progress(is_done=False, is_held_up=False)  # another process has linked a portion meanwhile
        linked = _link(subscription, matching, using)
        held = [stream_id for stream_id in matching if stream_id not in linked]
        is_done = scanned_through is None and not held
        through = held[0] - 1 if held else scanned_through
        change(subscription, using, linked_through=None if is_done else through)
    if len(linked) >= limit:
        pace.adapt(time.monotonic() - began)
    compared_through = position.compared_through if scanned_through is None else scanned_through
    if len(held) > MAX_SKIPPED:
        compared_through = held[MAX_SKIPPED] - 1
    pace.set_position(subscription_id, _Position(through, version, compared_through, tuple(held[:MAX_SKIPPED])))
    return Progress(is_done, bool(held) and compared_through <= position.compared_through)


def _locked_subscription(query: QuerySet[Subscription], using: str, *, waits: bool) -> Subscription | None:
    """Lock a subscription and return it. None: it is deleted, or another transaction holds it and this does not wait.

    Usually that is another process that links the same subscription, and nobody waits for it.
    """
    if not waits:
        return locked(query, using, skip=True).first()
    with brief_waits(using, WAIT_MS):
        return locked(query, using).first()


def _rules_version(using: str) -> int | None:
    """Return the version of the rules by which new streams are linked. Each change of a pattern makes another one."""
    rows = DatabaseIdentity.objects.using(using).filter(id=DatabaseIdentity.THE_ONE)
    return rows.values_list("link_rules_version", flat=True).first()


def _paths_of(stream_ids: Collection[int], using: str) -> dict[int, str]:
    """Return the paths of streams by their ids, in the order of the ids. Streams that have ended are left out."""
    if not stream_ids:
        return {}
    present = Stream.objects.using(using).filter(pk__in=stream_ids, path__isnull=False, deleted_at__isnull=True)
    return {stream_id: path for stream_id, path in present.order_by("id").values_list("id", "path") if path is not None}


def _next_matching(text: str, after: int, using: str, limit: int) -> tuple[dict[int, str], int | None]:
    """Return the paths of the next matching streams by their ids, and the id up to which was compared. None: all were.

    Args:
        text: the pattern.
        after: the id up to which streams were compared before.
        using: alias of the database.
        limit: number of streams to return at most.
    """
    pattern = glob(text)
    rest = Stream.objects.using(using).filter(id__gt=after).order_by("id")
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
