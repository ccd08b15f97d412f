"""An event loop in a thread of its own, for synchronous code that waits on what is asynchronous here.

No finaliser waits for it. The garbage collector finalises what was abandoned in whatever thread it happens to run, that
of the loop among them, and that thread may hold any lock: it may only leave word.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from threading import Lock, Thread, current_thread
from typing import Any, TypeVar

T = TypeVar("T")

_loop: asyncio.AbstractEventLoop | None = None
_thread: Thread | None = None
_lock = Lock()
_kept: set[asyncio.Task[None]] = set()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the loop, wait for it, and return its value.

    Raises:
        RuntimeError: the one who calls is a thread that the coroutine needs, or that cannot wait any more.
    """
    try:
        _check_may_wait()
        used = loop()
        if used is asyncio._get_running_loop():
            raise RuntimeError(
                "This waits in its thread, which a coroutine may not. Use the method with an a in front."
            )
        future = asyncio.run_coroutine_threadsafe(work, used)
    except RuntimeError:
        work.close()
        raise
    try:
        return future.result()
    except BaseException:  # such as a KeyboardInterrupt of the one who waits
        future.cancel()
        raise


def wait(future: Future[T]) -> T:
    """Wait for what the loop resolves.

    Raises:
        RuntimeError: as `run` does.
    """
    _check_may_wait()
    return future.result()


async def arrival(future: Future[T]) -> T:
    """Await what the loop resolves, in another event loop, which may be closed before."""
    waits_in = asyncio.get_running_loop()
    arrived = waits_in.create_future()

    def tell(_: object) -> None:
        try:
            waits_in.call_soon_threadsafe(_set, arrived)
        except RuntimeError:  # nobody waits any more
            pass

    future.add_done_callback(tell)
    await arrived
    return future.result()


def _set(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


def _check_may_wait() -> None:
    if current_thread() is _thread or sys.is_finalizing():
        raise RuntimeError("Nothing can be waited for here: in the thread of the background loop, or as Python ends.")


def iterate(values: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield what an asynchronous generator yields in the loop, and have it closed in the end.

    It is closed soon after, and not before this returns: the iterator may be closed by the garbage collector.
    """
    end = object()
    used = loop()
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
            _post(used, close)


def loop() -> asyncio.AbstractEventLoop:
    """Return the loop, which runs."""
    global _loop, _thread
    with _lock:
        if _loop is None:
            made = asyncio.new_event_loop()
            thread = Thread(target=made.run_forever, name="durable-streams-loop", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # Python is about to end, or there are too many threads
                made.close()
                raise
            _loop, _thread = made, thread
        return _loop


def keep(work: Coroutine[Any, Any, None]) -> None:
    """Have a coroutine run in the event loop that runs here, to its end."""
    task = asyncio.get_running_loop().create_task(work)
    _kept.add(task)
    task.add_done_callback(_kept.discard)


def _post(used: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have a coroutine run in the loop at some time, if that still runs. Takes no lock, and waits for nothing."""

    if used is not _loop or sys.is_finalizing():  # another process's, by a fork; or the thread runs no more
        return
    try:
        used.call_soon_threadsafe(lambda: keep(make()))
    except RuntimeError:  # it was closed
        pass


def _forget() -> None:
    global _loop, _thread, _lock
    _loop = _thread = None
    _lock = Lock()
    _kept.clear()


# Threads do not survive a fork, so a child makes a loop of its own.
os.register_at_fork(after_in_child=_forget)
