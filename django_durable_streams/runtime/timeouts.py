"""Timeouts of many who hardly ever need them: one timer of the event loop for all that wait equally long."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Sleeper(Protocol):
    """Somebody who waits for something, but not for ever."""

    def wake(self) -> None:
        """End the wait."""


class _Queue:
    """Those who wait equally long, the first who began at the front."""

    __slots__ = ("deadlines", "timer")

    def __init__(self, timer: asyncio.TimerHandle) -> None:
        self.deadlines: dict[Sleeper, float] = {}
        self.timer = timer


class Timeouts:
    """Wakes those who have waited long enough.

    To set a timer for each and to cancel it takes longer than to answer a long-poll. Those who wait equally long are
    due in the order in which they came, so one timer for the first of them does.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queues: dict[float, _Queue] = {}

    def add(self, sleeper: Sleeper, seconds: float) -> None:
        """Wake somebody after a time, unless he is removed before."""
        queue = self._queues.get(seconds)
        if queue is None:
            queue = self._queues[seconds] = _Queue(self._loop.call_later(seconds, self._ring, seconds))
        queue.deadlines[sleeper] = self._loop.time() + seconds

    def remove(self, sleeper: Sleeper, seconds: float) -> None:
        """Let somebody be who was added with this time. He may have been woken already."""
        queue = self._queues.get(seconds)
        if queue is not None:
            queue.deadlines.pop(sleeper, None)
            if not queue.deadlines:
                queue.timer.cancel()
                del self._queues[seconds]

    def _ring(self, seconds: float) -> None:
        queue = self._queues[seconds]
        now = self._loop.time()
        due = []
        for sleeper, deadline in queue.deadlines.items():
            if deadline > now:
                queue.timer = self._loop.call_at(deadline, self._ring, seconds)
                break
            due.append(sleeper)
        for sleeper in due:
            del queue.deadlines[sleeper]
        if not queue.deadlines:
            del self._queues[seconds]
        for sleeper in due:
            self._loop.call_soon(sleeper.wake)
