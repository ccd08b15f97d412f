"""Sending by ASGI messages, each of which a client has SEND_TIMEOUT to take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ..conf import config
from ..protocol.messages import ENDING_SECONDS, Response
from .answers import EventStream
from .coroutines import begun, start
from .event_stream import Outlet
from .lifespan import Message, Send

PIECE_BYTES = 64 * 1024
"""How much is sent at a time. So long as a client takes one piece after the other, it has all the time it needs."""


def messages_of(response: Response) -> tuple[Message, Message]:
    """Return what a response is in ASGI."""
    return (
        # A list of its own: whatever stands between here and the server may add to it.
        {"type": "http.response.start", "status": response.status, "headers": [*response.headers]},
        {"type": "http.response.body", "body": response.body},
    )


def sends_at_once(send: Send) -> bool:
    """Whether a send may be started outside the task of its request.

    uvicorn's may: it writes to the transport, and knows nothing of the task that calls it.
    """
    return type(getattr(send, "__self__", None)).__module__.startswith("uvicorn.")


async def send_response(send: Send, response: Response) -> None:
    """Send a whole response.

    Raises:
        OSError: the client takes nothing, or has left.
    """
    start, body = messages_of(response)
    rest = begun(send(start))
    if rest is not None:
        await Sender(send).finish(rest)
    if len(response.body) > PIECE_BYTES:
        await Sender(send).send_body(response.body, more_body=False)
        return
    rest = begun(send(body))
    if rest is not None:
        await Sender(send).finish(rest)


class Sender:
    """Sends messages to a client that has to take each in time.

    Methods raise OSError where the client takes nothing, or has left.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._seconds = config().send_timeout
        self._timeout: asyncio.Timeout | None = None

    async def send(self, message: Message) -> None:
        """Send a message."""
        rest = begun(self._send(message))
        if rest is not None:
            await self.finish(rest)

    async def send_body(self, body: bytes, *, more_body: bool) -> None:
        """Send a body, or a part of it, in pieces."""
        for begin in range(0, len(body), PIECE_BYTES):
            more = more_body or begin + PIECE_BYTES < len(body)
            piece = body[begin : begin + PIECE_BYTES]
            await self.send({"type": "http.response.body", "body": piece, "more_body": more})

    async def finish(self, rest: Awaitable[None]) -> None:
        """Finish a send that was begun."""
        try:
            async with asyncio.timeout(self._seconds) as self._timeout:
                await rest
        except TimeoutError as error:
            self._cut_off()
            raise BrokenPipeError("The client takes nothing of what it is sent.") from error
        finally:
            self._timeout = None

    def hurry(self) -> None:
        """The server is about to end: nobody waits long for a client that takes nothing."""
        self._seconds = min(self._seconds, ENDING_SECONDS)
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time() + self._seconds)

    def _cut_off(self) -> None:
        """Close the connection at once, where it can be got at: what was sent would be kept for it otherwise."""
        transport = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is not None and sends_at_once(self._send):
            transport.abort()


class AsgiOutlet(Outlet):
    """Sends an event stream by ASGI messages."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sender = Sender(send)
        self.is_immediate = sends_at_once(send)

    async def begin(self, response: EventStream) -> None:
        message: Message = {"type": "http.response.start", "status": response.status, "headers": response.headers}
        await self._sender.send(message)

    def push(self, chunk: bytes) -> Awaitable[None] | None:
        if len(chunk) > PIECE_BYTES:
            return self._sender.send_body(chunk, more_body=True)
        message: Message = {"type": "http.response.body", "body": chunk, "more_body": True}
        if not self.is_immediate:
            return self._sender.send(message)
        rest = start(self._send(message))
        return None if rest is None else self._sender.finish(rest)

    def hurry(self) -> None:
        self._sender.hurry()

    async def end(self) -> None:
        await self._sender.send({"type": "http.response.body", "body": b""})
