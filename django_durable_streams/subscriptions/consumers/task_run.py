"""The work of one task: it handles what is pending for a consumer, for a limited time, and ends.

The time is limited, because a task that never ends would keep a process of the task framework for itself. What is then
still pending gets another task.
"""

from __future__ import annotations

import logging
import time
from threading import Lock

from .cursors import Claim, renew
from .declarations import Consumer, find
from .isolation import own_connection, read_committed
from .lease_keeper import LeaseKeeper
from .runner import Report, Runner
from .task_wakes import LOST_SECONDS, TaskWake, begin_wakes, end, extend

logger = logging.getLogger(__name__)

RUN_SECONDS = 60.0
"""How long a task goes on while more is pending."""

EXTENSION_SECONDS = LOST_SECONDS / 4
"""How often a task extends its wake between two batches."""

_running: set[Runner] = set()
_lock = Lock()


def run(name: str, subscription_id: int, wake_id: str) -> int:
    """Handle what is pending for a consumer, if its wake is still in flight. Return the number of handled messages.

    Raises:
        LookupError: this process has no consumer of the name.
        django.db.Error: the database does not answer. Another task follows.
    """
    (consumer,) = find([name])
    with own_connection(consumer.alias):
        return _TaskRun(consumer, TaskWake(subscription_id, wake_id)).run()


def stop() -> None:
    """Let the tasks of this process end after their present batches. Does not wait."""
    with _lock:
        for runner in _running:
            runner.is_stopping = True


class _TaskRun:
    """One run, on the connections of the thread that calls it."""

    def __init__(self, consumer: Consumer, wake: TaskWake) -> None:
        self._consumers = {wake.subscription_id: consumer}
        self._using = consumer.alias
        self._wake = wake
        self._handled = 0
        self._keeper = LeaseKeeper(self._using, min(consumer.lease, LOST_SECONDS), self._renew)
        self._runner = Runner(self._consumers, self._using, hold=self._keeper.hold, report=self._count)
        self._extend_at = 0.0

    def run(self) -> int:
        """Handle messages, and return their number."""
        with _lock:
            _running.add(self._runner)
        self._keeper.start()
        until = time.monotonic() + RUN_SECONDS
        try:
            while self._handle(until) and self._begin_again():
                pass
        finally:
            self._keeper.stop()
            with _lock:
                _running.discard(self._runner)
        return self._handled

    def _handle(self, until: float) -> bool:
        """Handle messages until nothing is left, and end the wake. Return whether there is time for more."""
        while not self._runner.is_stopping and time.monotonic() < until:
            if not self._is_in_flight():
                logger.debug("A task has come too late: its wake is over.")
                return False
            if not self._runner.step():
                break
        with read_committed(self._using):
            end(self._wake, self._using)
        return not self._runner.is_stopping and time.monotonic() < until

    def _is_in_flight(self) -> bool:
        now = time.monotonic()
        if now < self._extend_at:
            return True
        self._extend_at = now + EXTENSION_SECONDS
        with read_committed(self._using):
            return extend(self._wake, self._using)

    def _begin_again(self) -> bool:
        """Begin a wake for what has come before the end of the last one. Return whether there is something."""
        with read_committed(self._using):
            wakes = begin_wakes(self._consumers, self._using)
        if wakes:
            (self._wake,) = wakes
            self._extend_at = 0.0
        return bool(wakes)

    def _renew(self, held: Claim, using: str) -> None:
        extend(self._wake, using)
        renew(held, using)

    def _count(self, report: Report) -> None:
        if report.outcome == "handled":
            self._handled += report.messages
