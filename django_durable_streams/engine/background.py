"""An event loop in a thread of its own, for synchronous code that waits on what is asynchronous here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Coroutine, Iterator
from threading import Lock, Thread
from typing import Any, TypeVar

T = TypeVar("T")

_loop: asyncio.AbstractEventLoop | None = None
_lock = Lock()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in the loop, wait for it, and return its value."""
    future = asyncio.run_coroutine_threadsafe(work, _running_loop())
    try:
        return future.result()
    except BaseException:  # such as a KeyboardInterrupt of the one who waits
        future.cancel()
        raise


def iterate(values: AsyncGenerator[T, None]) -> Iterator[T]:
    """Yield what an asynchronous generator yields in the loop, and close it in the end."""
    end = object()
    step: asyncio.Task[Any] | None = None

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
    finally:
        run(close())


def _running_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            Thread(target=_loop.run_forever, name="durable-streams-loop", daemon=True).start()
        return _loop


def _forget() -> None:
    global _loop, _lock
    _loop = None
    _lock = Lock()


# Threads do not survive a fork, so a child makes a loop of its own.
os.register_at_fork(after_in_child=_forget)
