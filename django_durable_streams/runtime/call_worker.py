"""A thread that calls functions with a database connection of its own, one after the other, for coroutines.

It is for work that is too rare or too slow for the committers and the snapshot reader, and must not delay them. Knows
no stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import ParamSpec, TypeVar, cast

from django.db import Error

from ..protocol.errors import DurableStreamsError, ServiceUnavailable
from .backlog import Backlog
from .batch_worker import BatchWorker
from .database_errors import FailureKind, diagnose
from .monitor import DatabaseMonitor

P = ParamSpec("P")
T = TypeVar("T")

Task = Callable[[], object]

BUSY_SECONDS = 10.0
"""For how long work is tried again that waits for another transaction."""

BUSY_PAUSE, MAX_BUSY_PAUSE = 0.05, 0.4
"""Seconds between two such attempts, at first and at most. Others get the lock meanwhile. Creates wait while one waits
for the rules of links, so they have most of the time for themselves."""

LOCK_SECONDS = 1
"""How long a statement waits for a lock, on databases that count in seconds."""


class Busy(ServiceUnavailable):
    """Another transaction holds a lock. The same work may succeed in a moment."""


class CallWorker(BatchWorker[Task]):
    """The thread. It calls one function after the other, each in a transaction of its own.

    Args:
        name: the name of the thread.
        monitor: the monitor of the database.
        max_tasks: how many calls may wait.
    """

    def __init__(self, name: str, monitor: DatabaseMonitor, max_tasks: int) -> None:
        self._monitor = monitor
        super().__init__(name, monitor.new_connection(LOCK_SECONDS), self._call_all, Backlog(max_tasks, 1), 1)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function, again and again for some seconds while it waits for another transaction.

        Raises:
            DurableStreamsError: the function has raised it, or the database does not answer.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + BUSY_SECONDS
        pause = BUSY_PAUSE
        while True:
            try:
                return cast("T", await self.submit(partial(function, *args, **kwargs)))
            except Busy:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, MAX_BUSY_PAUSE)

    def _call_all(self, tasks: Sequence[Task]) -> Sequence[object]:
        return [self._call(task) for task in tasks]

    def _call(self, task: Task) -> object:
        """Call a function, and once more over a new connection if the first one was lost."""
        if not self._monitor.answers:
            return self._monitor.refusal()
        outcome = self._try(task)
        if isinstance(outcome, Error) and diagnose(outcome) is FailureKind.AWAY:
            outcome = self._try(task)
        if not isinstance(outcome, Error):
            return outcome
        if diagnose(outcome) is FailureKind.BUSY:
            return Busy("Another transaction holds a lock. Try again.")
        self._monitor.suspect(outcome)
        return self._monitor.refusal()

    def _try(self, task: Task) -> object:
        try:
            with self._connection:
                self._connection.open()
                return task()
        except DurableStreamsError as error:
            return error
        except Error as error:
            if diagnose(error) in (FailureKind.AWAY, FailureKind.SETUP):
                self._connection.close()  # a new connection may work
            return error
