"""An HTTP client that calls an ASGI application in its own event loop, without a server or a socket.

Bodies go in in pieces, responses come out in the chunks in which they were sent, and clients can leave in the middle.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote_to_bytes

Headers = Mapping[str, str | bytes] | Iterable[tuple[bytes, bytes]]
Message = MutableMapping[str, Any]

ROOT = "/v1/stream/"


class Reply:
    """A response as a whole."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.header_list = headers
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        self.body = body

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def offset(self) -> str:
        """`Stream-Next-Offset`."""
        return self.headers["stream-next-offset"]


class Exchange:
    """A request on its way, and its response as it comes. Use it as an asynchronous context manager."""

    def __init__(self, application: Any, scope: dict[str, Any], pieces: Iterable[bytes]) -> None:
        self.receives = 0
        """How many messages the application has taken from the client."""
        self._application = application
        self._scope = scope
        self._pieces = iter(pieces)
        self._next: bytes | None = next(self._pieces, b"")
        self._left = asyncio.Event()
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self.status = 0
        self.header_list: list[tuple[bytes, bytes]] = []

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()
        assert self._task is not None
        if kind is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        else:
            await self._task

    def disconnect(self) -> None:
        """Leave."""
        self._left.set()

    async def head(self) -> Self:
        """Wait for status and headers."""
        if not self.status:
            message = await self._sent.get()
            assert message is not None, "the application ended without a response"
            assert message["type"] == "http.response.start"
            self.status = message["status"]
            self.header_list = list(message.get("headers", []))
            for name, value in self.header_list:
                assert isinstance(name, bytes)
                assert isinstance(value, bytes)
                assert not set(b"\r\n\x00") & set(name + value)
        return self

    async def chunk(self) -> bytes | None:
        """Return the next piece of the body that is not empty; None at the end of the response."""
        await self.head()
        while (message := await self._sent.get()) is not None:
            assert message["type"] == "http.response.body"
            if message.get("body"):
                found: bytes = message["body"]
                return found
            if not message.get("more_body", False):
                return None
        return None

    async def reply(self) -> Reply:
        """Wait for the whole response."""
        parts = []
        while (part := await self.chunk()) is not None:
            parts.append(part)
        return Reply(self.status, self.header_list, b"".join(parts))

    def has_more(self) -> bool:
        """Whether something was sent that has not been looked at."""
        return not self._sent.empty()

    async def _run(self) -> None:
        try:
            await self._application(self._scope, self._receive, self._send)
        finally:
            self._sent.put_nowait(None)

    async def _receive(self) -> Message:
        self.receives += 1
        if self._next is not None:
            piece, self._next = self._next, next(self._pieces, None)
            return {"type": "http.request", "body": piece, "more_body": self._next is not None}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._sent.put_nowait(message)


class AsgiClient:
    """Sends requests for streams to an application.

    http_version: what the server that is not there says that the client speaks.
    """

    def __init__(self, application: Any, *, root: str = ROOT, http_version: str = "1.1") -> None:
        self.application = application
        self.root = root
        self.http_version = http_version

    def open(
        self, method: str, target: str | bytes, headers: Headers = (), body: bytes | Iterable[bytes] = b""
    ) -> Exchange:
        """Return an exchange that has not begun. `target` is relative to the root, percent-encoded, with its query."""
        raw = target.encode() if isinstance(target, str) else target
        path, _, query = raw.partition(b"?")
        pairs = encoded(headers)
        if not any(name == b"host" for name, _ in pairs):
            pairs.append((b"host", b"testserver"))
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self.http_version,
            "method": method,
            "scheme": "http",
            "path": self.root + unquote_to_bytes(path).decode("utf-8", errors="replace"),
            "raw_path": self.root.encode() + path,
            "query_string": query,
            "root_path": "",
            "headers": pairs,
            "client": ("127.0.0.1", 50_000),
            "server": ("testserver", 80),
        }
        return Exchange(self.application, scope, [body] if isinstance(body, bytes) else body)

    async def request(
        self, method: str, target: str | bytes, headers: Headers = (), body: bytes | Iterable[bytes] = b""
    ) -> Reply:
        """Send a request and return its whole response."""
        async with self.open(method, target, headers, body) as exchange:
            return await exchange.reply()

    async def create(self, path: str, body: bytes = b"", kind: str = "text/plain", **headers: str) -> Reply:
        """Create a stream. Keywords are headers, with underscores for hyphens."""
        reply = await self.request("PUT", path, {"content-type": kind, **named(headers)}, body)
        assert reply.status == 201, reply.body
        return reply

    async def append(self, path: str, body: bytes, kind: str = "text/plain", **headers: str) -> Reply:
        """Append to a stream, and return the response whatever it is."""
        return await self.request("POST", path, {"content-type": kind, **named(headers)}, body)

    async def close(self, path: str) -> Reply:
        """Close a stream."""
        return await self.request("POST", path, {"stream-closed": "true"})

    async def get(self, target: str, **headers: str) -> Reply:
        """Read."""
        return await self.request("GET", target, named(headers))

    def follow(self, path: str, offset: str = "-1", mode: str = "sse", **headers: str) -> Exchange:
        """Return a live read that has not begun."""
        return self.open("GET", f"{path}?offset={offset}&live={mode}", named(headers))


def named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    if not isinstance(headers, Mapping):
        return list(headers)
    return [
        (name.lower().encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in headers.items()
    ]
