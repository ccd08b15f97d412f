"""Coroutines taken by hand, where a task or a timer for each would take longer than what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from types import CoroutineType, coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start(sending: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run a coroutine up to where it has to wait, and return the rest of it, or None if it came to its end."""
    try:
        waits_for = sending.send(None)
    except StopIteration:
        return None
    return resume(sending, waits_for)


def begun(waiting: Awaitable[None]) -> Awaitable[None] | None:
    """Begin to await something, and return the rest of it, or None if it did not have to wait."""
    return start(waiting) if isinstance(waiting, CoroutineType) else waiting


async def within(seconds: float, waiting: Awaitable[T]) -> T:
    """Await something for so many seconds. What need not wait takes no timer.

    Raises:
        TimeoutError: the time is up. What was awaited is cancelled.
    """
    if isinstance(waiting, CoroutineType):
        try:
            waits_for = waiting.send(None)
        except StopIteration as done:
            value: T = done.value
            return value
        waiting = resume(waiting, waits_for)
    async with asyncio.timeout(seconds):
        return await waiting


@coroutine
def resume(started: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    """Await the rest of a coroutine that was started by hand and has stopped at `waits_for`."""
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:
                waits_for = started.throw(error)
            else:
                waits_for = started.send(value)
    except StopIteration as done:
        return done.value
