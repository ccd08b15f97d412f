"""Event streams on a connection that is written to directly: each event in a chunk of HTTP's own."""

from __future__ import annotations

from asyncio import BaseTransport, Transport
from collections.abc import Awaitable, Callable
from typing import cast

from uvicorn.protocols.http.flow_control import FlowControl

from ..answers import EventStream
from ..event_stream import Outlet

MAX_KEPT_BYTES = 256 * 1024
"""Bytes of an event up to which it is copied into a chunk, and kept for the next reader."""


class ChunkedOutlet(Outlet):
    """Sends an event stream with chunked transfer coding (RFC 9112, section 7.1).

    Args:
        flow: whether the client takes what it is sent.
        head: makes the head of the response.
    """

    is_immediate = True

    def __init__(self, transport: BaseTransport, flow: FlowControl, head: Callable[[EventStream], bytes]) -> None:
        self._transport = cast("Transport", transport)
        self._flow = flow
        self._head = head

    async def begin(self, response: EventStream) -> None:
        self._transport.write(self._head(response))

    def push(self, chunk: bytes) -> Awaitable[None] | None:
        global _last
        if self._transport.is_closing():
            return None
        if len(chunk) > MAX_KEPT_BYTES:
            self._transport.writelines([b"%x\r\n" % len(chunk), chunk, b"\r\n"])
        else:
            if _last[0] is not chunk:
                _last = chunk, b"%x\r\n%b\r\n" % (len(chunk), chunk)
            self._transport.write(_last[1])
        return self._flow.drain() if self._flow.write_paused else None

    async def end(self) -> None:
        self._transport.write(b"0\r\n\r\n")


# The event that was sent last, and how it goes on the wire: hundreds get the same one.
_last: tuple[bytes, bytes] = b"", b""
