"""Sends responses by ASGI messages. A client has SEND_TIMEOUT to take each message.

Knows responses and ASGI. The handlers that made the responses are unknown here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from ..conf import config
from ..protocol.messages import ENDING_SECONDS, Response
from .answers import EventStream
from .coroutines import start, start_for_value
from .event_stream import Outlet
from .lifespan import Message, Send
from .response_memory import PIECE_BYTES, Transfer, memory
from .transports import find_abort, is_uvicorn


def messages_of(response: Response) -> tuple[Message, Message]:
    """Return the two ASGI messages of a response."""
    return (
        # The list is a copy: a middleware between here and the server may add to it.
        {"type": "http.response.start", "status": response.status, "headers": [*response.headers]},
        {"type": "http.response.body", "body": response.body},
    )


def sends_at_once(send: Send) -> bool:
    """Return whether a send may be started outside the task of its request.

    uvicorn's may: it writes to the transport, and does not use the task that calls it.
    """
    return is_uvicorn(send)


async def send_response(send: Send, response: Response) -> None:
    """Send a whole response.

    Raises:
        OSError: the client takes no data, or has left.
        ServiceUnavailable: there is no room for a long body, and nothing was sent.
    """
    head, body = messages_of(response)
    if len(response.body) > PIECE_BYTES:
        sender = Sender(send)
        with memory.counted(response.body, sender.cut_off, may_refuse=True) as transfer:
            await sender.send(head)
            await sender.send_pieces(transfer, more_body=False)
        return
    for message in (head, body):
        _, rest = start_for_value(send(message))
        if rest is not None:
            await Sender(send).finish(rest)


class Sender:
    """Sends messages to a client that has SEND_TIMEOUT to take each of them.

    Methods raise OSError where the client takes no data, or has left.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._seconds = config().send_timeout
        self._timeout: asyncio.Timeout | None = None

    async def send(self, message: Message, pieces: int = 1) -> None:
        """Send a message. The client has SEND_TIMEOUT for each of so many pieces that it has to take before."""
        _, rest = start_for_value(self._send(message))
        if rest is not None:
            await self.finish(rest, pieces)

    async def send_part(self, part: bytes) -> None:
        """Send a part of a body in pieces. More follows."""
        with memory.counted(part, self.cut_off) as transfer:
            await self.send_pieces(transfer, more_body=True)

    async def send_pieces(self, transfer: Transfer[bytes], *, more_body: bool) -> None:
        """Send the data of a transfer in pieces."""
        data = transfer.data
        for first in range(0, len(data), PIECE_BYTES):
            more = more_body or first + PIECE_BYTES < len(data)
            piece = data[first : first + PIECE_BYTES]
            await self.send({"type": "http.response.body", "body": piece, "more_body": more})
            memory.report_progress(transfer)

    async def finish(self, rest: Awaitable[None], pieces: int = 1) -> None:
        """Finish a send that was started."""
        try:
            async with asyncio.timeout(self._seconds * pieces) as self._timeout:
                await rest
        except TimeoutError as error:
            self._abort()
            raise BrokenPipeError("The client takes no data.") from error
        finally:
            self._timeout = None

    def hurry(self) -> None:
        """The server is about to end: do not wait long for a client that takes no data."""
        self._wait_at_most(ENDING_SECONDS)

    def cut_off(self) -> None:
        """Do not wait for the client any more, and close the connection where the server lets us."""
        self._wait_at_most(0.0)
        self._abort()

    def _wait_at_most(self, seconds: float) -> None:
        self._seconds = min(self._seconds, seconds)
        timeout = self._timeout
        if timeout is not None and not timeout.expired():
            # A server that ends says so again and again, which must not move the deadline.
            deadline = asyncio.get_running_loop().time() + self._seconds
            timeout.reschedule(min(deadline, timeout.when() or deadline))

    def _abort(self) -> None:
        """Close the connection at once, where the server lets us. It would keep the unsent data otherwise."""
        abort = find_abort(self._send)
        if abort is not None:
            abort()


class AsgiOutlet(Outlet):
    """Sends an event stream by ASGI messages."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._sender = Sender(send)
        self.is_immediate = sends_at_once(send)

    async def start(self, response: EventStream) -> None:
        message: Message = {"type": "http.response.start", "status": response.status, "headers": response.headers}
        await self._sender.send(message)

    def push(self, chunk: bytes) -> Awaitable[None] | None:
        if len(chunk) > PIECE_BYTES:
            return self._sender.send_part(chunk)
        message: Message = {"type": "http.response.body", "body": chunk, "more_body": True}
        if not self.is_immediate:
            return self._sender.send(message)
        rest = start(self._send(message))
        return None if rest is None else self._sender.finish(rest)

    def hurry(self) -> None:
        self._sender.hurry()

    def cut_off(self) -> None:
        self._sender.cut_off()

    async def end(self) -> None:
        await self._sender.send({"type": "http.response.body", "body": b""})
