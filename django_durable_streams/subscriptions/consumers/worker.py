"""A worker: a thread that runs consumers of one database until it is stopped.

It looks at the database when a wake-up message tells of a commit to a linked stream, when an attempt is due, and every
`POLL_INTERVAL`, as the delivery of other subscriptions does. Any number of workers do this side by side.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from threading import Event, Thread

from django.db import Error, reset_queries

from ...conf import config
from ...engine.announcements import wakeup_for
from ...engine.wakeup.base import DELIVERY_CHANNEL, Subscriber, WakeUpMessage
from ...protocol.errors import DurableStreamsError
from ...runtime import background
from ...runtime.log_once import LogOnce
from ...runtime.project_connections import close_other_connections
from .cursors import seconds_until_due
from .declarations import Consumer
from .isolation import forget_connections, prepare_connection, read_committed
from .lease_keeper import LeaseKeeper
from .runner import Report, Runner
from .subscribing import keep_pattern, link_existing, subscribe, unlinked

logger = logging.getLogger(__name__)

RECEIVING_INTERVAL = 2.0
"""How often to look at the database while wake-up messages arrive, in seconds."""

FAILURE_PAUSE = 1.0
"""Time until the next look after the database did not answer, in seconds."""

PATTERN_INTERVAL = 60.0
"""How often to make sure that the subscriptions have the patterns of this code, in seconds.

Another version of the code may have set others, and its workers may have ended since.
"""

HELD_UP_PAUSE = 0.05
"""Time until the next look after another transaction held a row, in seconds."""

WARNING_SECONDS = 60.0


class Worker:
    """Runs consumers of one database in a thread.

    Args:
        consumers: the consumers.
        using: alias of the database.
        report: gets the outcome of each batch, in the thread.
    """

    def __init__(
        self, consumers: Sequence[Consumer], using: str, report: Callable[[Report], None] | None = None
    ) -> None:
        self._consumers = consumers
        self._using = using
        self._report = report
        self._runner: Runner | None = None
        self._unlinked: list[int] = []
        self._next_pattern_check = 0.0
        self._woken = Event()
        self._is_stopping = False
        self._keeper = LeaseKeeper(using, min(consumer.lease for consumer in consumers))
        self._wakeups = _Wakeups(using, self._woken.set)
        self._failures = LogOnce(WARNING_SECONDS)
        self._thread = Thread(target=self._run, name=f"durable-streams-consumers-{using}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._wakeups.start()
        self._keeper.start()
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Let the thread end after the present batch. Does not wait."""
        self._is_stopping = True
        if self._runner is not None:
            self._runner.is_stopping = True
        self._woken.set()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread, and return whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._woken.clear()
                pause = self._step()
                reset_queries()
                if pause and not self._is_stopping:
                    self._woken.wait(pause)
        finally:
            self._keeper.stop()
            self._wakeups.stop()
            forget_connections()

    def _step(self) -> float:
        """Do the next piece of work, and return the seconds until the next look."""
        try:
            prepare_connection(self._using)
            close_other_connections(self._using)
            with read_committed(self._using):
                if self._runner is None:
                    self._runner = self._subscribe()
                elif time.monotonic() >= self._next_pattern_check:
                    self._keep_patterns(self._runner)
                if self._unlinked:
                    return self._link_existing()
            return 0.0 if self._runner.step() else self._idle_seconds(self._runner)
        except (Error, DurableStreamsError) as error:
            if self._failures.is_due():
                logger.warning("The consumers could not use the database, and try again: %s", error)
        except Exception:  # the worker must outlive every bug
            if self._failures.is_due():
                logger.exception("The consumers failed. They try again.")
        forget_connections()
        return FAILURE_PAUSE

    def _subscribe(self) -> Runner:
        by_subscription = {subscribe(consumer, self._using): consumer for consumer in self._consumers}
        self._unlinked = [*by_subscription]
        self._next_pattern_check = time.monotonic() + PATTERN_INTERVAL
        runner = Runner(by_subscription, self._using, hold=self._keeper.hold, report=self._report)
        runner.is_stopping = self._is_stopping
        return runner

    def _keep_patterns(self, runner: Runner) -> None:
        for consumer in self._consumers:
            keep_pattern(consumer, self._using)
        self._unlinked = unlinked(runner.consumers.keys(), self._using)
        self._next_pattern_check = time.monotonic() + PATTERN_INTERVAL

    def _link_existing(self) -> float:
        progress = link_existing(self._unlinked[-1], self._using)
        if progress.is_done:
            self._unlinked.pop()
        return progress.pause

    def _idle_seconds(self, runner: Runner) -> float:
        pause = RECEIVING_INTERVAL if self._wakeups.is_receiving else config().poll_interval
        due_in = seconds_until_due(runner.consumers.keys(), self._using)
        if runner.is_held_up:
            pause = min(pause, HELD_UP_PAUSE)
        return pause if due_in is None else min(max(due_in, 0.001), pause)


class _Wakeups:
    """Wakes a worker by the messages of all processes about commits to linked streams.

    Args:
        using: alias of the database.
        wake: lets the worker look at the database. Called in the background loop.
    """

    def __init__(self, using: str, wake: Callable[[], None]) -> None:
        self._wakeup = wakeup_for(using)
        self._wake = wake
        self._subscriber: Subscriber | None = None

    @property
    def is_receiving(self) -> bool:
        """Whether messages arrive now, as far as this can know."""
        return self._subscriber is not None and self._subscriber.is_receiving

    def start(self) -> None:
        """Receive messages from now on."""
        if self._wakeup.carries_messages:
            background.run(self._subscribe())

    def stop(self) -> None:
        """Receive no more messages."""
        if self._subscriber is not None:
            background.run(self._close(self._subscriber))

    def receive(self, stream_id: int, message: WakeUpMessage) -> None:
        """Wake the worker."""
        self._wake()

    def poll_all(self) -> None:
        """Wake the worker, because messages may have been lost."""
        self._wake()

    async def _subscribe(self) -> None:
        self._subscriber = self._wakeup.subscriber(self)
        if self._subscriber is not None:
            await self._subscriber.subscribe(DELIVERY_CHANNEL)

    async def _close(self, subscriber: Subscriber) -> None:
        subscriber.close()
        await asyncio.sleep(0)
