"""A client that calls an ASGI application in its own event loop, without a server or a socket.

A test can send a body in pieces, receive a response in the chunks that the application sends, and disconnect at any
time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote_to_bytes

from asgiref.sync import sync_to_async

from ..access.csrf import EXEMPT as CSRF_EXEMPT
from ..server.asgi import DurableStreams
from .events import Event, EventParser

Headers = Mapping[str, str | bytes] | Iterable[tuple[bytes, bytes]]
Message = MutableMapping[str, Any]

ROOT = "/v1/stream/"

TIMEOUT = 10.0
"""Seconds that a client waits for the next part of a response before it raises TimeoutError."""


class Reply:
    """A complete response."""

    def __init__(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.status = status
        self.header_list = headers
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        self.body = body

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)

    @property
    def offset(self) -> str:
        """The value of `Stream-Next-Offset`."""
        return self.headers["stream-next-offset"]


class Exchange:
    """A request and its response, part by part. Use it as an asynchronous context manager.

    Args:
        application: an ASGI application.
        scope: the ASGI scope of the request.
        pieces: the pieces of the request's body.
        timeout: seconds to wait for each piece of the response. None: no limit.
    """

    def __init__(
        self, application: Any, scope: dict[str, Any], pieces: Iterable[bytes], timeout: float | None = None
    ) -> None:
        self.receives = 0
        """The number of ASGI messages that the application has received."""
        self.status = 0
        self.header_list: list[tuple[bytes, bytes]] = []
        self._application = application
        self._scope = scope
        self._pieces = iter(pieces)
        self._timeout = timeout
        self._next: bytes | None = next(self._pieces, b"")
        self._disconnected = asyncio.Event()
        self._sent: asyncio.Queue[Message | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

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
        """Disconnect from the application."""
        self._disconnected.set()

    async def head(self) -> Self:
        """Wait for status and headers."""
        if not self.status:
            message = await self._get()
            if message is None and self._task is not None:
                await self._task  # raises the error of the application
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
        """Return the next piece of the body that is not empty. None: the end of the response."""
        await self.head()
        while (message := await self._get()) is not None:
            assert message["type"] == "http.response.body"
            if message.get("body"):
                body: bytes = message["body"]
                return body
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
        """Return whether the application has sent messages that the test has not received."""
        return not self._sent.empty()

    async def _get(self) -> Message | None:
        async with asyncio.timeout(self._timeout):
            return await self._sent.get()

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
        await self._disconnected.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self._sent.put_nowait(message)


class EventReader:
    """A live read by Server-Sent Events. Use it as an asynchronous context manager, and iterate over its events."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._parser = EventParser()

    async def __aenter__(self) -> Self:
        await self._exchange.__aenter__()
        try:
            await self._exchange.head()
            assert self.status == 200, f"the stream cannot be read: {(await self._exchange.reply()).body!r}"
        except BaseException as error:
            await self._exchange.__aexit__(type(error), error, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exchange.__aexit__(kind, error, traceback)

    @property
    def status(self) -> int:
        """The response's status."""
        return self._exchange.status

    async def next(self) -> Event | None:
        """Wait for the next event and return it. None: the end of the response."""
        while (event := self._parser.next()) is None:
            chunk = await self._exchange.chunk()
            if chunk is None:
                return None
            self._parser.feed(chunk)
        return event

    async def next_data(self) -> Event | None:
        """The same for the next `data` event. Skips `control` events."""
        while (event := await self.next()) is not None and event.kind != "data":
            pass
        return event

    async def __aiter__(self) -> AsyncIterator[Event]:
        while (event := await self.next()) is not None:
            yield event


class StreamClient:
    """Sends requests for streams to an ASGI application.

    Args:
        application: an ASGI application, by default `DurableStreams()`.
        root: path of the root of the streams.
        headers: headers of every request.
        timeout: seconds to wait for each piece of a response. None: no limit.
        http_version: the HTTP version in the ASGI scope.
        enforce_csrf_checks: whether requests of a logged-in user need the CSRF token, as in `django.test.Client`.
    """

    def __init__(
        self,
        application: Any = None,
        *,
        root: str = ROOT,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = TIMEOUT,
        http_version: str = "1.1",
        enforce_csrf_checks: bool = False,
    ) -> None:
        self.application = application if application is not None else DurableStreams()
        self.root = root
        self.headers: dict[str, str] = {**(headers or {})}
        self.timeout = timeout
        self.http_version = http_version
        self.enforce_csrf_checks = enforce_csrf_checks

    def force_login(self, user: Any) -> None:
        """Log a user in, as `django.test.Client.force_login` does."""
        from django.test import Client

        client = Client()
        client.force_login(user)
        self.headers["cookie"] = "; ".join(f"{name}={morsel.value}" for name, morsel in client.cookies.items())

    async def aforce_login(self, user: Any) -> None:
        """The same as `force_login`."""
        await sync_to_async(self.force_login)(user)

    async def put(self, path: str, body: bytes = b"", *, content_type: str, **headers: str) -> Reply:
        """Create a stream. Keywords are headers, with underscores for hyphens: `stream_ttl="60"`."""
        return await self.request("PUT", quote(path), {"content-type": content_type, **named(headers)}, body)

    async def post(self, path: str, body: bytes, *, content_type: str, **headers: str) -> Reply:
        """Append to a stream."""
        return await self.request("POST", quote(path), {"content-type": content_type, **named(headers)}, body)

    async def read(self, path: str, offset: str = "-1", **headers: str) -> Reply:
        """Read the existing data after an offset."""
        return await self.request("GET", f"{quote(path)}?offset={offset}", named(headers))

    async def long_poll(self, path: str, offset: str = "now", **headers: str) -> Reply:
        """Read by long-poll: wait for data after an offset."""
        return await self.request("GET", f"{quote(path)}?offset={offset}&live=long-poll", named(headers))

    async def delete(self, path: str, **headers: str) -> Reply:
        """Delete a stream."""
        return await self.request("DELETE", quote(path), named(headers))

    def events(self, path: str, offset: str = "-1", **headers: str) -> EventReader:
        """Return a live read by Server-Sent Events, to be entered: `async with client.events(path) as events:`."""
        return EventReader(self.open("GET", f"{quote(path)}?offset={offset}&live=sse", named(headers)))

    def open(
        self, method: str, target: str | bytes, headers: Headers = (), body: bytes | Iterable[bytes] = b""
    ) -> Exchange:
        """Return an exchange, to be entered. `target`: relative to the root, percent-encoded, with its query."""
        raw = target.encode() if isinstance(target, str) else target
        path, _, query = raw.partition(b"?")
        pairs = [*encoded(self.headers), *encoded(headers)]
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
            CSRF_EXEMPT: not self.enforce_csrf_checks,
        }
        return Exchange(self.application, scope, [body] if isinstance(body, bytes) else body, self.timeout)

    async def request(
        self, method: str, target: str | bytes, headers: Headers = (), body: bytes | Iterable[bytes] = b""
    ) -> Reply:
        """Send a request and return its whole response."""
        async with self.open(method, target, headers, body) as exchange:
            return await exchange.reply()


def named(headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with hyphens instead of the underscores in their names."""
    return {name.replace("_", "-"): value for name, value in headers.items()}


def encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return headers in the form of ASGI: pairs of lower-case name and value, as bytes."""
    if not isinstance(headers, Mapping):
        return list(headers)
    return [
        (name.lower().encode(), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in headers.items()
    ]
