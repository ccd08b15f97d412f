"""Ends all that waits for housekeeping now, in portions: the expiry, removal and purge of all streams.

For a command, where housekeeping spreads the same work over time. A portion that a row of the project forbids is
repeated stream by stream, and what is still forbidden is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from django.db import IntegrityError
from django.db.models import QuerySet

from ... import clock
from ...models import Stream
from ..operations import Commit
from . import removal
from .related_rows import Protected, protecting


class Swept(NamedTuple):
    """What one portion has led to."""

    expired: int = 0
    removed: int = 0
    purged: int = 0
    left: int = 0
    """Streams that another transaction holds."""
    protected: Protected = {}
    """Streams that rows of the project keep."""
    commits: Sequence[Commit] = ()
    """The changes that readers have to learn of."""


def waiting(using: str) -> Swept:
    """Return how many streams wait, and change nothing."""
    streams = Stream.objects.using(using)
    return Swept(streams.expired(clock.now()).count(), removal.unneeded_count(using), streams.purgeable().count())


def waiting_paths(using: str) -> Iterator[tuple[str, str]]:
    """Yield the paths of the streams that wait, with `expired` or `removed`. Streams to purge have no path any more."""
    expired = Stream.objects.using(using).expired(clock.now()).order_by("deadline", "id")
    for streams, outcome in ((expired, "expired"), (removal.unneeded_streams(using).order_by("id"), "removed")):
        for path in streams.values_list("path", flat=True).iterator():
            yield path or "", outcome


def ending_ids(using: str, portion: int) -> Iterator[list[int]]:
    """Yield the ids of the streams that wait for their expiry or removal, in portions.

    Expired ones that their forks keep are left out.
    """
    for query in (removal.expired_without_forks(using, clock.now()), removal.unneeded_streams(using)):
        yield from _ids(query, portion)


def purgeable_ids(using: str, portion: int) -> Iterator[list[int]]:
    """Yield the ids of the streams that wait for their purge, in portions."""
    yield from _ids(Stream.objects.using(using).purgeable(), portion)


def _ids(query: QuerySet[Stream], portion: int) -> Iterator[list[int]]:
    keys, after = query.order_by("id").values_list("pk", flat=True), 0
    while ids := list(keys.filter(pk__gt=after)[:portion]):
        yield ids
        after = ids[-1]


def sweep(using: str) -> Iterator[Swept]:
    """Expire, remove and purge all streams that wait for it, and yield what each portion has led to."""
    yield from _expire(using)
    while any_removed := sum(swept.removed for swept in _collect(using)):  # a chain of forks, one after the other
        yield Swept(removed=any_removed)
    yield from _purge(using)


def _expire(using: str) -> Iterator[Swept]:
    now = clock.now()
    after: Any = None
    while keys := removal.expired(using, now, after):
        after = keys[-1]
        commits = removal.expire(using, now, [stream_id for _, stream_id in keys])
        yield Swept(expired=len(commits), left=len(keys) - len(commits), commits=commits)


def _collect(using: str) -> Iterator[Swept]:
    after = 0
    while ids := removal.unneeded(using, after):
        after = ids[-1]
        yield Swept(removed=removal.collect(using, ids))


def _purge(using: str) -> Iterator[Swept]:
    after = 0
    while ids := removal.removed(using, after):
        after = ids[-1]
        count, protected = _in_parts(lambda part: _purge_some(using, part), ids)
        yield Swept(purged=count, left=len(ids) - count - len(protected), protected=protected)


def _purge_some(using: str, ids: Sequence[int]) -> int:
    while removal.purge_data(using, ids):
        pass
    return removal.purge_streams(using, ids)


def _in_parts(work: Callable[[Sequence[int]], int], ids: Sequence[int]) -> tuple[int, Protected]:
    """Do work for streams together or, where that is forbidden, for each half. Return its results, and the others."""
    try:
        return work(ids), {}
    except IntegrityError as error:  # Django's errors of PROTECT and RESTRICT are of this kind, too
        if len(ids) == 1:
            return 0, {ids[0]: protecting(error)}
        middle = len(ids) // 2
        (first, kept), (second, others) = _in_parts(work, ids[:middle]), _in_parts(work, ids[middle:])
        return first + second, {**kept, **others}
