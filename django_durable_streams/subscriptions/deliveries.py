"""The deliveries under way in one process, and the turns that are free beside them.

A delivery has a turn from its beginning to its end (`turns`). One that lasts for more than a second is slow, although
it may succeed. Hundreds of slow receivers would take the turns of all others. So a slow delivery moves to turns of its
own, and its receiver is remembered. While these turns are taken, no delivery to a remembered receiver begins. All other
receivers then find turns that are held for a second at most, apart from the first slow call of each receiver.

Knows neither SQL nor how a wake is delivered.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from ..models import Subscription
from .turns import Turns

MAX_DELIVERIES = 256
"""Wakes that one process delivers at the same time, besides slow ones. Receivers share these turns (`turns`)."""

MAX_SLOW = 256
"""Slow deliveries that have turns of their own."""

MAX_RETRIES = MAX_DELIVERIES // 2
"""How many deliveries may follow failed ones. So receivers that do not answer cannot take the turns of all others."""

SLOW_SECONDS = 1.0
"""After this time a delivery is slow."""

MAX_REMEMBERED = 2000
"""Slow receivers that a process remembers. Of more, those that were slow most recently."""


class _Delivery(NamedTuple):
    receiver: str
    """Empty for wake events."""
    is_retry: bool
    began: float


class Deliveries:
    """The deliveries of one process, in one event loop.

    Args:
        now: returns the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._running: dict[asyncio.Task[None], _Delivery] = {}
        self._slow_receivers: OrderedDict[str, None] = OrderedDict()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """The tasks that deliver."""
        return {*self._running}

    @property
    def by_receiver(self) -> Counter[str]:
        """How many deliveries each receiver has now."""
        return Counter(one.receiver for one in self._running.values() if one.receiver)

    def add(self, task: asyncio.Task[None], subscription: Subscription) -> None:
        """Give a delivery a turn until its task ends."""
        self._running[task] = _Delivery(subscription.receiver, bool(subscription.failures), self._now())
        task.add_done_callback(self._end)

    def turns(self) -> Turns:
        """Return the turns that are free now."""
        slow_since = self._now() - SLOW_SECONDS
        slow = [one for one in self._running.values() if one.began <= slow_since]
        for one in slow:
            self._remember(one.receiver)
        retries = sum(one.is_retry for one in self._running.values())
        return Turns(
            MAX_DELIVERIES - len(self._running) + min(len(slow), MAX_SLOW),
            MAX_RETRIES - retries,
            self.by_receiver,
            [*self._slow_receivers] if len(slow) >= MAX_SLOW else (),
        )

    def _remember(self, receiver: str) -> None:
        if receiver:
            self._slow_receivers[receiver] = None
            self._slow_receivers.move_to_end(receiver)
            if len(self._slow_receivers) > MAX_REMEMBERED:
                self._slow_receivers.popitem(last=False)

    def _end(self, task: asyncio.Task[None]) -> None:
        ended = self._running.pop(task)
        if self._now() - ended.began >= SLOW_SECONDS:
            self._remember(ended.receiver)
        else:
            self._slow_receivers.pop(ended.receiver, None)
