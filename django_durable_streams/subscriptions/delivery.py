"""The delivery of wakes: finds subscriptions that are due, calls webhooks, and writes wake events.

It runs in any number of processes. The database decides which process delivers a wake (`due.begin_due`), so nothing
is delivered by two, and nothing is lost with one. A commit to a linked stream wakes the delivery of its own process at
once, and that of others through wake-up messages or a poll.

An event loop in a thread of its own does the work, so a slow receiver delays no other one. Knows neither SQL nor the
rules of wakes.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from threading import Thread
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

from django.db import Error

from .. import clock
from ..conf import config
from ..engine import Engine
from ..engine.wakeup.base import DELIVERY_CHANNEL, WakeUpMessage
from ..models import Subscription
from ..protocol import content
from ..protocol.errors import DurableStreamsError
from ..protocol.subscriptions import WEBHOOK
from ..runtime import execution
from ..runtime.database_errors import FailureKind, diagnose
from ..runtime.log_once import LogOnce
from ..store.operations import Append
from . import due, outcomes, signing_keys
from .backfill import link_portion, unfinished
from .consumers.task_queue import TaskQueue
from .deliveries import Deliveries
from .leases import Wake
from .pending import look_at_unseen
from .registry import delete_remains
from .registry_mover import RegistryMover
from .turns import Turns
from .wake_messages import body_of, wake_event
from .webhooks import WebhookRequest, WebhookSender

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

MAX_HELD_UP = 4
"""How many portions a look tries that have to wait for another transaction, until it leaves them for the next look."""

MIN_PAUSE = 0.01
"""Shortest time between two looks at the database, in seconds. Commits that come meanwhile share a look."""

RECEIVING_INTERVAL = 2.0
"""How often to look at the database while wake-up messages arrive, in seconds."""

IDLE_INTERVAL = 10.0
"""The same while there is no subscription."""

FAILURE_PAUSE = 1.0
"""Time until the next look after the database did not answer, in seconds."""

BUSY_PAUSE = 0.05
"""Time until the next look if another transaction holds a lock, in seconds."""

MAX_FAILING = 2
"""Failures that are recorded at the same time. Many calls reach their time limit together. A look, or the outcome of a
call that was answered, must not wait for all of them."""

STOP_SECONDS = 2.0
"""How long the end of the process waits for the delivery. What is not delivered then follows when its lease ends."""

WARNING_SECONDS = 60.0


class Call(Protocol):
    """Calls a synchronous function in the thread of the subscriptions, and returns its value."""

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Awaitable[Any]:
        """Raises DurableStreamsError if the database does not answer."""


class DueWork(NamedTuple):
    """What one look at the database has found."""

    wakes: list[Wake]
    has_more: bool
    """Whether there is more to do at once."""
    looked_through: int
    """The id of the last stream that was looked at, if others follow it. Otherwise 0."""
    due_in: float | None
    """Seconds until the next subscription is due, or the next portion of existing streams is linked."""
    is_linking: bool = False
    """Whether there are more portions."""


def look(using: str, turns: Turns, after: int = 0) -> DueWork | None:
    """Do all work that is due in the database, in short transactions, and return the wakes to deliver.

    A part that has to wait for another transaction is left for the next look, and delays no other part.

    Args:
        using: alias of the database.
        turns: the wakes that may begin.
        after: id of the last stream that the look before has looked at.

    Returns:
        None if there is no subscription at all.
    """
    if not Subscription.objects.using(using).exists():
        return None
    seen = _unless_busy(look_at_unseen, using, after)
    link_pause = _link_some(using)
    deletes_more = _unless_busy(delete_remains, using)
    wakes = _unless_busy(due.begin_due, using, turns) if turns.free else []
    # Nothing may fail from here on: these wakes have begun, and their leases run.
    is_held_up = None in (seen, deletes_more, wakes)
    through = 0 if seen is None else seen.through
    try:
        due_in = due.next_due_seconds(using)
    except Error:
        is_held_up, due_in = True, None
    if is_held_up or (seen is not None and seen.is_held_up):
        due_in = min(BUSY_PAUSE, BUSY_PAUSE if due_in is None else due_in)
    if link_pause is not None:
        due_in = link_pause if due_in is None else min(due_in, link_pause)
    # After the last streams come those that got an append meanwhile.
    has_more = bool(through or after or deletes_more or wakes)
    return DueWork(wakes or [], has_more and not is_held_up, through, due_in, link_pause is not None)


def _link_some(using: str) -> float | None:
    """Link existing streams to one new subscription.

    One portion only, whatever else waits: everything that is due would wait for the portions of all. Chance gives each
    of them its turn.

    Returns:
        Seconds until the next portion. None: all are linked, or held up by other transactions.
    """
    subscription_ids = unfinished(using)
    for subscription_id in random.sample(subscription_ids, min(len(subscription_ids), MAX_HELD_UP)):
        progress = _unless_busy(link_portion, subscription_id, using)
        if progress is not None and not progress.is_held_up:
            has_more = not progress.is_done or len(subscription_ids) > 1
            return progress.pause if has_more else None
    return None


def _unless_busy(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
    """Call a function. Return None if another transaction holds a lock that it waits for."""
    try:
        return function(*args, **kwargs)
    except Error as error:
        if diagnose(error) is not FailureKind.BUSY:
            raise
        logger.debug("A part of the delivery waits for another transaction: %s", error)
        return None


class Delivery:
    """The delivery of one process, for the subscriptions of one database.

    Args:
        engine: the engine of the database. It is not looked up again: that would make another one at the end.
        call: calls a function in the thread of the subscriptions.
    """

    def __init__(self, engine: Engine, call: Call) -> None:
        self._engine = engine
        self._using = engine.using
        self._call = call
        self._thread: Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._deliveries = Deliveries()
        self._failing = asyncio.Semaphore(MAX_FAILING)
        self._looked_through = 0
        self._is_linking = False
        self._task_queue = TaskQueue(engine.using)
        self._registry = RegistryMover(engine, call)
        self._sender: WebhookSender | None = None
        self._failures = LogOnce(WARNING_SECONDS)

    # For any thread.

    def start(self) -> None:
        """Start the thread, unless it runs."""
        if self._thread is None:
            self._thread = execution.start_thread(lambda: asyncio.run(self._run()), "durable-streams-delivery")

    def wake(self) -> None:
        """Look at the database soon."""
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self.poll_all)
            except RuntimeError:  # the loop was closed
                pass

    def stop(self) -> None:
        """End the thread, and wait for it for some seconds."""
        self._is_stopping = True
        self.wake()
        if self._thread is not None:
            self._thread.join(STOP_SECONDS)
        self._task_queue.stop()

    # Messages of other processes, in the event loop of the delivery.

    def receive(self, stream_id: int, message: WakeUpMessage) -> None:
        """Look at the database: another process has committed to a linked stream, or a change for the registry."""
        self.poll_all()

    def poll_all(self) -> None:
        """Look at the database, for example because messages may have been lost."""
        self._woken.set()
        self._registry.woken.set()

    # In the event loop of the delivery.

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        subscriber = self._engine.wakeup.subscriber(self)
        subscribing = None if subscriber is None else self._loop.create_task(subscriber.subscribe(DELIVERY_CHANNEL))
        moving = self._loop.create_task(self._registry.run(subscriber))
        try:
            while not self._is_stopping:
                self._woken.clear()
                pause = await self._look()
                if pause > config().poll_interval and subscriber is not None and not subscriber.is_receiving:
                    pause = config().poll_interval
                await self._rest(pause)
        finally:
            for task in (*self._deliveries.tasks, moving):
                task.cancel()
            if subscribing is not None:
                subscribing.cancel()
            if subscriber is not None:
                subscriber.close()
            await self._close()

    async def _rest(self, seconds: float) -> None:
        began = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(began + MIN_PAUSE - time.monotonic(), 0.0))

    async def _look(self) -> float:
        """Look at the database, start deliveries, and return the seconds until the next look."""
        self._is_linking = False
        try:
            turns = self._deliveries.turns()
            work: DueWork | None = await self._call(look, self._using, turns, self._looked_through)
        except DurableStreamsError as error:
            logger.debug("The delivery could not look at the database: %s", error)
            return FAILURE_PAUSE
        except Exception:  # the delivery must outlive every bug
            if self._failures.is_due():
                logger.exception("The delivery of subscriptions failed. It is tried again.")
            return FAILURE_PAUSE
        await self._task_queue.fill(self._call)
        if work is None:
            return config().poll_interval if self._task_queue.is_needed else IDLE_INTERVAL
        for wake in work.wakes:
            self._deliveries.add(asyncio.create_task(self._deliver(wake)), wake.subscription)
        self._looked_through = work.looked_through
        self._is_linking = work.is_linking
        if work.has_more:
            return 0.0
        pause = RECEIVING_INTERVAL if self._engine.wakeup.carries_messages else config().poll_interval
        return pause if work.due_in is None else min(work.due_in, pause)

    async def deliver_all(self) -> None:
        """Deliver the wakes that are due now, and those that follow from them, without the thread."""
        await self._registry.move_all()
        try:
            while (pause := await self._look()) == 0.0 or self._deliveries.tasks or self._is_linking:
                if tasks := self._deliveries.tasks:
                    await asyncio.wait(tasks)
                elif pause:
                    await asyncio.sleep(pause)
        finally:
            await self._close()

    async def _close(self) -> None:
        sender, self._sender = self._sender, None
        if sender is not None:
            await sender.close()

    async def _deliver(self, wake: Wake) -> None:
        try:
            if wake.subscription.kind == WEBHOOK:
                await self._call_webhook(wake)
            else:
                await self._write_event(wake)
        except DurableStreamsError as error:  # the database does not answer: the wake follows when its lease ends
            logger.debug("The outcome of a wake of %s was not recorded: %s", wake.subscription, error)
        except Exception:
            logger.exception("A wake of the subscription %s failed. It is tried again.", wake.subscription)
        self._woken.set()

    async def _call_webhook(self, wake: Wake) -> None:
        if self._sender is None:
            self._sender = WebhookSender(lambda: self._call(signing_keys.active_key, self._using))
        expires_at = wake.subscription.lease_expires_at
        assert expires_at is not None
        url, until = wake.subscription.webhook_url, clock.from_project(expires_at)
        result = await self._sender.send(WebhookRequest(url, body_of(wake), config().webhook_timeout, until))
        if result.outcome == "done":
            await self._call(outcomes.finish_delivery, wake, self._using)
        elif result.outcome == "accepted":
            await self._call(outcomes.confirm_delivery, wake, self._using)
        else:
            await self._fail(wake, result.error, is_certain=result.outcome == "failed")

    async def _write_event(self, wake: Wake) -> None:
        path = wake.subscription.wake_stream
        try:
            info = (await self._engine.read(path)).info
            data = content.pack(info.content_type, wake_event(wake))
            await self._engine.write(Append(path, info.content_type, data, stream_id=info.id))
        except DurableStreamsError as error:
            await self._fail(wake, f"The wake event was not written to {path}: {error}", is_certain=True)
        else:
            await self._call(outcomes.confirm_delivery, wake, self._using)

    async def _fail(self, wake: Wake, error: str, *, is_certain: bool) -> None:
        logger.info("A wake of the subscription %s was not delivered: %s", wake.subscription, error)
        async with self._failing:
            await self._call(outcomes.fail_delivery, wake, error, self._using, is_certain=is_certain)
