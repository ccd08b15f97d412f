"""What a process asks about runs all the time: whether one of its answers was stopped, and whether others are lost.

Each function is a few short queries, and none waits for a lock. What follows from it is decided again under locks, in
`rows`.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from django.db.models import Min, Q, QuerySet

from ... import clock
from ...store.sql.rows import slices
from ...subscriptions.rows import locked, transaction
from .models import Run
from .rows import UNSEEN, first_lease_end, lease_end

PORTION = 100
"""Runs that one look returns at most."""


class Notice(NamedTuple):
    """What a holder learns of one of its runs."""

    epoch: int
    stop_requested: bool


def renew(holder: str, run_ids: Collection[UUID], using: str) -> dict[UUID, Notice]:
    """Extend the leases of the runs that a holder writes, and return what it has to know of all its runs.

    A run that the rows name and the holder does not write gets no more time, so that others end it. A run whose row
    another transaction holds gets none now: the others must not wait for it.

    Args:
        holder: the process.
        run_ids: the runs that it writes.
        using: alias of the database.
    """
    for some in slices(sorted(run_ids)):
        _set_end(_held(holder, using).filter(pk__in=some), lease_end(), using)
    return look(holder, using)


def _set_end(runs: QuerySet[Run], end: datetime, using: str) -> None:
    """Set the end of the leases of runs whose rows no other transaction holds."""
    with transaction(using):
        ids = list(locked(runs, using, skip=True).values_list("pk", flat=True))
        for some in slices(ids):
            Run.objects.using(using).filter(pk__in=some).update(lease_until=end)


def _held(holder: str, using: str) -> QuerySet[Run]:
    return Run.objects.using(using).filter(holder=holder, active_chat__isnull=False)


def look(holder: str, using: str) -> dict[UUID, Notice]:
    """Return what a holder has to know of each of its runs."""
    rows = _held(holder, using).values_list("pk", "epoch", "stop_requested")
    return {pk: Notice(epoch, stopped) for pk, epoch, stopped in rows}


def give_up(holder: str, using: str) -> None:
    """End the leases of a holder now, because its process ends. Others continue or close its runs."""
    _set_end(_held(holder, using), clock.now(), using)


def begin(using: str) -> None:
    """Let the leases of runs begin that no process has seen before. So they count from when others can see the run."""
    unseen = Run.objects.using(using).filter(active_chat__isnull=False, lease_until__gte=UNSEEN)
    for state in set(unseen.values_list("state", flat=True)):
        _set_end(unseen.filter(state=state), first_lease_end(state), using)


class Waiting(NamedTuple):
    """A run that needs a process: to write it, or to end it."""

    id: UUID
    is_queued: bool
    is_stopped: bool
    source: str


class WaitingRuns(NamedTuple):
    """The runs that need a process now, and the seconds until the next lease ends, if there is one."""

    waiting: list[Waiting]
    next_end: float | None


def find_waiting(using: str, *, queued: bool) -> WaitingRuns:
    """Return the runs that need a process.

    Args:
        using: alias of the database.
        queued: whether this process takes runs from the queue.
    """
    begin(using)
    now = clock.now()
    active = Run.objects.using(using).filter(active_chat__isnull=False)
    is_queued = Q(state=Run.State.QUEUED)
    wanted = Q(lease_until__lte=now) | (is_queued if queued else is_queued & Q(stop_requested=True))
    rows = active.filter(wanted).order_by("created_at").values_list("pk", "state", "stop_requested", "source")
    waiting = [Waiting(pk, state == Run.State.QUEUED, stopped, source) for pk, state, stopped, source in rows[:PORTION]]
    first_end = active.filter(lease_until__gt=now).aggregate(end=Min("lease_until"))["end"]
    next_end = None if first_end is None else max((clock.from_project(first_end) - now).total_seconds(), 0.0)
    return WaitingRuns(waiting, next_end)
