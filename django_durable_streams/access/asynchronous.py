"""Calls of a project's asynchronous permissions: what they raise, and the database connections that they use.

Such a method queries by Django's asynchronous methods, whose thread keeps its connection. Django drops broken
connections at the beginning and the end of each request that passes through it. Requests for streams do not. A method
that is refused a query may hide that and deny the action, so denials are followed by a look at these connections.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.db import Error, router

from ..models import Stream
from ..protocol.errors import ServiceUnavailable
from ..runtime.database_errors import may_pass
from ..runtime.monitor import monitor_for
from ..runtime.project_connections import close_other_connections
from ..runtime.results import as_failure
from . import workers

logger = logging.getLogger("django_durable_streams.access")

LOOK_SECONDS = 1.0
"""Time between two looks at the connections after denials, of which there may be many."""

_next_look = 0.0


async def answer_of(method: Callable[[], Any], first: Awaitable[Any] | None = None) -> Any:
    """Return the answer of a permission's asynchronous method, which is called again if its connection was lost.

    Args:
        method: the method with its arguments.
        first: what it has returned, if it was called already.

    Raises:
        ServiceUnavailable: the database does not answer, or the method does not within `ANSWER_SECONDS` (503).
    """
    try:
        answer = await _ask_in_time(method, first)
    except Exception:
        await _drop_broken()
        raise
    if answer is not True:
        await _drop_broken()
    return answer


async def _ask_in_time(method: Callable[[], Any], first: Awaitable[Any] | None) -> Any:
    try:
        async with asyncio.timeout(workers.ANSWER_SECONDS) as deadline:
            return await _ask(method, first)
    except TimeoutError:
        if not deadline.expired():  # the method has raised it
            raise
        raise workers.no_answer() from None


async def _ask(method: Callable[[], Any], first: Awaitable[Any] | None) -> Any:
    monitor = monitor_for(router.db_for_write(Stream))
    if first is None and not monitor.answers:  # all such queries have one thread, and may wait there for long
        raise monitor.refusal()
    try:
        return await _contain(method() if first is None else first)
    except Error as error:
        if not may_pass(error):
            raise
    await _close_broken()
    try:
        return await _contain(method())
    except Error as error:
        if not may_pass(error):
            raise
        await _close_broken()
        logger.error("The permission of a request cannot be checked: %s", error)
    raise ServiceUnavailable("The permission cannot be checked at present. Try again.")


async def _drop_broken() -> None:
    """Close the connections of asynchronous methods that an error has broken, now and then."""
    global _next_look
    now = time.monotonic()
    if now >= _next_look:
        _next_look = now + LOOK_SECONDS
        await _close_broken()


async def _close_broken() -> None:
    await sync_to_async(close_other_connections)(only_broken=True)


async def _contain(answer: Awaitable[Any]) -> Any:
    """Await a project's code, which must not end the event loop, and cancels this request only if it is cancelled."""
    try:
        return await answer
    except (Exception, GeneratorExit):
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise as_failure(error) from error
    except BaseException as error:
        raise as_failure(error) from error
