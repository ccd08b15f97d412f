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
from tests.server.client_end import LOCAL, ClientEnd

Peer = tuple[str, int] | None


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
        client = ClientEnd(protocol, peer)
        try:
            protocol.connection_made(client)
            for part in [data] if isinstance(data, bytes) else data:
                protocol.data_received(part)
            has_body = not (data if isinstance(data, bytes) else data[0]).startswith(b"HEAD")
            status, headers, body = await client.read(has_body=has_body)
            for _ in range(5):  # a close may follow the last bytes
                await asyncio.sleep(0)
            is_closed = client.is_closed
            protocol.connection_lost(None)
        finally:
            logger.removeHandler(log)
            logger.setLevel(level)
        return Answer(status, sorted(headers), body, is_closed, log.lines)
