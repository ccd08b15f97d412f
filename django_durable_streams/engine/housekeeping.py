"""Work that nobody waits for: ending expired streams, deleting removed ones' rows, gathering and merging chunks.

Each kind of work is a duty (`duties`) and does a short step at a time. The thread gives the next turn to the duty that
has been due for longest, so none waits longer than the others' steps take, however much one of them has to do; and one
that fails waits by itself.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event

from django.db import Error

from ..runtime import execution
from ..runtime.monitor import DatabaseMonitor
from ..runtime.write_lock import WriteLock
from ..store.operations import Commit
from .compaction_tracker import CompactionTracker
from .housekeeping_failures import passes
from .housekeeping_tasks import (
    CompactionTask,
    ExpiryTask,
    FlushTask,
    HousekeepingContext,
    HousekeepingTask,
    PurgeTask,
    RemovalTask,
)

logger = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds between looks at what there is to do. Expired streams are invisible at once; this only gives their space
back."""

SHORT_INTERVAL = 0.1
"""The same while there is always something that says it."""

PAUSE = 0.002
"""Seconds between two steps of a duty at the least, so that appends come through."""

KEEP_SECONDS = 1.0
"""A rest of so long gives the connection back: one for each process is too much for work that comes now and then."""

MAX_DELAY = 60.0
"""Seconds until a duty that has failed is tried again, at the most: twice as long each time."""


class _Schedule:
    """When a duty is due.

    `due_at` is in monotonic seconds; `is_idle`: it had nothing to do the last time, so news may make it due sooner.
    """

    def __init__(self, duty: HousekeepingTask) -> None:
        self.duty = duty
        self.due_at = time.monotonic()
        self.is_idle = True
        self._last = 0.0
        self._failures = 0

    def done(self, began: float, rest: float | None) -> None:
        """Take note of a step."""
        self._last = now = time.monotonic()
        self._failures = 0
        self.is_idle = rest is None
        self.due_at = now + (INTERVAL if rest is None else max(rest * (now - began), PAUSE))

    def hurry(self) -> None:
        """There may be something to do."""
        if self.is_idle:
            self.due_at = min(self.due_at, max(time.monotonic(), self._last + SHORT_INTERVAL))

    def postpone(self) -> None:
        """Nothing could be tried."""
        self.is_idle = False
        self.due_at = time.monotonic() + INTERVAL

    def failed(self) -> bool:
        """Take note that a step has failed, and return whether it is the first."""
        self._failures += 1
        self.is_idle = False
        self.due_at = time.monotonic() + min(INTERVAL * 2.0 ** min(self._failures - 1, 10), MAX_DELAY)
        return self._failures == 1


class Housekeeper:
    """A thread that cleans up, a little at a time.

    Args:
        pulse: whether the database answers.
        publish: is told of streams that have expired.
        turn: held around each piece of work: whose turn it is to write, where only one can.
        growth: knows whose chunks are to be merged.
        write: has a piece of work done where it disturbs least, and waits for it; None: by this thread.
    """

    def __init__(
        self,
        monitor: DatabaseMonitor,
        publish: Callable[[list[Commit]], None],
        write_lock: WriteLock,
        growth: CompactionTracker,
        write: Callable[[Callable[[], object]], object] | None,
    ) -> None:
        self._monitor = monitor
        self._connection = monitor.new_connection()
        self._growth = growth
        place = HousekeepingContext(self._connection, write_lock, write)
        duties = (
            ExpiryTask(place, publish),
            RemovalTask(place),
            FlushTask(place, growth),
            CompactionTask(place, growth),
            PurgeTask(place),
        )
        self._schedules = [_Schedule(duty) for duty in duties]
        self._woken = Event()
        self._stopped = Event()
        self._thread = execution.start_thread(self._run, "durable-streams-housekeeping")

    def wake(self) -> None:
        """Look soon whether there is something to do."""
        self._woken.set()

    def count(self, commits: list[Commit]) -> None:
        """Take note of commits: each is a chunk, and many chunks of a stream are to be merged."""
        if self._growth.count(commits):
            self._woken.set()

    def crowded(self, stream_ids: set[int]) -> None:
        """Take note of streams that a read has found to have many chunks."""
        self._growth.note(stream_ids)
        self._woken.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        self._woken.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._wait():
                self._give_turn(min(self._schedules, key=lambda schedule: schedule.due_at))
        finally:
            self._connection.close()

    def _wait(self) -> bool:
        """Wait until a duty is due, and return whether this is not the end."""
        while not self._stopped.is_set():
            if self._woken.is_set():
                self._woken.clear()
                for schedule in self._schedules:
                    schedule.hurry()
            rest = min(schedule.due_at for schedule in self._schedules) - time.monotonic()
            if rest <= 0:
                return True
            if rest > KEEP_SECONDS:
                self._connection.close()
            self._woken.wait(rest)
        return False

    def _give_turn(self, schedule: _Schedule) -> None:
        if not self._monitor.answers:
            schedule.postpone()
            return
        began = time.monotonic()
        try:
            self._connection.open()
            rest = schedule.duty.step()
        except BaseException as error:  # the thread must outlive every bug, those of a project's receivers too
            self._connection.close()
            if isinstance(error, Error) and passes(error):
                logger.debug("Housekeeping could not go on: %s", error)
                schedule.postpone()
            elif schedule.failed():
                logger.exception("Housekeeping could not %s any stream. All else goes on.", schedule.duty.name)
        else:
            schedule.done(began, rest)
