"""asyncio event loops whose time is virtual, and which hand over where a real one waits for sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from . import primitives
from .primitives import Waiters
from .scheduler import Scheduler


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop of a task. It has no sockets: what comes to it comes by `call_soon_threadsafe`.

    It is its own selector, as the base class calls what it waits with.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler
        self._selector = self
        self._process = scheduler.current.process if scheduler.current is not None else None
        self._was_woken = False
        self._waiters = Waiters()

    def time(self) -> float:
        return self._scheduler.now

    def select(self, timeout: float | None) -> list[object]:
        """Wait until somebody calls, or so long."""
        scheduler = self._scheduler
        if timeout is not None and timeout <= 0:
            scheduler.pause()
        elif not self._was_woken:
            self._waiters.wait(None if timeout is None else scheduler.now + timeout)
        self._was_woken = False
        return []

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Call a function in a task of its own."""
        future: asyncio.Future[Any] = self.create_future()

        def settle(result: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            try:
                outcome = function(*args), None
            except Exception as error:
                outcome = None, error
            try:
                self.call_soon_threadsafe(settle, *outcome)
            except RuntimeError:
                pass  # the loop has ended

        current = self._scheduler.current
        assert current is not None
        current.process.spawn(work, "executor")
        return future

    def call_exception_handler(self, context: Any) -> None:
        """Say what went wrong, unless the process is no more: what it leaves behind says that it was not finished."""
        if self._process is None or not self._process.is_dead:
            super().call_exception_handler(context)

    def _write_to_self(self) -> None:
        self._was_woken = True
        self._waiters.wake()
        task = primitives.scheduler.current
        if task is not None and not task.process.is_dead:
            primitives.scheduler.pause()

    def _process_events(self, events: list[object]) -> None:
        """There are none."""
