"""The ASGI lifespan: ours, and that of the application behind the streams.

A server runs one lifespan for all applications. An application behind the streams, such as Starlette's, opens its pools
in it, and fills the state of its requests. An application without a lifespan, such as Django's, raises an exception.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from ..engine.engine import engine_for, stop_engines
from ..engine.startup import check_startup
from ..runtime.shutdown import has_readers_elsewhere, stop_readers_of

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

STARTUP, SHUTDOWN = "lifespan.startup", "lifespan.shutdown"

RETURN_SECONDS = 1.0
"""How long an application may go on after its last message."""

_runs = 0
"""Servers of this process that have started and not shut down."""


async def serve_lifespan(application: Application | None, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a server's lifespan messages, after the application behind the streams."""
    global _runs
    inner = _InnerLifespan(application, scope) if application is not None else None
    try:
        await receive()
        answer = await _start(inner)
        if answer["type"] != STARTUP + ".complete":
            await send(answer)
            return
        _runs += 1
        try:
            await send(answer)
            await receive()
        finally:
            _runs -= 1
        loop = asyncio.get_running_loop()
        stop_readers_of(loop)
        # The application comes first: it may still write to streams.
        answer = await inner.send(SHUTDOWN) if inner is not None else {"type": SHUTDOWN + ".complete"}
        if _runs == 0 and not has_readers_elsewhere(loop):  # another server of this process needs the engines
            await asyncio.to_thread(stop_engines)
        await send(answer)
    finally:
        if inner is not None:
            await inner.end()


async def _start(inner: _InnerLifespan | None) -> Message:
    try:
        await asyncio.to_thread(check_startup)
    except ImproperlyConfigured as error:
        return {"type": STARTUP + ".failed", "message": str(error)}
    answer = await inner.send(STARTUP) if inner is not None else {"type": STARTUP + ".complete"}
    if answer["type"] == STARTUP + ".complete":
        await asyncio.to_thread(engine_for().check_setup)
    return answer


class _InnerLifespan:
    """The lifespan of one application. It has a task of its own, because its contexts may belong to a task."""

    def __init__(self, application: Application, scope: Scope) -> None:
        self._application = application
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._answer: asyncio.Future[Message] | None = None
        self._task = asyncio.create_task(self._run(scope))

    async def send(self, kind: str) -> Message:
        """Send a message and return the answer. An application that has ended agrees."""
        answer = self._answer = asyncio.get_running_loop().create_future()
        self._messages.put_nowait({"type": kind})
        await asyncio.wait([self._task, answer], return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else {"type": kind + ".complete"}

    async def end(self) -> None:
        """Wait RETURN_SECONDS for the application to return, then cancel it."""
        await asyncio.wait([self._task], timeout=RETURN_SECONDS)
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, scope: Scope) -> None:
        try:
            await self._application(scope, self._messages.get, self._send)
        except Exception as error:
            if self._answer is None or self._answer.done() or not self._messages.empty():
                # It took no message, or has answered all of them. So an application says that it has no lifespan.
                logger.debug("The application behind the streams ended its lifespan: %r", error)
            else:
                logger.warning("The application behind the streams failed in its lifespan.", exc_info=True)

    async def _send(self, message: Message) -> None:
        if self._answer is None or self._answer.done():
            raise RuntimeError(f"The server did not ask for {message['type']}.")
        self._answer.set_result(message)
