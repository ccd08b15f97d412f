"""Timeouts of many waiting readers, with one timer of the event loop for each duration.

The optimisation: setting and cancelling a timer takes longer than the response to a long-poll. Invariant: waits of the
same duration end in the order in which they began, so a timer for the first one is enough.
"""

from __future__ import annotations

import asyncio
from typing import Protocol
from weakref import WeakValueDictionary


class Sleeper(Protocol):
    """Waits for an event, for a limited time."""

    def wake(self) -> None:
        """End the wait."""


class _Queue:
    """The waits of one duration, in the order in which they began."""

    __slots__ = ("deadlines", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.deadlines: dict[Sleeper, float] = {}
        self.timer = timer


class Timeouts:
    """Wakes sleepers of one event loop when their time is over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[float, _Queue] = {}

    def add(self, sleeper: Sleeper, seconds: float) -> None:
        """Wake a sleeper after so many seconds, unless it is removed before."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(self._loop.call_later(seconds, self._wake_due, seconds))
        queue.deadlines[sleeper] = self._loop.time() + seconds

    def remove(self, sleeper: Sleeper, seconds: float) -> None:
        """Remove a sleeper that was added with so many seconds. It may have been woken already."""
        queue = self._queues.get(seconds)
        if queue is not None:
            queue.deadlines.pop(sleeper, None)
            if not queue.deadlines:
                queue.timer.cancel()
                del self._queues[seconds]

    def _wake_due(self, seconds: float) -> None:
        queue = self._queues[seconds]
        now = self._loop.time()
        due = []
        for sleeper, deadline in queue.deadlines.items():
            if deadline > now:
                queue.timer = self._loop.call_at(deadline, self._wake_due, seconds)
                break
            due.append(sleeper)
        for sleeper in due:
            del queue.deadlines[sleeper]
        if not queue.deadlines:
            del self._queues[seconds]
        for sleeper in due:
            self._loop.call_soon(sleeper.wake)


_shared: WeakValueDictionary[asyncio.AbstractEventLoop, Timeouts] = WeakValueDictionary()
"""By event loop. Only their users keep them: they refer to the loop, which would otherwise never be freed."""


def shared_timeouts() -> Timeouts:
    """Return the timeouts that many groups of sleepers in the running event loop share. The first call makes them."""
    loop = asyncio.get_running_loop()
    timeouts = _shared.get(loop)
    if timeouts is None:
        timeouts = _shared[loop] = Timeouts(loop)
    return timeouts
