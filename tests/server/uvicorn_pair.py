"""The same bytes sent to two connections of a uvicorn: one with the fast path, and one of uvicorn's own.

What the one answers and logs, the other has to answer and log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from django_durable_streams.server import request_numbers
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection
from django_durable_streams.server.uvicorn.mount import Mount

Peer = tuple[str, int] | None
LOCAL = ("127.0.0.1", 50_000)


@dataclass(frozen=True)
class Answer:
    """A response, whether the connection was closed after it, and the lines of the access log."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_closed: bool
    log: list[str]

    def header(self, name: str) -> bytes | None:
        """Return the value of a header, or None."""
        return dict(self.headers).get(name.encode())


class Client(asyncio.Transport):
    """The transport of a connection whose other end reads one response."""

    def __init__(self, peer: Peer) -> None:
        super().__init__({"peername": peer, "sockname": ("127.0.0.1", 80)})
        self.changed = asyncio.Event()
        self.data = b""
        self.is_closed = False
        self.protocol: asyncio.BaseProtocol | None = None

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self.protocol is not None
        return self.protocol

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        self.is_closed = True
        self.changed.set()

    def write(self, data: Any) -> None:
        self.data += bytes(data)
        self.changed.set()


class Log(logging.Handler):
    """The lines of the access log."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def exits(reason: str) -> int:
    """Return how many requests of this process have left the fast path for a reason."""
    return request_numbers.stats().fast_path_exits.get(reason, 0)


class Pair:
    """A server's configuration, and both kinds of connections for it.

    Args:
        application: the application that the server runs.
        options: those of uvicorn's configuration.
    """

    def __init__(self, application: Any, **options: Any) -> None:
        self.config = Config(application, interface="asgi3", log_config=None, lifespan="off", **options)
        self.config.load()
        self.mount = Mount(self.config.loaded_app, self.config.root_path, DurableStreams)
        self.state = ServerState()

    async def fast(self, data: bytes | Sequence[bytes], peer: Peer = LOCAL) -> Answer:
        """Return the answer of a connection with the fast path."""
        return await self._ask(FastPathConnection(mount=self.mount, **self._options()), data, peer)

    async def plain(self, data: bytes | Sequence[bytes], peer: Peer = LOCAL) -> Answer:
        """Return the answer of a connection of uvicorn's."""
        return await self._ask(HttpToolsProtocol(**self._options()), data, peer)

    async def handed_over(self, data: bytes, peer: Peer = LOCAL) -> list[str]:
        """Return the reasons for which the fast path has handed a request over."""
        before = request_numbers.stats().fast_path_exits
        await self.fast(data, peer)
        after = request_numbers.stats().fast_path_exits
        return [reason for reason, number in after.items() if number != before.get(reason, 0)]

    def _options(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        return {"config": self.config, "server_state": self.state, "app_state": {}, "_loop": loop}

    async def _ask(self, protocol: HttpToolsProtocol, data: bytes | Sequence[bytes], peer: Peer) -> Answer:
        log = Log()
        logger = logging.getLogger("uvicorn.access")
        logger.addHandler(log)
        level = logger.level
        logger.setLevel(logging.INFO)
        protocol.access_log = True
        client = Client(peer)
        client.protocol = protocol
        try:
            protocol.connection_made(client)
            for part in [data] if isinstance(data, bytes) else data:
                protocol.data_received(part)
            has_body = not (data if isinstance(data, bytes) else data[0]).startswith(b"HEAD")
            async with asyncio.timeout(20):
                while (parsed := _parsed(client.data, has_body=has_body)) is None and not client.is_closed:
                    client.changed.clear()
                    await client.changed.wait()
            for _ in range(5):  # a close may follow the last bytes
                await asyncio.sleep(0)
            is_closed = client.is_closed
            protocol.connection_lost(None)
        finally:
            logger.removeHandler(log)
            logger.setLevel(level)
        parsed = parsed or _parsed(client.data, has_body=False)
        assert parsed is not None
        return Answer(*parsed, is_closed, log.lines)


def _parsed(data: bytes, *, has_body: bool) -> tuple[int, list[tuple[bytes, bytes]], bytes] | None:
    head, end, content = data.partition(b"\r\n\r\n")
    if not end:
        return None
    status_line, *lines = head.split(b"\r\n")
    status = int(status_line.split()[1])
    headers = sorted((name, value) for name, _, value in (line.partition(b": ") for line in lines))
    length = int(dict(headers).get(b"content-length", b"0"))
    if has_body and status not in (204, 304) and len(content) < length:
        return None
    return status, headers, content
