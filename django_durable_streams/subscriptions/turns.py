"""Which of the due subscriptions may begin a wake now, so that none waits for the receivers of others.

A process calls a limited number of webhooks at the same time: it has that many turns (`deliveries`). A receiver that
does not answer keeps a turn until the time is over, so receivers share the turns by two rules:

- A receiver gets a turn while it has less than an eighth of those that are free. Alone it has a ninth of all, or an
  eighth while it is slow. Twenty receivers that take all they get leave a tenth. So a receiver that needs one finds
  one, and has it at once.
- Subscriptions whose last wake has failed have a limit of their own, and a quarter of each step for certain, or of
  several steps, by chance, where each has less than four wakes. They have no more beside others, and half of a step at
  most: a step is one transaction, and the next wakes wait for its end.

Knows neither the rules of wakes nor how they are delivered.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from django.db.models import QuerySet

from ..models import Subscription
from .rows import locked

RECEIVERS_SHARE = 8
"""A receiver may have one of so many free turns."""

RETRIES_SHARE = 4
"""One turn of so many in a step is for subscriptions whose last wake has failed, if others are due."""

RETRIES_ALONE_SHARE = 2
"""The same if no others are due."""


class Turns(NamedTuple):
    """The free turns of a process."""

    free: int
    """How many wakes may begin."""
    retries: int | None = None
    """How many of them may follow failed ones. None: no limit."""
    in_flight: Mapping[str, int] | None = None
    """The turns that receivers have, by receiver. None: receivers need not share."""
    without: Collection[str] = ()
    """Receivers that get no turn: the turns of slow deliveries are taken (`deliveries`)."""


def choose(due: QuerySet[Subscription], turns: Turns, limit: int, using: str) -> list[Subscription]:
    """Lock subscriptions that are due, and return those that may begin a wake: the longest due first.

    Args:
        due: the subscriptions that are due.
        turns: the free turns.
        limit: the largest number.
        using: alias of the database.
    """
    limit = min(limit, turns.free)
    in_flight = turns.in_flight or {}
    saturated = [receiver for receiver, number in in_flight.items() if not _may_have_another(number, turns.free)]
    query = locked(due.exclude(receiver__in=[*saturated, *turns.without]).order_by("due_at"), using, skip=True)
    first = list(query.filter(failures=0)[:limit])
    retries = -(-limit // (RETRIES_SHARE if first else RETRIES_ALONE_SHARE))
    if first and random.random() * RETRIES_SHARE >= limit:
        retries = 0  # in a step of one wake, they would have all
    if turns.retries is not None:
        retries = min(retries, turns.retries)
    later = list(query.filter(failures__gt=0)[:retries])
    return [*_sharing([*first[: limit - len(later)], *later], turns)]


def _sharing(rows: Iterable[Subscription], turns: Turns) -> Iterable[Subscription]:
    """Leave out the subscriptions whose receivers have enough turns by then."""
    if turns.in_flight is None:
        yield from rows
        return
    free, taken = turns.free, Counter(turns.in_flight)
    for subscription in rows:
        receiver = subscription.receiver
        if not receiver or _may_have_another(taken[receiver], free):
            taken[receiver] += 1
            free -= 1
            yield subscription


def _may_have_another(turns: int, free: int) -> bool:
    return turns * RECEIVERS_SHARE < free
