"""The housekeeping thread: it runs background tasks in short steps and decides which task is next.

The tasks (`housekeeping_tasks`, `retention_tasks`, `key_compaction_task`) are expiry, removal, flush, compaction,
retention, trimming, key compaction and purge. The next step goes to the task that has been due for longest. So a task
waits at most for one step of each other task, and a task that fails delays only itself. Knows nothing of what a step
does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from threading import Event

from django.db import Error

from ..runtime import execution
from ..runtime.monitor import DatabaseMonitor
from ..runtime.results import ResultCallback
from ..runtime.write_lock import WriteLock
from ..store.operations import Commit, Trim
from ..store.sql import CommitUncertain
from .compaction_tracker import CompactionTracker
from .housekeeping_context import HousekeepingContext
from .housekeeping_failures import passes
from .housekeeping_tasks import (
    CompactionTask,
    ExpiryTask,
    FlushTask,
    HousekeepingTask,
    PurgeTask,
    RemovalTask,
)
from .key_compaction_task import KeyCompactionTask
from .numbers import TaskNumbers, numbers_for
from .retention_tasks import RetentionTask, TrimmingTask

logger = logging.getLogger(__name__)

INTERVAL = 2.0
"""Seconds after which an idle task is due again. Expired streams are invisible at once, so there is no hurry."""

MIN_PAUSE = 0.002
"""Shortest time, in seconds, between two steps of a task, so that appends get their turn."""

KEEP_CONNECTION_SECONDS = 1.0
"""Before a longer rest the thread closes its database connection, because work comes seldom."""

STOP_SECONDS = 2.0
"""How long the end of a process waits for a step. Each step is one transaction, which may be lost."""

MAX_DELAY = 60.0
"""Longest time, in seconds, until a failed task is tried again. The time doubles with each failure."""


class _Schedule:
    """When a task is due."""

    def __init__(self, task: HousekeepingTask, numbers: TaskNumbers) -> None:
        self.task = task
        self.numbers = numbers
        self.due_at = time.monotonic()
        """In monotonic seconds."""
        self.is_idle = True
        """Whether its last step had nothing to do. Then a commit may make it due sooner."""
        self._last = 0.0
        self._failures = 0

    def done(self, began: float, rest: float | None) -> None:
        """Record a step.

        Args:
            began: when the step began, in monotonic seconds.
            rest: how many times as long as the step to rest. None: there was nothing to do.
        """
        self._last = now = time.monotonic()
        self._failures = 0
        self.is_idle = rest is None
        if not self.is_idle:
            self.numbers.steps += 1
        self.numbers.seconds += now - began
        self.numbers.done += self.task.done
        self.task.done = 0
        self.due_at = now + (INTERVAL if rest is None else max(rest * (now - began), MIN_PAUSE))

    def wake(self) -> None:
        """Make an idle task due soon, because there may be something to do."""
        if self.is_idle:
            self.due_at = min(self.due_at, max(time.monotonic(), self._last + self.task.woken_interval))

    def postpone(self) -> None:
        """Record that the step could not be tried."""
        self.is_idle = False
        self.due_at = time.monotonic() + INTERVAL

    def failed(self) -> bool:
        """Record that a step has failed. Return whether the step before had not."""
        self._failures += 1
        self.numbers.failures += 1
        self.is_idle = False
        self.due_at = time.monotonic() + min(INTERVAL * 2.0 ** min(self._failures - 1, 10), MAX_DELAY)
        return self._failures == 1


def task_name(task: HousekeepingTask) -> str:
    """Return the name of a task in statistics, such as `purge`."""
    return type(task).__name__.removesuffix("Task").lower()


class Housekeeper:
    """The housekeeping thread of an engine, which starts at once.

    Args:
        monitor: says whether the database answers, and makes the thread's connection.
        publish: is called with the commits that end expired streams.
        write_lock: held while the thread writes.
        compaction_tracker: says which streams need compaction.
        write: does work on the committer's connection and waits for it. None: the thread does all work itself.
        trim: queues the trim of a stream.
    """

    def __init__(
        self,
        monitor: DatabaseMonitor,
        publish: Callable[[list[Commit]], None],
        write_lock: WriteLock,
        compaction_tracker: CompactionTracker,
        write: Callable[[Callable[[], object]], object] | None,
        trim: Callable[[Trim, ResultCallback], None],
    ) -> None:
        self._monitor = monitor
        self._connection = monitor.new_connection()
        self._compaction_tracker = compaction_tracker
        context = HousekeepingContext(self._connection, write_lock, write)
        tasks = (
            ExpiryTask(context, publish),
            RemovalTask(context),
            FlushTask(context, compaction_tracker),
            CompactionTask(context, compaction_tracker),
            RetentionTask(context, trim),
            TrimmingTask(context),
            KeyCompactionTask(context),
            PurgeTask(context),
        )
        numbers = numbers_for(context.using).housekeeping
        self._schedules = [_Schedule(task, numbers[task_name(task)]) for task in tasks]
        self._woken = Event()
        self._is_all_woken = False
        self._stopped = Event()
        self._thread = execution.start_thread(self._run, "durable-streams-housekeeping")

    def wake(self) -> None:
        """Run all idle tasks soon."""
        self._is_all_woken = True
        self._woken.set()

    def wake_for_removals(self) -> None:
        """Run the idle tasks soon that may have work after the end of a stream."""
        self._woken.set()

    def count(self, commits: list[Commit]) -> None:
        """Count commits, each of them one chunk, and wake the thread if a stream needs compaction."""
        if self._compaction_tracker.count(commits):
            self.wake()

    def request_compaction(self, stream_ids: set[int]) -> None:
        """Compact streams in which a read has met many chunks."""
        self._compaction_tracker.request(stream_ids)
        self.wake()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        self._woken.set()
        self._connection.end(self._thread, STOP_SECONDS)

    def _run(self) -> None:
        try:
            while self._wait():
                self._step(min(self._schedules, key=lambda schedule: schedule.due_at))
        finally:
            self._connection.close()

    def _wait(self) -> bool:
        """Wait until a task is due. Return False if the thread has to end."""
        while not self._stopped.is_set():
            if self._woken.is_set():
                self._woken.clear()
                is_all, self._is_all_woken = self._is_all_woken, False
                for schedule in self._schedules:
                    if is_all or schedule.task.follows_removals:
                        schedule.wake()
            rest = min(schedule.due_at for schedule in self._schedules) - time.monotonic()
            if rest <= 0:
                return True
            if rest > KEEP_CONNECTION_SECONDS:
                self._connection.close()
            # So soon before a step, a wake would change nothing. Each one takes the interpreter from the committers.
            (self._woken if rest > HousekeepingTask.woken_interval else self._stopped).wait(rest)
        return False

    def _step(self, schedule: _Schedule) -> None:
        if not self._monitor.answers:
            schedule.postpone()
            return
        began = time.monotonic()
        try:
            rest = schedule.task.step()
        except BaseException as error:  # the thread must outlive every bug, also of the project's receivers
            self._connection.close()
            if self._monitor.problem_reporter.report(error) is not None:  # logged, for an operator to set it right
                schedule.postpone()
            elif isinstance(error, Error | CommitUncertain) and passes(error):
                logger.debug("A housekeeping step failed, and is tried again: %s", error)
                schedule.postpone()
            elif schedule.failed():
                logger.exception("Housekeeping could not %s any stream. All other work goes on.", schedule.task.name)
        else:
            schedule.done(began, rest)
