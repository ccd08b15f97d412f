"""The client's end of a connection of uvicorn's, in this process: what the server writes, until a response is whole."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

LOCAL = ("127.0.0.1", 50_000)
SECONDS = 60


class Parsed(NamedTuple):
    """A whole response."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class ClientEnd(asyncio.Transport):
    """A connection whose other end reads one response.

    Args:
        protocol: the server's end.
        peer: the address of the client. None: it has none, as on a Unix socket.
    """

    def __init__(self, protocol: asyncio.Protocol, peer: tuple[str, int] | None = LOCAL) -> None:
        super().__init__({"peername": peer, "sockname": ("127.0.0.1", 80)})
        self.data = b""
        self.is_closed = False
        self._protocol = protocol
        self._changed = asyncio.Event()

    async def read(self, *, has_body: bool) -> Parsed:
        """Return the response, once it is whole or the server has closed the connection."""
        async with asyncio.timeout(SECONDS):
            while (response := parse(self.data, has_body=has_body)) is None and not self.is_closed:
                self._changed.clear()
                await self._changed.wait()
        response = response or parse(self.data, has_body=False)
        assert response is not None
        return response

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True
        self._changed.set()

    def write(self, data: Any) -> None:
        self.data += bytes(data)
        self._changed.set()


def parse(data: bytes, *, has_body: bool) -> Parsed | None:
    """Return the response that some bytes are, or None if they are only its beginning."""
    head, end, content = data.partition(b"\r\n\r\n")
    if not end:
        return None
    status_line, *lines = head.split(b"\r\n")
    status = int(status_line.split()[1])
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
    lengths = [int(value) for name, value in headers if name.lower() == b"content-length"]
    if has_body and status not in (204, 304) and len(content) < max(lengths, default=0):
        return None
    return Parsed(status, headers, content)
