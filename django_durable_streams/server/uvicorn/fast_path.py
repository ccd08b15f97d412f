"""The shortest way in: stream requests answered on uvicorn's own connections, where this app is all that it serves.

For each request uvicorn makes a scope, a task and some messages, which takes longer than to answer it. A connection of
this kind looks at what comes in first: a plain request for a stream is handed to the handlers as it is, and answered
with one write. Everything else goes on to uvicorn, which sees it as if nothing had been before.

What an application between the two would do must not be passed over, so this is only for servers whose application is
the `DurableStreams` itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import quote

from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from ...conf import config
from ...protocol.errors import DurableStreamsError, RequestTimeout, ServiceUnavailable
from ...protocol.messages import ENDING_SECONDS, ClientDisconnected, Header, Response
from ...runtime.results import Reply
from ..answers import EventStream, Work
from ..bodies import LINGER_SECONDS, SMALL_BYTES
from ..coroutines import resume
from ..dispatch import needs_task, refuse, respond, start_request
from ..event_stream import send_events
from ..hosts import check_host
from . import request_heads
from .chunked import ChunkedOutlet
from .connection import Connection
from .uploads import DirectRequest, Upload

MAX_KEPT_BYTES = 256 * 1024
"""Bytes of a body up to which it is sent in one piece with its head, and kept like that where it is shared."""

_WITH_BODY = frozenset({"POST", "PUT"})

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def install(application: object, prefix: str | None, server: object) -> None:
    """Have uvicorn make connections of this kind from now on, if nothing stands between it and the application.

    Where something does, or the application has no streams of its own, they are ones with limits and deadlines.

    Args:
        prefix: path below which the application has its streams, if it has some.
        server: the part of uvicorn that has called the application for its lifespan or for a request.
    """
    settings = _settings_of(server)
    if settings is None or settings.http_protocol_class is not HttpToolsProtocol:
        return
    loaded: object = settings.loaded_app
    if isinstance(loaded, ProxyHeadersMiddleware):  # heads that it would look at are left to uvicorn
        loaded = loaded.app
    is_alone = loaded is application and settings.limit_concurrency is None and not settings.root_path
    if is_alone and prefix is not None:
        settings.http_protocol_class = cast("type[asyncio.Protocol]", partial(DirectProtocol, prefix=prefix))
    else:
        settings.http_protocol_class = Connection


def _settings_of(server: object) -> Config | None:
    if isinstance(server, RequestResponseCycle):  # without a lifespan, the first request has to do
        server = server.transport.get_protocol()
    found = getattr(server, "config", None)
    return found if isinstance(found, Config) else None


class DirectProtocol(Connection):
    """A connection of uvicorn's that answers plain requests for streams by itself.

    Args:
        prefix: path below which the streams are.
        options: uvicorn's.
    """

    def __init__(self, *, prefix: str, **options: Any) -> None:
        super().__init__(**options)
        self.prefix = prefix
        self._is_answering = False
        self._is_ending = False
        self._last_used = 0.0
        self._unread = 0  # bytes of the body that are still to come
        self._upload: Upload | None = None
        self._tell_left: Callable[[], object] | None = None

    def data_received(self, data: bytes) -> None:
        """Take in bytes: of a request that is answered here, or for uvicorn."""
        if self._unread:
            self._take_body(data)
        elif self._is_answering or self._waiting or self.flow.write_paused:
            self._keep(data)
        elif self._is_parsing or self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            super().data_received(data)
        else:
            self._take_request(data)

    def _take_request(self, data: bytes) -> None:
        end = data.find(request_heads.END, 0, request_heads.MAX_BYTES)
        read = (
            request_heads.read_once
            if end > request_heads.MAX_REMEMBERED_BYTES or data.startswith(b"PUT ")
            else request_heads.read
        )
        head = read(data[:end]) if end > 0 else None
        if head is None or not self._is_ours(head):
            super().data_received(data)
            return
        body = data[end + len(request_heads.END) :]
        missing = head.content_length - len(body)
        if missing > 0:
            if head.method in _WITH_BODY:
                self._read_then_answer(head, body)
            else:
                super().data_received(data)
            return
        if missing < 0:
            self._keep(body[missing:])
            body = body[:missing]
        self._answer(head, body)

    def _is_ours(self, head: request_heads.Head) -> bool:
        return head.path.startswith(self.prefix) and head.content_length <= config().max_append_bytes

    def _read_then_answer(self, head: request_heads.Head, part: bytes) -> None:
        """Answer a request whose body has come in part, or not yet: it is read once the request is allowed."""
        self._is_answering = True
        self._unread = head.content_length
        if part:
            self._waiting.append(part)
        request = DirectRequest(head, None, self)
        try:
            check_host(request.headers)
        except DurableStreamsError as error:
            self.write(request, refuse(error))
            return
        self.go_on(request, respond(request))
        if self._waiting and self._upload is None:
            self.flow.hold()

    def start_upload(self, head: request_heads.Head) -> Upload:
        """Take the body of the request that is under way, from what has come of it on.

        Raises:
            ClientDisconnected: the client has left.
        """
        if self.transport.is_closing():
            raise ClientDisconnected
        upload = self._upload = Upload(head.headers, head.content_length, self.loop)
        parts, self._waiting = self._waiting, []
        self.flow.release()
        for part in parts:
            self._take_body(part)
        return upload

    def end_upload(self) -> None:
        """The body is there, or is not waited for any more."""
        self._upload = None

    def _take_body(self, data: bytes) -> None:
        if self._is_answering and self._upload is None:
            self._keep(data)  # whether it is wanted is still to be found out
            return
        part, rest = data[: self._unread], data[self._unread :]
        self._unread -= len(part)
        if self._upload is not None:
            if rest:
                self._keep(rest)
            self._upload.add(part)
        elif not self._unread:
            # The last of a body that nobody wants.
            if self._is_ending:
                self.close()
            elif rest:
                self.data_received(rest)

    def _may_go_on(self) -> bool:
        return super()._may_go_on() and not (self._is_answering or self.flow.write_paused)

    def _answer(self, head: request_heads.Head, body: bytes) -> None:
        self._is_answering = True
        request = DirectRequest(head, body, self)
        try:
            check_host(request.headers)
        except DurableStreamsError as error:
            self.write(request, refuse(error))
            return
        begun = start_request(request, request)
        if begun is not None:
            self.go_on(request, begun)

    def go_on(self, request: DirectRequest, outcome: Response | EventStream | Work) -> None:
        """Send the response to a request, or do what leads to it."""
        if isinstance(outcome, Response):
            if not outcome.sent:
                self.write(request, outcome)
        elif isinstance(outcome, EventStream):
            self._start_task(self._send_events(request, outcome))
        elif needs_task():
            self._start_task(self._finish(request, outcome))
        else:
            self._step(request, outcome)

    def _step(self, request: DirectRequest, work: Work, reply: Reply | None = None) -> None:
        """Go on with a request until it has to wait, or to its end."""
        try:
            awaited = work.send(None)
        except StopIteration as done:
            self.go_on(request, done.value)
            return
        except ClientDisconnected:
            self._end_answer()
            return
        if type(awaited) is Reply:
            awaited.then = partial(self._step, request, work)
        else:
            self._start_task(self._finish(request, resume(work, awaited)))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _finish(self, request: DirectRequest, rest: Awaitable[Response | EventStream]) -> None:
        try:
            outcome = await rest
        except ClientDisconnected:
            self._end_answer()
        except BaseException:  # nobody will answer any more
            self.close()
            raise
        else:
            self.go_on(request, outcome)

    def write(self, request: DirectRequest, response: Response) -> None:
        """Answer the request that is under way."""
        if self.access_log:
            self._log(request, response.status)
        if self._unread > SMALL_BYTES or (self._unread and response.status == RequestTimeout.status):
            self._is_ending = True
        defaults = self.server_state.default_headers
        rest = b""
        if response.wire is not None and response.wire[0] is defaults and not self._is_ending:
            data = response.wire[1]
        elif len(response.body) > MAX_KEPT_BYTES and request.method != "HEAD":
            data, rest = self.head(response), response.body  # not as one: those who do not read share the body
        else:
            data = self._data(request, response)
            if response.is_shared and not self._is_ending:
                response.wire = defaults, data
        if not self.transport.is_closing():
            self.transport.write(data)
            if rest:
                self.transport.write(rest)
        self._end_answer()

    def prepare(self, request: DirectRequest, response: Response) -> None:
        """Have a response ready as it is sent."""
        response.wire = self.server_state.default_headers, self._data(request, response)

    def _data(self, request: DirectRequest, response: Response) -> bytes:
        head = self.head(response)
        return head if request.method == "HEAD" else head + response.body

    async def _send_events(self, request: DirectRequest, response: EventStream) -> None:
        if self.access_log:
            self._log(request, response.status)
        left = self.loop.create_future()
        self.when_left(partial(_set, left))
        try:
            await send_events(response, ChunkedOutlet(self.transport, self.flow, self.head), left)
        finally:
            self._end_answer()

    def head(self, response: Response | EventStream) -> bytes:
        """Return the status and the headers of a response."""
        lines = [_STATUS_LINES[response.status], _default_lines(self.server_state.default_headers)]
        for name, value in response.headers:
            lines += (name, b": ", value, b"\r\n")
        if isinstance(response, EventStream):
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"connection: close\r\n\r\n" if self._is_ending else b"\r\n")
        return b"".join(lines)

    def _end_answer(self) -> None:
        self._is_answering = False
        self._tell_left = None
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self._is_ending and not self._unread:
            self.close()
            return
        if self._is_ending:
            self.loop.call_later(LINGER_SECONDS, self.close)
        self._last_used = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._look_in(self.timeout_keep_alive)
        if self._waiting:
            self.loop.call_soon(self._go_on)  # not from here: there may be a thousand requests in line

    def when_left(self, tell: Callable[[], object]) -> None:
        """Have a function called when the client leaves before the request that is under way is answered."""
        if self.transport.is_closing():  # it left while its stream was looked up
            tell()
        else:
            self._tell_left = tell

    def scope_of(self, head: request_heads.Head) -> dict[str, Any]:
        """Return the ASGI scope of a request, for those who ask for it."""
        return {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "method": head.method,
            "root_path": "",
            "path": head.path,
            "raw_path": quote(head.path).encode("ascii"),
            "query_string": head.query,
            "headers": list(head.headers.items()),
            "state": self.app_state.copy(),
        }

    def _log(self, request: DirectRequest, status: int) -> None:
        client = f"{self.client[0]}:{self.client[1]}" if self.client else ""
        target = quote(request.root() + request.path)
        if request.query:
            target += "?" + request.query.decode("ascii")
        self.access_logger.info('%s - "%s %s HTTP/%s" %d', client, request.method, target, "1.1", status)

    def _look_in(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has not been used for long enough.

        One timer looks in now and then; to set one for each request takes longer than the request's head.
        """
        self.timeout_keep_alive_task = None
        left = self._last_used + self.timeout_keep_alive - self.loop.time()
        if self._is_answering or self._waiting:
            self._look_in(self.timeout_keep_alive)
        elif left > 0:
            self._look_in(left)
        else:
            super().timeout_keep_alive_handler()

    def resume_writing(self) -> None:
        """The client has taken what it was sent."""
        super().resume_writing()
        self._go_on()

    def shutdown(self) -> None:
        """The server is about to end: so does the connection, after the answer that is under way."""
        if not self._is_answering:
            super().shutdown()
            return
        self._is_ending = True
        self._watch_end()
        if self._upload is not None:
            ending = ServiceUnavailable("The server is about to end. Try again.")
            self.loop.call_later(ENDING_SECONDS, self._upload.give_up, ending)

    def _was_used(self) -> bool:
        return self._is_answering or self._last_used > 0 or super()._was_used()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        super().connection_lost(exc)
        if self._upload is not None:
            self._upload.give_up(ClientDisconnected())
        tell, self._tell_left = self._tell_left, None
        if tell is not None:
            tell()


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_default: tuple[list[Header], bytes] = [], b""


def _default_lines(found: list[Header]) -> bytes:
    """Return the headers that uvicorn adds to every response. It makes a new list of them every second."""
    global _default
    if _default[0] is not found:
        _default = found, b"".join(b"%b: %b\r\n" % header for header in found)
    return _default[1]
