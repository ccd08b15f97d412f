"""Coroutines driven by hand.

The invariant: whoever starts a coroutine here awaits the rest of it, or gets None because it has ended. Most sends and
permission checks end without a wait. A task or a timer for each takes longer than their work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from types import CoroutineType, coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start(work: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Run a coroutine to its first wait. Return the rest of it, or None if it has ended."""
    try:
        waits_for = work.send(None)
    except StopIteration:
        return None
    return resume(work, waits_for)


def start_if_coroutine(awaitable: Awaitable[None]) -> Awaitable[None] | None:
    """Start an awaitable. Return the rest of it, or None if it has ended. Only a coroutine can be started by hand."""
    return start(awaitable) if isinstance(awaitable, CoroutineType) else awaitable


async def within(seconds: float, awaitable: Awaitable[T]) -> T:
    """Await something for so many seconds. There is no timer for a coroutine that ends without a wait.

    Raises:
        TimeoutError: the time is over, and the awaitable is cancelled.
    """
    if isinstance(awaitable, CoroutineType):
        try:
            waits_for = awaitable.send(None)
        except StopIteration as done:
            value: T = done.value
            return value
        awaitable = resume(awaitable, waits_for)
    async with asyncio.timeout(seconds):
        return await awaitable


def end_wait(future: asyncio.Future[None]) -> None:
    """Set a future that only says that something has happened, unless it is done."""
    if not future.done():
        future.set_result(None)


@coroutine
def resume(started: Coroutine[Any, Any, Any], waits_for: Any) -> Any:
    """Await the rest of a coroutine that was started by hand, and that waits for `waits_for`."""
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
