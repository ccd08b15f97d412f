"""The subscriptions of one database in this process: threads for their rows, and the delivery of their wakes.

The functions of this room are synchronous and short. A thread with a connection of its own calls them for requests, so
a request blocks no event loop. Another one calls them for the delivery. So requests, however many there are, neither
delay a wake nor take the place of its outcome, and no request waits for a look at all that is due.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock
from typing import ParamSpec, TypeVar, cast

from django.db import Error, router

from ..conf import config
from ..engine import Engine, engine_for
from ..models import Stream, Subscription
from ..protocol.errors import DurableStreamsError, ServiceUnavailable
from ..runtime import execution, lifecycle
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker
from ..runtime.database_errors import FailureKind, diagnose
from ..runtime.monitor import DatabaseMonitor, monitor_for
from .backfill import link_portion
from .delivery import Delivery

P = ParamSpec("P")
T = TypeVar("T")

Task = Callable[[], object]

BUSY_SECONDS = 10.0
"""For how long work is tried again that waits for another transaction."""

BUSY_PAUSE, MAX_BUSY_PAUSE = 0.05, 0.4
"""Seconds between two such attempts, at first and at most. Others get the lock meanwhile. Creates wait while one waits
for the rules of links, so they have most of the time for themselves."""

LINK_SECONDS = 10.0
"""For how long the creation of a subscription waits until existing streams are linked. The delivery goes on with it."""

MAX_TASKS = 1000
LOCK_SECONDS = 1
"""How long a statement waits for a lock, on databases that count in seconds."""


class Busy(ServiceUnavailable):
    """Another transaction holds a lock. The same work may succeed in a moment."""


class _Worker(BatchWorker[Task]):
    """The thread. It calls one function after the other, each in a transaction of its own."""

    def __init__(self, name: str, monitor: DatabaseMonitor) -> None:
        self._monitor = monitor
        super().__init__(name, monitor.new_connection(LOCK_SECONDS), self._call_all, Backlog(MAX_TASKS, 1), 1)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function, again and again for some seconds while it waits for another transaction."""
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


class Service:
    """The subscriptions of one database in this process.

    Args:
        engine: the engine of the database, which delivers wake events.
    """

    def __init__(self, engine: Engine) -> None:
        self.using = engine.using
        self._worker = _Worker("durable-streams-subscriptions", monitor_for(self.using))
        self._delivery_worker: _Worker | None = None
        self._starting = Lock()
        self._delivery = Delivery(engine, self._call_for_delivery)
        self.descriptions = Backlog(MAX_TASKS, config().max_response_memory)
        """Counts the bytes of the descriptions that are being made."""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of this room for a request, in the service's thread, and return its value.

        A function that waits for another transaction gives up soon, and is called again for some seconds.

        Raises:
            DurableStreamsError: the function has raised it, or the database does not answer.
        """
        return await self._worker.call(function, *args, **kwargs)

    async def _call_for_delivery(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await (self._delivery_worker or self._worker).call(function, *args, **kwargs)

    async def link_existing(self, subscription: Subscription) -> None:
        """Link the streams that match the pattern of a new subscription. Returns after `LINK_SECONDS` at the latest."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LINK_SECONDS
        while loop.time() < until:
            progress = await self.call(link_portion, subscription.pk, self.using)
            if progress.is_done:
                return
            if progress.is_held_up:
                await asyncio.sleep(BUSY_PAUSE)

    def start(self) -> None:
        """Deliver wakes from now on, in threads of their own."""
        with self._starting:  # two threads may have made an engine at once
            if self._delivery_worker is None:
                self._delivery_worker = _Worker("durable-streams-delivery-rows", monitor_for(self.using))
            self._delivery.start()

    def wake(self) -> None:
        """Let the delivery look for work now. Safe to call from any thread."""
        self._delivery.wake()

    async def deliver(self) -> None:
        """Deliver all wakes that are due, and return. For processes without the delivery's thread, such as tests."""
        await self._delivery.deliver_all()

    def stop(self) -> None:
        """End the delivery, then the threads."""
        self._delivery.stop()
        for worker in (self._delivery_worker, self._worker):
            if worker is not None:
                worker.stop()


_services: dict[str, Service] = {}
_lock = Lock()


def service_for(using: str | None = None) -> Service:
    """Return this process's service for a database. The first call makes it.

    Args:
        using: alias of the database. None: the database to which the router has streams written.
    """
    alias = using or router.db_for_write(Stream)
    engine = engine_for(using)  # which ends with the services
    with _lock:
        service = _services.get(alias)
        if service is None:
            service = _services[alias] = Service(engine)
    return service


def wake_delivery(using: str) -> None:
    """Let the delivery of this process look for work now, if there is one. Others look within `POLL_INTERVAL`."""
    service = _services.get(using)
    if service is not None:
        service.wake()


def start_with_engine(engine: Engine) -> None:
    """Deliver wakes in this process, if the settings say so. Called when the process has made an engine."""
    if config().subscription_delivery and not execution.is_inline():
        service = service_for(engine.using)
        engine.after_linked_commit = service.wake
        service.start()


def _stop_services() -> None:
    while _services:
        _, service = _services.popitem()
        service.stop()


lifecycle.call_at_stop(_stop_services)


def _forget_services() -> None:
    global _lock
    _services.clear()
    _lock = Lock()


# Threads do not survive a fork, so a child process makes services of its own.
os.register_at_fork(after_in_child=_forget_services)
