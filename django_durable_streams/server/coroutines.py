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


def start_for_value(awaitable: Awaitable[T]) -> tuple[Any, Awaitable[T] | None]:
    """Start an awaitable. Return its value and None if it has ended, otherwise None and the rest of it."""
    try:
        if isinstance(awaitable, CoroutineType):
            waits_for = awaitable.send(None)
            return None, resume(awaitable, waits_for)
        # Some servers have awaitables of their own, most of which have ended already.
        iterator = awaitable.__await__()
        waits_for = next(iterator)
    except StopIteration as done:
        return done.value, None
    return None, resume(iterator, waits_for)


def end_wait(future: asyncio.Future[None]) -> None:
    """Set a future that only says that something has happened, unless it is done."""
    if not future.done():
        future.set_result(None)


@coroutine
def resume(started: Any, waits_for: Any) -> Any:
    """Await the rest of a coroutine, or of an awaitable's iterator, that was started and waits for `waits_for`."""
    send = getattr(started, "send", None)
    try:
        while True:
            try:
                value = yield waits_for
            except BaseException as error:
                if not hasattr(started, "throw"):  # an iterator needs nothing but `__next__`
                    raise
                waits_for = started.throw(error)
            else:
                waits_for = send(value) if send is not None else next(started)
    except StopIteration as done:
        return done.value
