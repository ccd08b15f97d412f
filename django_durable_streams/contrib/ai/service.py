"""The answers of one database in this process: writes them, keeps their leases, and takes over what others have lost.

Everything here runs in the background loop, but for the calls that begin it. One query for all answers of the process
extends their leases, and tells which were stopped. A wake-up message makes that at once, and a poll makes up for lost
messages. Any process that serves streams looks from time to time for answers whose process has vanished.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from contextlib import suppress
from contextvars import Context
from typing import Any
from uuid import UUID

from ...conf import config
from ...engine import Engine, engine_for
from ...engine.announcements import wakeup_for
from ...engine.wakeup.base import Subscriber, WakeUpMessage
from ...protocol.errors import DurableStreamsError
from ...runtime import background, execution
from ...runtime.log_once import LogOnce
from ...runtime.process_objects import ProcessObjects
from ...subscriptions.service import service_for
from . import leases, rows
from .pace import Pace
from .running import RunningAnswer
from .sources import Source
from .task_queue import enqueue
from .wakeups import RUNS_CHANNEL, set_local_runner

logger = logging.getLogger(__name__)

RECEIVING_INTERVAL = 2.0
"""How often to look for stops and queued runs while wake-up messages arrive, in seconds."""

FAILURE_PAUSE = 1.0
WARNING_SECONDS = 60.0

HANDOVER_SECONDS = 4.0
"""How long the end of the process waits for its answers to be handed over or ended."""

BLOCKED_SECONDS = 1.0
"""How much longer it waits for the background loop, which a source that does not await may block."""


def _call_in_loop(function: Any, *arguments: Any) -> None:
    """Call a function in the background loop, in a context of its own: that of the caller's request ends with it."""
    background.loop().call_soon_threadsafe(function, *arguments, context=Context())


class AnswerService:
    """The answers that this process writes, and its looks at those that nobody writes.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        self.using = using
        self.holder = f"{os.getpid()}-{secrets.token_hex(8)}"
        self.takes_queue = False
        """Whether this process takes runs that wait for a worker."""
        self._answers: dict[UUID, RunningAnswer] = {}
        self._pace = Pace()
        self._tasks: set[asyncio.Task[None]] = set()
        self._claims = 0
        """Claims of runs that are on their way to the database."""
        self._settling: dict[UUID, asyncio.Task[None]] = {}
        self._is_behind = self._has_settled = False
        self._keeper: asyncio.Task[None] | None = None
        self._watches = False
        self._woken = asyncio.Event()
        self._subscriber: Subscriber | None = None
        self._renew_at = 0.0
        self._has_written = False
        self._failures = LogOnce(WARNING_SECONDS)

    # For any thread.

    @property
    def has_room(self) -> bool:
        """Whether this process may write one more answer. Starts at the same moment may exceed the limit a little."""
        most = config().ai_max_runs
        return not most or len(self._tasks) + self._claims < most

    def launch(self, held: rows.Held, source: Source | None) -> None:
        """Write the answer of a run, in the background loop."""
        _call_in_loop(self._launch, held, source)

    def watch(self, *, takes_queue: bool = False) -> None:
        """Look for runs that nobody writes, as long as the process runs."""
        self.takes_queue = self.takes_queue or takes_queue
        self._watches = True
        _call_in_loop(self._keep_going)

    def wake(self) -> None:
        """Look now."""
        with suppress(RuntimeError):  # the loop was closed, which happens in tests only
            _call_in_loop(self._woken.set)

    def stop(self) -> None:
        """Hand the answers over, or end them, before the process ends. Waits some seconds."""
        self._watches = False
        set_local_runner(self.using, None)
        try:
            background.run(self._end(), HANDOVER_SECONDS + BLOCKED_SECONDS)
        except TimeoutError:
            logger.warning("The answers of this process were not handed over in time. Others end them after AI_LEASE.")
        except RuntimeError:  # this is the background loop's own thread, or Python ends
            pass

    # In the background loop.

    def receive(self, stream_id: int, message: WakeUpMessage) -> None:
        """Another process has news about a run."""
        self._woken.set()

    def poll_all(self) -> None:
        """Messages may have been lost."""
        self._woken.set()

    @property
    def count(self) -> int:
        """The number of answers that this process writes."""
        return len(self._answers)

    async def write(self, held: rows.Held, source: Source | None = None) -> None:
        """Write the answer of a run to its end, while this process keeps its lease."""
        answer = RunningAnswer(held, source, self._call, self.using)
        answer.pace = lambda: self._pace.interval(len(self._answers))
        self._answers[held.run.pk] = answer
        self._has_written = True
        if len(self._answers) == 1:  # without one, the keeper sleeps for half of a lease
            self._woken.set()
        self._keep_going()
        try:
            await answer.write()
        finally:
            if self._answers.get(held.run.pk) is answer:
                del self._answers[held.run.pk]

    async def take(self, run_id: UUID) -> bool:
        """Take a run, if it waits for a process, and write it to its end. Return whether there was one to take."""
        held = await self._call(rows.claim, run_id, self.holder, self.using)
        if held is not None:
            await self.write(held)
        return held is not None

    def _launch(self, held: rows.Held, source: Source | None) -> None:
        self._start(self.write(held, source))

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)

    def _forget_task(self, task: asyncio.Task[None]) -> None:
        was_full = not self.has_room
        self._tasks.discard(task)
        if was_full and self._watches:
            self._woken.set()

    async def _call(self, function: Any, *arguments: Any, **options: Any) -> Any:
        return await service_for(self.using).call(function, *arguments, **options)

    def _keep_going(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        try:
            await self._subscribe()
        except Exception:  # a poll makes up for messages
            logger.exception("The answers get no wake-ups. Check WAKEUP.")
        while self._answers or self._watches:
            self._woken.clear()
            pause = await self._look()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), pause)
        if self._subscriber is not None:
            self._subscriber.close()
            self._subscriber = None

    async def _subscribe(self) -> None:
        set_local_runner(self.using, self.wake)
        wakeup = wakeup_for(self.using)
        if wakeup.carries_messages and self._subscriber is None:
            self._subscriber = wakeup.subscriber(self)
            if self._subscriber is not None:
                await self._subscriber.subscribe(RUNS_CHANNEL)

    async def _look(self) -> float:
        """Look at the rows, do what they ask for, and return the seconds until the next look."""
        try:
            if self._answers:
                await self._keep_leases()
            pause = await self._take_over() if self._watches else self._interval()
            return min(pause, self._interval()) if self._answers else pause
        except DurableStreamsError as error:
            if self._failures.is_due():
                logger.warning("The answers could not use the database, and try again: %s", error)
        except Exception:  # the keeper must outlive every bug
            if self._failures.is_due():
                logger.exception("The look at the answers has failed. It is tried again.")
        return FAILURE_PAUSE

    def _interval(self) -> float:
        is_receiving = self._subscriber is not None and self._subscriber.is_receiving
        return min(RECEIVING_INTERVAL if is_receiving else config().poll_interval, config().ai_lease / 4)

    async def _keep_leases(self) -> None:
        """Extend the leases of this process's answers when it is time, and stop those that have to stop."""
        loop = asyncio.get_running_loop()
        before = dict(self._answers)
        if loop.time() >= self._renew_at:
            notices = await self._call(leases.renew, self.holder, [*before], self.using)
            self._renew_at = loop.time() + config().ai_lease / 4
        else:
            notices = await self._call(leases.look, self.holder, self.using)
        for run_id, answer in before.items():
            notice = notices.get(run_id)
            if notice is None or notice.epoch != answer.run.epoch:
                answer.leave()
            elif notice.stop_requested:
                answer.stop()

    async def _take_over(self) -> float:
        """Take or close the runs that nobody writes, and return the seconds until the next look for such runs.

        Each has a task of its own. One whose rows a long transaction holds, or that fails each time, delays neither the
        others nor the leases of this process.
        """
        runs = await self._call(leases.find_waiting, self.using, queued=self.takes_queue and self.has_room)
        self._is_behind = len(runs.waiting) == leases.PORTION
        for waiting in runs.waiting:
            if waiting.id not in self._settling:
                task = asyncio.get_running_loop().create_task(self._settle_surely(waiting))
                self._settling[waiting.id] = task
        pause = self._interval() if self.takes_queue else config().ai_lease / 2
        return pause if runs.next_end is None else min(pause, runs.next_end + 0.01)

    async def _settle_surely(self, waiting: leases.Waiting) -> None:
        try:
            if await self._settle(waiting):
                self._has_settled = True
        except Exception as error:
            if self._failures.is_due():
                logger.warning("The answer %s could not be taken or closed, and is tried again: %s", waiting.id, error)
        finally:
            del self._settling[waiting.id]
            if not self._settling and self._has_settled:
                self._has_settled = False
                if self._is_behind:
                    self._woken.set()

    async def _settle(self, waiting: leases.Waiting) -> bool:
        """Take or close a run. Return whether that was possible."""
        if await self._call(rows.close_lost, waiting.id, self.using):
            return True
        if waiting.is_stopped:
            return False
        if self.takes_queue or (not waiting.is_queued and config().ai_runs_in == "process"):
            return await self._claim(waiting.id)
        if config().ai_runs_in == "tasks" and not waiting.is_queued:
            is_queued = await self._call(rows.queue_again, waiting.id, self.using)
            if is_queued:
                await asyncio.to_thread(enqueue, str(waiting.id))
            return bool(is_queued)
        return False

    async def _claim(self, run_id: UUID) -> bool:
        """Take a run and begin to write it, if there is room. Return whether it was taken."""
        if not self.has_room:
            return False
        self._claims += 1
        try:
            held = await self._call(rows.claim, run_id, self.holder, self.using)
            if held is not None:
                self._launch(held, None)
        finally:
            self._claims -= 1
        return held is not None

    async def _end(self) -> None:
        for task in [*self._settling.values()]:
            task.cancel()
        try:
            async with asyncio.timeout(HANDOVER_SECONDS):
                await self._hand_over()
        finally:
            for task in self._tasks:  # their leases end, and others close their answers
                task.cancel()
            if self._keeper is not None:
                self._keeper.cancel()
            if self._subscriber is not None:
                self._subscriber.close()
                self._subscriber = None

    async def _hand_over(self) -> None:
        for answer in list(self._answers.values()):
            answer.interrupt()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
        if self._has_written:
            with suppress(DurableStreamsError):
                await self._call(leases.give_up, self.holder, self.using)


_services = ProcessObjects[AnswerService](before_engines=True)
"""Their end hands answers over, which takes the engines."""


def answers_of(using: str) -> AnswerService:
    """Return this process's service for the answers of a database. The first call makes it."""
    engine_for(using)  # which ends with the services
    return _services.get(using, lambda: AnswerService(using))


def start_with_engine(engine: Engine) -> None:
    """Look for lost answers in this process. Called when the process has made an engine."""
    if not execution.is_inline():
        _services.get(engine.using, lambda: AnswerService(engine.using)).watch()
