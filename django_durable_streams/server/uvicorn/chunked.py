"""Sends event streams on uvicorn's own connections: each event in one chunk of HTTP.

The invariant: readers who get the same event object get the same bytes on the wire, so an event is encoded once. It is
a part of the fast path, and is switched off with it (UVICORN_FAST_PATH).
"""

from __future__ import annotations

from asyncio import BaseTransport, Transport
from collections.abc import Awaitable, Callable
from typing import cast

from uvicorn.protocols.http.flow_control import FlowControl

from ..answers import EventStream
from ..event_stream import Outlet
from ..response_memory import memory
from .downloads import PIECE_BYTES

MAX_COPIED_BYTES = 256 * 1024
"""Bytes of an event up to which it is copied into a chunk, and the chunk is kept for the next reader. A larger event is
written in pieces, as its reader takes them."""


class ChunkedOutlet(Outlet):
    """Sends an event stream with chunked transfer coding (RFC 9112, section 7.1).

    Args:
        flow: says whether the client takes the data.
        encode_head: makes the head of the response.
    """

    is_immediate = True

    def __init__(
        self, transport: BaseTransport, flow: FlowControl, encode_head: Callable[[EventStream], bytes]
    ) -> None:
        self._transport = cast("Transport", transport)
        self._flow = flow
        self._encode_head = encode_head

    async def start(self, response: EventStream) -> None:
        self._transport.write(self._encode_head(response))

    def push(self, chunk: bytes) -> Awaitable[None] | None:
        global _last_event
        if self._transport.is_closing():
            return None
        if len(chunk) > MAX_COPIED_BYTES:
            return self._send_pieces(chunk)
        if _last_event[0] is not chunk:
            _last_event = chunk, b"%x\r\n%b\r\n" % (len(chunk), chunk)
        self._transport.write(_last_event[1])
        return self._drain(_last_event[1]) if self._flow.write_paused else None

    def cut_off(self) -> None:
        self._transport.abort()

    async def end(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")

    async def _drain(self, data: bytes) -> None:
        with memory.counted(data, self.cut_off):
            await self._flow.drain()

    async def _send_pieces(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        with memory.counted(chunk, self.cut_off) as transfer:
            self._transport.write(b"%x\r\n" % len(chunk))
            for first in range(0, len(chunk), PIECE_BYTES):
                if self._flow.write_paused:
                    await self._flow.drain()
                    memory.report_progress(transfer)
                if self._transport.is_closing():
                    return
                self._transport.write(view[first : first + PIECE_BYTES])
            self._transport.write(b"\r\n")
            await self._flow.drain()


_last_event: tuple[bytes, bytes] = b"", b""
"""The event that was sent last, and its chunk. Hundreds of readers get the same one."""
