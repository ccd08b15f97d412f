"""A server that notes the heads of requests and its connections, for tests of the proxies before it."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from tests.servers import HOST


class Upstream:
    """Answers each request with an empty 200."""

    def __init__(self) -> None:
        self.heads: list[dict[str, list[str]]] = []
        """The headers of each request, with lower-case names. Health checks are left out."""
        self.connections = 0
        """That have brought a request."""
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        is_new = True
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                if "/readyz" not in first and "/healthz" not in first:
                    self.connections += is_new
                    is_new = False
                    head: dict[str, list[str]] = {}
                    for name, _, value in (line.partition(":") for line in lines[:-2]):
                        head.setdefault(name.lower(), []).append(value.strip())
                    self.heads.append(head)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
        writer.close()
