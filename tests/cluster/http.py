"""A small HTTP/1.1 client for very many requests and open responses: the machine's time is for the servers."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

REQUEST_SECONDS = 10.0
LINE_LIMIT = 1 << 20
KEPT_SECONDS = 2.0
"""How long an idle connection is used again: servers close theirs after 5 s."""


class Unreachable(Exception):
    """There was no connection, or it was lost or silent before the whole answer came."""


@dataclass(frozen=True)
class Response:
    """An answer, with its header names in lower case."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")


class Connection:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.idle_since = 0.0

    @classmethod
    async def open(cls, host: str, port: int) -> Self:
        return cls(*await asyncio.open_connection(host, port, limit=LINE_LIMIT))

    async def send(self, method: str, target: str, host: str, headers: Mapping[str, str], content: bytes) -> None:
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if content or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(content)}")
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """The status and headers of the answer."""
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines[1:-2])
        return int(lines[0].split(" ")[1]), {name.lower(): value.strip() for name, _, value in pairs}

    async def body(self, method: str, status: int, headers: Mapping[str, str]) -> AsyncIterator[bytes]:
        """The content of the answer, as it comes."""
        if method == "HEAD" or status in (204, 304):
            return
        if headers.get("transfer-encoding", "").lower() != "chunked":
            yield await self._reader.readexactly(int(headers.get("content-length", "0")))
            return
        while size := int((await self._reader.readline()).rstrip() or b"-1", 16):
            if size < 0:
                raise EOFError("the answer is cut off")
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()

    def close(self) -> None:
        self._writer.transport.abort()


class Client:
    """Connections to any servers, kept and used again, as many as there are requests at a time."""

    def __init__(self) -> None:
        self._idle: dict[str, list[Connection]] = {}

    async def request(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, content: bytes = b""
    ) -> Response:
        """Send a request and return its answer. Raises Unreachable."""
        try:
            async with asyncio.timeout(REQUEST_SECONDS), self._exchange(method, url, headers or {}, content) as answer:
                status, received, body = answer
                return Response(status, received, b"".join([part async for part in body]))
        except (OSError, EOFError, TimeoutError) as error:
            raise Unreachable(f"{method} {url}: {error!r}") from error

    @asynccontextmanager
    async def stream(self, url: str) -> AsyncIterator[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
        """GET something whose answer goes on. Raises Unreachable, also from the iteration."""
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    answer = await stack.enter_async_context(self._exchange("GET", url, {}, b""))
            except (OSError, EOFError, TimeoutError) as error:
                raise Unreachable(f"GET {url}: {error!r}") from error
            status, received, body = answer
            yield status, received, _reachable(body)

    @asynccontextmanager
    async def _exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: bytes
    ) -> AsyncIterator[tuple[int, dict[str, str], AsyncIterator[bytes]]]:
        parts = urlsplit(url)
        idle = self._idle.setdefault(parts.netloc, [])
        while idle and idle[0].idle_since < time.monotonic() - KEPT_SECONDS:
            idle.pop(0).close()
        connection = idle.pop() if idle else await Connection.open(parts.hostname or "", parts.port or 80)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        done = False
        try:
            await connection.send(method, target, parts.netloc, headers, content)
            status, received = await connection.head()
            ended = False

            async def body() -> AsyncIterator[bytes]:
                nonlocal ended
                async for part in connection.body(method, status, received):
                    yield part
                ended = True

            yield status, received, body()
            done = ended and received.get("connection", "").lower() != "close"
        finally:
            if done:
                connection.idle_since = time.monotonic()
                idle.append(connection)
            else:
                connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for idle in self._idle.values():
            for connection in idle:
                connection.close()
            idle.clear()
        await asyncio.sleep(0)  # an aborted transport closes its socket in the next turn of the loop


async def _reachable(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        async for part in body:
            yield part
    except (OSError, EOFError) as error:
        raise Unreachable(f"the answer ended early: {error!r}") from error
