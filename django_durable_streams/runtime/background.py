"""The background loop: an event loop in a thread of its own, for synchronous code that waits for asynchronous code.

Finalisers never wait for the loop. The garbage collector runs them in any thread, also in the loop's own, and that
thread may hold any lock. A finaliser therefore only posts a call to the loop. Knows no stream.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import Future
from threading import Lock, Thread, current_thread
from typing import Any, TypeVar

from . import execution

logger = logging.getLogger(__name__)

T = TypeVar("T")

_loop: asyncio.AbstractEventLoop | None = None
_thread: Thread | None = None
_lock = Lock()
_running_tasks: set[asyncio.Task[None]] = set()
"""Event loops hold their tasks by weak references only."""


def run(work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """Run a coroutine in the background loop, wait for it, and return its value.

    Args:
        work: the coroutine.
        timeout: seconds to wait at most, also for a loop that code of the project blocks. None: no limit.

    Raises:
        RuntimeError: the calling thread may not wait: the coroutine needs this thread, or Python is ending.
        TimeoutError: the time is over. The coroutine is cancelled when the loop goes on.
    """
    try:
        _check_may_wait()
        used_loop = loop()
        if used_loop is asyncio._get_running_loop():
            raise RuntimeError(
                "This call would block the event loop that it waits for. Use the method with an a in front."
            )
        future = asyncio.run_coroutine_threadsafe(work, used_loop)
    except RuntimeError:
        work.close()
        raise
    try:
        return future.result(timeout)
    except BaseException:  # for example a KeyboardInterrupt in the waiting thread
        future.cancel()
        raise


def wait(future: Future[T]) -> T:
    """Wait for a future that the background loop resolves, and return its value.

    Raises:
        RuntimeError: as for `run`.
    """
    _check_may_wait()
    return future.result()


async def arrival(future: Future[T]) -> T:
    """Await a future of the background loop in another event loop. That loop may be closed before the result comes."""
    waiting_loop = asyncio.get_running_loop()
    arrived = waiting_loop.create_future()

    def wake_waiter(_: object) -> None:
        try:
            waiting_loop.call_soon_threadsafe(_set, arrived)
        except RuntimeError:  # the loop was closed, so nothing waits any more
            pass

    future.add_done_callback(wake_waiter)
    await arrived
    return future.result()


def _set(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


def _check_may_wait() -> None:
    if current_thread() is _thread or sys.is_finalizing():
        raise RuntimeError(
            "This thread cannot wait for the background loop: it is the loop's own thread, or Python is ending."
        )


def iterate(values: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Yield the values of an asynchronous generator that runs in the background loop.

    The generator is closed soon after the iterator ends, not before: the garbage collector may close the iterator.

    Raises:
        RuntimeError: as for `run`.
    """
    end = object()
    used_loop = loop()
    step: asyncio.Task[Any] | None = None
    is_over = False

    async def advance() -> Any:
        nonlocal step
        step = asyncio.current_task()
        return await anext(values, end)

    async def close() -> None:
        if step is not None and not step.done():
            step.cancel()
            await asyncio.wait([step])
        await values.aclose()

    try:
        while (value := run(advance())) is not end:
            yield value
        is_over = True
    finally:
        if not is_over:
            _post(used_loop, close)


def loop() -> asyncio.AbstractEventLoop:
    """Return the background loop, which runs. Inline (see `execution`), return the loop that runs here, if any.

    Raises:
        RuntimeError: there are too many threads, or Python is ending.
    """
    global _loop, _thread
    if execution.is_inline() and (running := asyncio._get_running_loop()) is not None:
        return running
    with _lock:
        if _loop is None:
            new_loop = asyncio.new_event_loop()
            thread = Thread(target=_run_forever, args=(new_loop,), name="durable-streams-loop", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                new_loop.close()
                raise
            _loop, _thread = new_loop, thread
        return _loop


def _run_forever(new_loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped."""
    while not new_loop.is_closed():
        try:
            new_loop.run_forever()
            return
        except BaseException:  # a task has raised SystemExit, and other tasks wait in the same loop
            logger.exception("A task has stopped the background loop, which goes on.")


def run_to_end(work: Coroutine[Any, Any, None]) -> None:
    """Start a coroutine in the event loop that runs here. It runs to its end, also if nothing refers to it."""
    task = asyncio.get_running_loop().create_task(work)
    _running_tasks.add(task)
    task.add_done_callback(_running_tasks.discard)


def _post(used_loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine in the background loop later, if the loop still runs. Takes no lock, and waits for nothing."""
    if used_loop is not _loop or sys.is_finalizing():  # the loop of a parent process, or a thread that Python ended
        return
    try:
        used_loop.call_soon_threadsafe(lambda: run_to_end(make()))
    except RuntimeError:  # the loop was closed
        pass


def _forget() -> None:
    global _loop, _thread, _lock
    _loop = _thread = None
    _lock = Lock()
    _running_tasks.clear()


# Threads do not survive a fork, so a child process makes a loop of its own.
os.register_at_fork(after_in_child=_forget)
