"""The streams of one consumer that a worker may take next. Other workers take some of them first."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator

from ...models import SubscriptionLink
from . import cursors

PER_QUERY = 32
"""Links that one query returns."""

FRESH_SECONDS = 0.5
"""How long a worker uses the links of a query. A claim fails if its link has changed, so this only saves work."""


class Candidates:
    """Links with pending messages. Iterate over it until one is claimed.

    Each iteration goes on after the last link, then comes to the links before it, and ends when it has seen all.

    Args:
        subscription_id: the key of the consumer's subscription.
        using: alias of the database.
    """

    def __init__(self, subscription_id: int, using: str) -> None:
        self._subscription_id = subscription_id
        self._using = using
        # Each worker begins somewhere else, so that they do not race for the same streams.
        self._last = random.choice([0, random.getrandbits(31)])
        self._left: deque[SubscriptionLink] = deque()
        self._queried_at = 0.0

    def __iter__(self) -> Iterator[SubscriptionLink]:
        if time.monotonic() - self._queried_at > FRESH_SECONDS:
            self._left.clear()
        yield from self._take(None)
        first = after = self._last
        has_wrapped = False
        while True:
            self._left.extend(cursors.claimable(self._subscription_id, self._using, after, PER_QUERY))
            self._queried_at = time.monotonic()
            is_full = len(self._left) == PER_QUERY
            is_over = has_wrapped and is_full and self._left[-1].pk >= first
            yield from self._take(first if has_wrapped else None)
            if is_over or (not is_full and (has_wrapped or not first)):
                return
            after = self._last if is_full else 0
            has_wrapped = has_wrapped or not is_full

    def _take(self, until: int | None) -> Iterator[SubscriptionLink]:
        """Yield the links that are left, up to an id."""
        while self._left:
            if until is not None and self._left[0].pk > until:
                self._left.clear()
                return
            link = self._left.popleft()
            self._last = link.pk
            yield link
