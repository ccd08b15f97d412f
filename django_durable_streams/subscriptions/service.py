"""The subscriptions of one database in this process: threads for their rows, and the delivery of their wakes.

The functions of this room are synchronous and short. A thread with a connection of its own calls them for requests, so
a request blocks no event loop. Another one calls them for the delivery. So requests, however many there are, neither
delay a wake nor take the place of its outcome, and no request waits for a look at all that is due.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock
from typing import ParamSpec, TypeVar

from django.db import router

from ..conf import config
from ..engine import Engine, engine_for
from ..models import Stream, Subscription
from ..runtime import execution
from ..runtime.backlog import Backlog
from ..runtime.call_worker import CallWorker
from ..runtime.monitor import monitor_for
from ..runtime.process_objects import ProcessObjects
from .backfill import link_portion
from .delivery import Delivery

P = ParamSpec("P")
T = TypeVar("T")

LINK_SECONDS = 10.0
"""For how long the creation of a subscription waits until existing streams are linked. The delivery goes on with it."""

MAX_TASKS = 1000
"""Calls that wait for a thread, and descriptions that are being made."""


class Service:
    """The subscriptions of one database in this process.

    Args:
        engine: the engine of the database, which delivers wake events.
    """

    def __init__(self, engine: Engine) -> None:
        self.using = engine.using
        self._worker = CallWorker("durable-streams-subscriptions", monitor_for(self.using), MAX_TASKS)
        self._delivery_worker: CallWorker | None = None
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
            await asyncio.sleep(progress.pause)

    def start(self) -> None:
        """Deliver wakes from now on, in threads of their own."""
        with self._starting:  # two threads may have made an engine at once
            if self._delivery_worker is None:
                self._delivery_worker = CallWorker("durable-streams-delivery-rows", monitor_for(self.using), MAX_TASKS)
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


_services = ProcessObjects[Service]()


def service_for(using: str | None = None) -> Service:
    """Return this process's service for a database. The first call makes it.

    Args:
        using: alias of the database. None: the database to which the router has streams written.
    """
    alias = using or router.db_for_write(Stream)
    engine = engine_for(using)  # which ends with the services
    return _services.get(alias, lambda: Service(engine))


def wake_delivery(using: str) -> None:
    """Let the delivery of this process look for work now, if there is one. Others look within `POLL_INTERVAL`."""
    service = _services.existing(using)
    if service is not None:
        service.wake()


def start_with_engine(engine: Engine) -> None:
    """Deliver wakes in this process, if the settings say so. Called when the process has made an engine."""
    if config().subscription_delivery and not execution.is_inline():
        service = service_for(engine.using)
        engine.after_linked_commit = service.wake
        service.start()
