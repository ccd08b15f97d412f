"""The fast door: a bare ASGI application.

It stands by itself, in front of Django, or inside Channels' routing:

    application = DurableStreams(prefix="/v1/stream/", fallback=get_asgi_application())

    application = ProtocolTypeRouter({
        "http": URLRouter([
            path("v1/stream/<path:stream_path>", DurableStreams()),
            re_path("", get_asgi_application()),
        ]),
    })
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any

from django.apps import apps

from ..conf import config
from ..engine.engine import engine_for, running_engines, stop_engines
from ..protocol import headers
from ..protocol.errors import DurableStreamsError, PayloadTooLarge, StreamNotFound
from .coroutines import start
from .dispatch import refuse, respond
from .events import Outlet, send_events
from .hosts import absolute_url, below, check_host, script_name
from .messages import ClientDisconnected, EventStream, Request, Response, check_length, too_large
from .validation import check_configuration

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Coroutine[Any, Any, None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

STREAM_PATH = "stream_path"
"""Name of the part of a URL pattern that is the stream's path, in Channels' routing and in Django's URLs."""

LINGER_SECONDS = 2.0
"""How long the rest of a refused body is taken, at most as much again as the limit."""


class DurableStreams:
    """An ASGI application that serves streams.

    Args:
        prefix: path below which the streams are, beginning and ending with a slash. None serves none of them here,
            as when Django's URLs do. A `stream_path` matched by Channels' URLRouter goes before it.
        fallback: the application for every other request and protocol, Django's as a rule.

    Raises:
        ImproperlyConfigured: streams cannot be served with the project's settings; says why.
    """

    def __init__(self, *, prefix: str | None = "/v1/stream/", fallback: Application | None = None) -> None:
        if prefix is not None and not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError("The prefix has to begin and end with a slash.")
        if apps.ready:  # otherwise Django says the same when it is set up
            check_configuration()
        self._prefix = prefix
        self._fallback = fallback
        self._is_installed = prefix is None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            if not self._is_installed:
                self._install(receive)
            path = self._stream_path(scope)
            if path is not None:
                await _serve(path, scope, receive, send)
                return
        elif kind == "lifespan":
            self._install(receive)
            await _lifespan(receive, send)
            return
        if self._fallback is not None:
            await self._fallback(scope, receive, send)
        elif kind == "http":
            await _send(refuse(StreamNotFound("There are no streams at this path.")), send)
        else:
            raise ValueError(f"Streams are not served by {kind}.")

    def _install(self, receive: Receive) -> None:
        """Take the shortest way where the server has one."""
        self._is_installed = True
        server = getattr(receive, "__self__", None)
        if self._prefix is None or script_name(None) or not config().direct:
            return
        if type(server).__module__.startswith("uvicorn."):
            from .direct import install

            install(self, self._prefix, server)

    def _stream_path(self, scope: Scope) -> str | None:
        """Return the path of the stream that a request is for, or None where it is for none."""
        route = scope.get("url_route")
        if route is not None and STREAM_PATH in route["kwargs"]:
            return str(route["kwargs"][STREAM_PATH])
        path = below(script_name(scope.get("root_path")), scope["path"])
        if self._prefix is not None and path.startswith(self._prefix):
            return path[len(self._prefix) :]
        return None


class _AsgiRequest(Request):
    """A request as an ASGI server passes it."""

    __slots__ = ("_leaving", "_receive", "_scope", "_send", "body_ended", "unsent")

    def __init__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope["method"], path, scope["query_string"], scope["headers"])
        self._scope = scope
        self._receive = receive
        self._send = send
        self._leaving: asyncio.Future[None] | None = None
        self.unsent: list[Awaitable[None]] = []
        self.body_ended = False

    @property
    def scheme(self) -> str:
        return str(self._scope.get("scheme", "http"))

    @property
    def source(self) -> Scope:
        return self._scope

    def url(self) -> bytes:
        return absolute_url(self._scope.get("scheme", "http"), self._outer_path(), self.headers)

    def root(self) -> str:
        return self._outer_path().removesuffix(self.path)

    def _outer_path(self) -> str:
        """Return the path as clients have it. Not every server, and no proxy that takes it off, leaves it whole."""
        name = script_name(self._scope.get("root_path"))
        return name + below(name, self._scope["path"])

    async def read_body(self) -> bytes:
        length = self.headers.get(headers.CONTENT_LENGTH)
        if length is not None:
            check_length(length)
        message = await self._receive()
        body: bytes = message.get("body", b"")
        if not message.get("more_body", False) and message["type"] == "http.request":
            self.body_ended = True
            if len(body) > config().max_append_bytes:
                raise too_large()
            return body
        return await self._read_parts(message)

    async def _read_parts(self, message: Message) -> bytes:
        limit = config().max_append_bytes
        parts = []
        size = 0
        while message["type"] != "http.disconnect":
            part = message.get("body", b"")
            size += len(part)
            self.body_ended = not message.get("more_body", False)
            if size > limit:
                raise too_large()
            parts.append(part)
            if self.body_ended:
                return b"".join(parts)
            message = await self._receive()
        raise ClientDisconnected

    def when_left(self, tell: Callable[[], object]) -> None:
        self._leaving = asyncio.ensure_future(_until_disconnect(self._receive))
        self._leaving.add_done_callback(lambda _: tell())

    def let_leave(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()

    def send_now(self, response: Response) -> bool:
        if not _sends_at_once(self._send):
            return False
        for message in _messages(response):
            if self.unsent:
                self.unsent.append(self._send(message))
            else:
                rest = start(self._send(message))
                if rest is not None:
                    self.unsent.append(rest)
        return True


async def _serve(path: str, scope: Scope, receive: Receive, send: Send) -> None:
    try:
        request = _AsgiRequest(path, scope, receive, send)
        check_host(request.headers)
        response = await respond(request)
        if isinstance(response, Response) and response.sent:
            for rest in request.unsent:
                await rest
            return
    except DurableStreamsError as error:
        response = refuse(error)
    except ClientDisconnected:
        return
    if scope["method"] == "HEAD" and isinstance(response, Response):
        response.body = b""  # not every server leaves it out by itself
    if isinstance(response, EventStream):
        await _send_events(response, receive, send)
    elif response.status == PayloadTooLarge.status and not request.body_ended and scope["http_version"].startswith("1"):
        await _send_and_hang_up(response, receive, send)
    else:
        await _send(response, send)


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(response: Response, send: Send) -> None:
    start, body = _messages(response)
    await send(start)
    await send(body)


def _messages(response: Response) -> tuple[Message, Message]:
    return (
        # A list of its own: whatever stands between here and the server may add to it.
        {"type": "http.response.start", "status": response.status, "headers": [*response.headers]},
        {"type": "http.response.body", "body": response.body},
    )


async def _send_and_hang_up(response: Response, receive: Receive, send: Send) -> None:
    """Send a response to a client that may still be sending, and end the connection.

    Servers would take the rest of the body, however long that is. But a connection that is closed with data unread is
    reset, and the response may be lost with it: so a little more is taken, and dropped.
    """
    found = [*response.headers, (b"connection", b"close")]
    await send({"type": "http.response.start", "status": response.status, "headers": found})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    left = config().max_append_bytes
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    break
                left -= len(message.get("body", b""))
    except TimeoutError:
        pass
    await send({"type": "http.response.body", "body": b""})


async def _send_events(response: EventStream, receive: Receive, send: Send) -> None:
    disconnected = asyncio.ensure_future(_until_disconnect(receive))
    try:
        await send_events(response, _AsgiOutlet(send), disconnected)
    finally:
        disconnected.cancel()


class _AsgiOutlet(Outlet):
    """Sends an event stream by ASGI messages."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.is_immediate = _sends_at_once(send)

    async def begin(self, response: EventStream) -> None:
        await self._send({"type": "http.response.start", "status": response.status, "headers": response.headers})

    def push(self, chunk: bytes) -> Awaitable[None] | None:
        sending = self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        return start(sending) if self.is_immediate else sending

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


def _sends_at_once(send: Send) -> bool:
    """Whether a send may be started outside the task of its request.

    uvicorn's may: it writes to the transport, and knows nothing of the task that calls it.
    """
    return type(getattr(send, "__self__", None)).__module__.startswith("uvicorn.")


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await asyncio.to_thread(engine_for().check_setup)
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            for engine in running_engines():
                engine.end_live_reads()
            await asyncio.to_thread(stop_engines)
            await send({"type": "lifespan.shutdown.complete"})
            return
