"""An event loop in a thread of its own, for synchronous code that waits on what is asynchronous here.

No finaliser waits for it. The garbage collector finalises what was abandoned in whatever thread it happens to run, that
of the loop among them, and that thread may hold any lock: it may only leave word.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from threading import Lock, Thread, current_thread
from typing import Any, TypeVar

T = TypeVar("T")

_loop: asyncio.AbstractEventLoop | None = None
_thread: Thread | None = None
_lock = Lock()
_closing: set[asyncio.Task[None]] = set()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the loop, wait for it, and return its value.

    Raises:
        RuntimeError: the one who calls is a thread that the coroutine needs, or that cannot wait any more.
    """
    if current_thread() is _thread or sys.is_finalizing():
        work.close()
        raise RuntimeError("Nothing can be waited for here: in the thread of the background loop, or as Python ends.")
    future = asyncio.run_coroutine_threadsafe(work, loop())
    try:
        return future.result()
    except BaseException:  # such as a KeyboardInterrupt of the one who waits
        future.cancel()
        raise


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


def _post(used: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Have a coroutine run in the loop at some time, if that still runs. Takes no lock, and waits for nothing."""

    def begin() -> None:
        task = used.create_task(make())
        _closing.add(task)
        task.add_done_callback(_closing.discard)

    if used is not _loop or sys.is_finalizing():  # another process's, by a fork; or the thread runs no more
        return
    try:
        used.call_soon_threadsafe(begin)
    except RuntimeError:  # it was closed
        pass


def _forget() -> None:
    global _loop, _thread, _lock
    _loop = _thread = None
    _lock = Lock()
    _closing.clear()


# Threads do not survive a fork, so a child makes a loop of its own.
os.register_at_fork(after_in_child=_forget)
