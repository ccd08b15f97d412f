"""The ASGI application: the entry point without Django's handler and middleware.

It stands by itself, in front of Django, or inside Channels' routing:

    application = DurableStreams(prefix="/v1/stream/", fallback=get_asgi_application())

    application = ProtocolTypeRouter({
        "http": URLRouter([
            path("v1/stream/<path:stream_path>", DurableStreams()),
            re_path("", get_asgi_application()),
        ]),
    })

Turns ASGI messages into requests, and responses into ASGI messages. It knows no operations.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from django.apps import apps

from ..conf import config
from ..protocol.errors import DurableStreamsError, IncompleteBody, ServiceUnavailable, StreamNotFound
from ..protocol.messages import ClientDisconnected, Request, Response
from ..runtime import tracing
from . import request_numbers
from .answers import EventStream
from .asgi_sending import AsgiOutlet, Sender, messages_of, send_response, sends_at_once
from .bodies import LINGER_SECONDS, SMALL_BYTES, ArrivingBody, admitted_length, check_whole, has_large_rest, too_slow
from .coroutines import start, start_for_value
from .dispatch import refuse, respond
from .event_stream import send_events
from .hosts import absolute_url, below, check_host, outer_path, script_name
from .lifespan import Application, Message, Receive, Scope, Send, serve_lifespan
from .response_memory import PIECE_BYTES
from .url_prefix import check_at_start
from .validation import check_configuration

__all__ = ["Application", "DurableStreams", "Message", "Receive", "Scope", "Send"]

STREAM_PATH = "stream_path"
"""The name of the stream's path in URL patterns of Channels and Django."""

FIRST_ERROR_STATUS = 400
"""The lowest status of an error."""


class DurableStreams:
    """An ASGI application that serves streams.

    Args:
        prefix: the path below which the streams are, with a slash at both ends. With None the application serves no
            streams by path, because Django's URLs do. A `stream_path` matched by Channels' URLRouter counts first.
        fallback: the application for all other requests and protocols, mostly Django's. It gets its lifespan, too.

    Raises:
        ValueError: the prefix lacks a slash.
        ImproperlyConfigured: streams cannot be served with the project's settings. The message says why.
    """

    def __init__(self, *, prefix: str | None = "/v1/stream/", fallback: Application | None = None) -> None:
        if prefix is not None and not (prefix.startswith("/") and prefix.endswith("/")):
            raise ValueError(f"The prefix {prefix!r} must begin and end with a slash.")
        if apps.ready:  # otherwise `AppConfig.ready` checks it
            check_configuration()
        self.prefix = prefix
        self._fallback = fallback
        self._is_installed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            if not self._is_installed:
                self._install(receive)
            path = self.stream_path(scope)
            if path is not None:
                await _serve(path, scope, receive, send)
                return
        elif kind == "lifespan":
            self._install(receive)
            await asyncio.to_thread(check_at_start, self.prefix)
            await serve_lifespan(self._fallback, scope, receive, send)
            return
        if self._fallback is not None:
            await self._fallback(scope, receive, send)
        elif kind == "http":
            await send_response(send, refuse(StreamNotFound("There are no streams at this path.")))
        else:
            raise ValueError(f"Streams cannot be served by the protocol {kind}. Give DurableStreams a fallback for it.")

    def _install(self, receive: Receive) -> None:
        """Let uvicorn make our connections, if this server is uvicorn."""
        self._is_installed = True
        server = getattr(receive, "__self__", None)
        if config().uvicorn_fast_path and type(server).__module__.startswith("uvicorn."):
            try:
                from .uvicorn.installation import install
            except ImportError:  # without httptools, uvicorn parses requests with h11
                return
            install(server, DurableStreams)

    def stream_path(self, scope: Scope) -> str | None:
        """Return the path of the stream that a request is for, or None if it is for no stream."""
        route = scope.get("url_route")
        if route is not None and STREAM_PATH in route["kwargs"]:
            return str(route["kwargs"][STREAM_PATH])
        return self.path_below(scope.get("root_path"), scope["path"])

    def path_below(self, root_path: str | None, path: str) -> str | None:
        """Return what `stream_path` returns for a request that no router has passed on.

        Args:
            root_path, path: as the server gives them, percent-decoded.
        """
        name = script_name(root_path)
        if name:
            path = below(name, path)
        prefix = self.prefix
        return path[len(prefix) :] if prefix is not None and path.startswith(prefix) else None


class _AsgiRequest(Request):
    """A request in ASGI messages."""

    __slots__ = ("_disconnect", "_receive", "_scope", "_send", "_sending", "_unsent", "is_unfinished")

    def __init__(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope["method"], path, scope["query_string"], scope["headers"])
        self._scope = scope
        self._receive = receive
        self._send = send
        self._disconnect: asyncio.Future[None] | None = None
        self._sending: Awaitable[None] | None = None
        self._unsent: list[Message] = []
        self.is_unfinished = False

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
        return outer_path(self._scope.get("root_path"), self._scope["path"])

    async def read_body(self) -> bytes:
        self.is_unfinished = True
        announced = admitted_length(self.headers)
        message, rest = start_for_value(self._receive())
        if rest is None and self._is_small(message, announced):
            body = check_whole(self.headers, announced, message.get("body", b""))
        else:
            try:
                async with asyncio.timeout(config().receive_timeout):
                    body = await self._read_parts(message if rest is None else await rest, announced)
            except TimeoutError:
                raise too_slow() from None
        self.is_unfinished = False
        return body

    async def _read_parts(self, message: Message, announced: int | None) -> bytes:
        if self._is_small(message, announced):
            return check_whole(self.headers, announced, message.get("body", b""))
        self.arriving = arriving = ArrivingBody(self.headers, announced)
        while message["type"] != "http.disconnect":
            arriving.add(message.get("body", b""))
            if self._is_last(message, arriving.size, announced):
                return arriving.whole()
            message = await self._receive()
        raise ClientDisconnected

    def _is_small(self, message: Message, announced: int | None) -> bool:
        """Return whether this message has a whole body that is too small to count towards MAX_BODY_MEMORY."""
        if message["type"] != "http.request":
            return False
        size = len(message.get("body", b""))
        return size <= SMALL_BYTES and self._is_last(message, size, announced)

    def _is_last(self, message: Message, size: int, announced: int | None) -> bool:
        """Return whether a body of this size ends with a message.

        Some servers say in another message that there is no more. Over HTTP/2 that message is waited for: the end of a
        request may be a frame of its own, and hypercorn drops the connection if one comes after the response.
        """
        return not message.get("more_body", False) or (size == announced and self._is_http_1())

    def _is_http_1(self) -> bool:
        return str(self._scope["http_version"]).startswith("1")

    def must_hang_up(self) -> bool:
        """Return whether a refusal ends the connection, because much of the body may still arrive."""
        if not self._is_http_1() or self.body is not None:
            return False
        return self.is_unfinished or has_large_rest(self.headers)

    async def take_small_rest(self) -> None:
        """Take the body of a refused request over HTTP/2, if it is small, for the reason of `_is_last`."""
        if self._is_http_1() or self.body is not None:
            return
        with suppress(DurableStreamsError, TimeoutError):
            length = admitted_length(self.headers)
            if length is None or length > SMALL_BYTES:
                return
            async with asyncio.timeout(LINGER_SECONDS):
                while (await self._receive()).get("more_body", False):
                    pass

    def when_left(self, tell: Callable[[], object]) -> None:
        self._disconnect = asyncio.ensure_future(_until_disconnect(self._receive))
        self._disconnect.add_done_callback(lambda _: tell())

    def let_leave(self) -> None:
        if self._disconnect is not None:
            self._disconnect.cancel()

    def send_now(self, response: Response) -> bool:
        if not sends_at_once(self._send) or len(response.body) > PIECE_BYTES:
            return False
        for message in messages_of(response):
            if self._sending is not None:
                self._unsent.append(message)
            else:
                self._sending = start(self._send(message))
        return True

    async def finish_sending(self) -> None:
        """Send the rest of a response that `send_now` has started.

        Raises:
            OSError: the client takes no data, or has left.
        """
        if self._sending is not None:
            await Sender(self._send).finish(self._sending)
            for message in self._unsent:
                await Sender(self._send).send(message)


async def _serve(path: str, scope: Scope, receive: Receive, send: Send) -> None:
    request = None
    try:
        request = _AsgiRequest(path, scope, receive, send)
        tracing.start(request)
        check_host(request.headers)
        response = await respond(request)
    except DurableStreamsError as error:
        response = refuse(error)
    except ClientDisconnected:
        # The client may still read: some servers report a client that has closed only its sending half as gone.
        response = refuse(IncompleteBody("The body is incomplete. Send the request again."))
        request = None
    request_numbers.count(request_numbers.asgi, request, response.status)
    try:
        if isinstance(response, EventStream):
            await _send_events(response, receive, send)
        elif response.sent:
            assert request is not None
            await request.finish_sending()
        else:
            if scope["method"] == "HEAD":
                response.body = b""  # some servers do not leave it out
            if response.status >= FIRST_ERROR_STATUS and request is not None:
                if request.must_hang_up():
                    await _send_and_hang_up(response, receive, send)
                    return
                await request.take_small_rest()
            await send_response(send, response)
    except OSError:  # some servers say so that the client has left
        pass
    except ServiceUnavailable as error:  # there is no room for a long body
        with suppress(OSError):
            await send_response(send, refuse(error))


async def _until_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send_and_hang_up(response: Response, receive: Receive, send: Send) -> None:
    """Send a response to a client that may still be sending, and end the connection.

    Servers would take the whole rest of the body. But a close with unread data resets the connection, and the client
    may lose the response. So a limited part of the rest is taken and dropped.
    """
    closing = Response(response.status, [*response.headers, (b"connection", b"close")], response.body)
    start, body = messages_of(closing)
    sender = Sender(send)
    await sender.send(start)
    await sender.send({**body, "more_body": True})
    bytes_left = config().max_append_bytes
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while bytes_left > 0:
                message = await receive()
                if not message.get("more_body", False):
                    break
                bytes_left -= len(message.get("body", b""))
    except TimeoutError:
        pass
    await sender.send({"type": "http.response.body", "body": b""})


async def _send_events(response: EventStream, receive: Receive, send: Send) -> None:
    disconnected = asyncio.ensure_future(_until_disconnect(receive))
    try:
        await send_events(response, AsgiOutlet(send), disconnected)
    finally:
        disconnected.cancel()
