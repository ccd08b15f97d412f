"""The fast path: requests for streams that are answered on uvicorn's own connections.

For each request uvicorn makes a scope, a task, an event and several messages, which takes longer than the answer. A
connection of the fast path parses a plain request itself, gives it to the handlers, and answers with one write. Reads
of 1 KB reach 164 % of a bare ASGI application with a constant answer (docs/decisions/uvicorn-fast-path.md).

The invariant: a request gets the same response here as through ASGI. It holds because the handlers are the same, and
because all other bytes go on to uvicorn, as if nothing had looked at them (`handed_over` has the reasons). There
is a fast path only to streams that the server's application or Channels' routers call themselves, so that no other
middleware is passed over (`mount`). UVICORN_FAST_PATH switches it off. Knows no operations: it turns bytes into
requests, and responses into bytes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from ...conf import config
from ...protocol.errors import DurableStreamsError, RequestTimeout, ServiceUnavailable
from ...protocol.messages import ENDING_SECONDS, ClientDisconnected, Response
from ...runtime import tracing
from ...runtime.results import Reply
from .. import request_numbers
from ..answers import EventStream, Work
from ..bodies import LINGER_SECONDS, SMALL_BYTES
from ..coroutines import end_wait, resume
from ..dispatch import needs_task, prepare_response, refuse, respond, start_request
from ..event_stream import send_events
from ..hosts import check_host
from ..response_policy import common_headers
from ..writes import only_offset
from .access_log import log_request
from .chunked import ChunkedOutlet
from .downloads import DownloadConnection
from .handed_over import Reason
from .mount import Mount, Place
from .request import FastPathRequest, Prepared
from .request_heads import END, MAX_BYTES, MAX_CACHED_BYTES, Head, parse, parse_once
from .response_heads import bytes_around, encode_head, keep_around

MAX_JOINED_BYTES = 256 * 1024
"""Bytes of a body up to which it is sent in one piece with its head. Where it is shared, the piece is cached."""

NO_CONTENT = Response(204, [], is_shared=True)
"""Responses to plain appends have its status, and the common headers that belong to it."""

_WITH_BODY = frozenset({"POST", "PUT"})


class FastPathConnection(DownloadConnection):
    """A connection of uvicorn's that answers plain requests for streams itself.

    Args:
        mount: the streams in the server's application.
        options: uvicorn's.
    """

    def __init__(self, *, mount: Mount, **options: Any) -> None:
        super().__init__(**options)
        self.mount = mount
        self._counts = request_numbers.fast_path.here()
        self._exits = request_numbers.fast_path_exits.here()
        self._last_used = 0.0
        # A client sends the same headers again and again, which are parsed once. So they are looked at once, too.
        self.checked_headers: Mapping[bytes, bytes] | None = None
        self.origin: bytes | None = None
        self._on_left: Callable[[], object] | None = None

    # Requests

    def data_received(self, data: bytes) -> None:
        """Take bytes: of a request that is answered here, or for uvicorn."""
        if self._unread:
            self._take_body(data)
        elif self._is_answering or self._held_data or self.flow.write_paused:
            self._hold(data)
        elif self._is_parsing:
            super().data_received(data)
        elif self.pipeline or not (self.cycle is None or self.cycle.response_complete):
            self._hand_over(data, Reason.PIPELINED)
        else:
            self._take_request(data)

    def _hand_over(self, data: bytes, reason: Reason) -> None:
        """Give a request to uvicorn."""
        self._exits[reason] += 1
        super().data_received(data)

    def _take_request(self, data: bytes) -> None:
        end = data.find(END, 0, MAX_BYTES)
        if end <= 0:
            is_large = len(data) >= MAX_BYTES
            self._hand_over(data, Reason.LARGE_HEAD if is_large else Reason.HEAD_IN_PARTS)
            return
        is_new = data.startswith(b"PUT ")
        head = parse_once(data[:end]) if is_new or end > MAX_CACHED_BYTES else parse(data[:end])
        if isinstance(head, Reason):
            self._hand_over(data, head)
            return
        place = self.mount.place(head.path, is_new=is_new)
        if place is None:
            self._hand_over(data, Reason.OTHER_PATH)
            return
        body = data[end + len(END) :]
        missing = head.content_length - len(body)
        if head.content_length or self.limit_concurrency is not None:  # not with every read
            reason = self._reason_against(head, missing)
            if reason is not None:
                self._hand_over(data, reason)
                return
        if missing > 0:
            self._expect_body(head.content_length, body)
            self._answer(head, place, None)
            self._wait_for_permission()
            return
        if missing < 0:
            self._hold(body[missing:])
            body = body[:missing]
        self._answer(head, place, body)

    def _reason_against(self, head: Head, missing: int) -> Reason | None:
        """Return the reason why a request for a stream is not answered here, or None.

        Args:
            missing: bytes of the body that have not arrived.
        """
        if head.content_length > config().max_append_bytes or (missing > 0 and head.method not in _WITH_BODY):
            return Reason.LENGTH
        limit = self.limit_concurrency
        if limit is not None and (len(self.connections) >= limit or len(self.tasks) >= limit):
            return Reason.CONCURRENCY  # uvicorn refuses it
        return None

    def _answer(self, head: Head, place: Place, body: bytes | None) -> None:
        """Answer a request. If its body has not arrived, it is read once the request is allowed."""
        self._is_answering = True
        if head.closes:
            self._is_ending = True
        request = FastPathRequest(head, place, body, self)
        if tracing.tracer is not None:
            tracing.start(request)
        if head.headers is not self.checked_headers:
            try:
                check_host(head.headers)
            except DurableStreamsError as error:
                self.write(request, refuse(error))
                return
            self.checked_headers, self.origin = head.headers, None
        outcome = respond(request) if body is None else start_request(request, request)
        if outcome is not None:
            self.proceed(request, outcome)

    # Responses

    def proceed(self, request: FastPathRequest, outcome: Response | EventStream | Work) -> None:
        """Send the response to a request, or do the work that leads to it."""
        if isinstance(outcome, Response):
            if not outcome.sent:
                self.write(request, outcome)
        elif isinstance(outcome, EventStream):
            self._start_task(self._send_events(request, outcome))
        elif needs_task():
            self._start_task(self._finish(request, outcome))
        else:
            self._step(request, outcome)

    def _step(self, request: FastPathRequest, work: Work, reply: Reply | None = None) -> None:
        """Run the work for a request to its next wait, or to its end. A wait for a `Reply` needs no task."""
        try:
            waits_for = work.send(None)
        except StopIteration as done:
            self.proceed(request, done.value)
            return
        except ClientDisconnected:
            self._end_answer()
            return
        if type(waits_for) is Reply:
            waits_for.then = partial(self._step, request, work)
        else:
            self._start_task(self._finish(request, resume(work, waits_for)))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _finish(self, request: FastPathRequest, rest: Awaitable[Response | EventStream]) -> None:
        try:
            outcome = await rest
        except ClientDisconnected:
            self._end_answer()
        except BaseException:  # there will be no answer
            self.close()
            raise
        else:
            self.proceed(request, outcome)

    def write(self, request: FastPathRequest, response: Response) -> None:
        """Send the response to the current request."""
        if self._unread and (self._unread > SMALL_BYTES or response.status == RequestTimeout.status):
            self._is_ending = True
        default_headers = self.server_state.default_headers
        large = b""
        if response.wire is not None and response.wire[0] is default_headers and not self._is_ending:
            data = response.wire[1]
        elif len(response.body) > MAX_JOINED_BYTES and request.method != "HEAD":
            # The body stays by itself: clients that do not read share it.
            response = self.admit_download(response)
            data, large = encode_head(response, default_headers, self._is_ending), response.body
        else:
            data = encode_head(response, default_headers, self._is_ending)
            if request.method != "HEAD":
                data += response.body
            if response.is_shared and not self._is_ending:
                response.wire = default_headers, data
        self._send(request, response.status, data, large)

    def prepare(self, request: FastPathRequest, value: object) -> Prepared | None:
        """Encode the response to an outcome that the engine is about to commit, or return None."""
        default_headers = self.server_state.default_headers
        offset = only_offset(value)
        if offset is not None:
            added = common_headers(request, NO_CONTENT)
            around = bytes_around(added, default_headers)
            if around is not None:
                return NO_CONTENT.status, around[0] + offset + around[1]
        response = prepare_response(request, value)
        if response is None:
            return None
        data = encode_head(response, default_headers, False) + response.body
        if offset is not None:
            keep_around(data, offset, added, default_headers)
        return response.status, data

    def send_prepared(self, request: FastPathRequest, prepared: Prepared) -> bool:
        """Send a prepared response, unless the connection ends with it."""
        if self._is_ending:
            return False
        self._send(request, *prepared)
        return True

    def _send(self, request: FastPathRequest, status: int, data: bytes, large: bytes = b"") -> None:
        """Send an encoded response: one piece, or its head and a body that stays by itself."""
        self._counts[request.operation or request.method, status] += 1
        if tracing.tracer is not None:
            tracing.end(request, status)
        if self.access_log:
            log_request(self, request, status)
        transport = self.transport
        if not transport.is_closing():
            transport.write(data)
        if large or self.flow.write_paused:
            self.start_download(large or data, 0 if large else len(data))
        else:
            self._end_answer()

    async def _send_events(self, request: FastPathRequest, response: EventStream) -> None:
        self._counts[request.operation, response.status] += 1
        tracing.end(request, response.status)
        if self.access_log:
            log_request(self, request, response.status)
        disconnected = self.loop.create_future()
        self.when_left(partial(end_wait, disconnected))
        outlet = ChunkedOutlet(
            self.transport,
            self.flow,
            lambda stream: encode_head(stream, self.server_state.default_headers, self._is_ending),
        )
        try:
            await send_events(response, outlet, disconnected)
        finally:
            self._end_answer()

    def _end_answer(self) -> None:
        self._is_answering = False
        self._on_left = None
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
            self._start_idle_timer(self.timeout_keep_alive)
        if self._held_data or self.flow.is_held:
            self.loop.call_soon(self._resume)  # a call from here could nest as deep as there are waiting requests

    def when_left(self, tell: Callable[[], object]) -> None:
        """Call a function when the client leaves before the current request is answered."""
        if self.transport.is_closing():  # the client has left already
            tell()
        else:
            self._on_left = tell

    def _may_resume(self) -> bool:
        return super()._may_resume() and not (self._is_answering or self.flow.write_paused)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for long enough.

        One timer runs again and again. A timer for each request takes longer than to parse the request.
        """
        self.timeout_keep_alive_task = None
        seconds_left = self._last_used + self.timeout_keep_alive - self.loop.time()
        if self._is_answering or self._held_data:
            seconds_left = self.timeout_keep_alive
        if seconds_left > 0:
            self._start_idle_timer(seconds_left)
        else:
            super().timeout_keep_alive_handler()

    def _start_idle_timer(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def resume_writing(self) -> None:
        """The client has taken the data."""
        super().resume_writing()
        self._resume()

    def shutdown(self) -> None:
        """The server is about to end. The connection ends after the current answer."""
        if not self._is_answering:
            super().shutdown()
            return
        self._is_ending = True
        self._watch_end()
        if self._upload is not None:
            error = ServiceUnavailable("The server is about to end. Try again.")
            self.loop.call_later(ENDING_SECONDS, self._upload.give_up, error)

    def _was_used(self) -> bool:
        return self._is_answering or self._last_used > 0 or super()._was_used()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        super().connection_lost(exc)
        tell, self._on_left = self._on_left, None
        if tell is not None:
            tell()
