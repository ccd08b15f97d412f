"""uvicorn's connections with limits, with deadlines, and with support for requests that offer an upgrade.

uvicorn has none of these. Serves every request of the connection, whoever answers it. Knows no streams.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...conf import config
from ...protocol.messages import ENDING_SECONDS
from .. import request_numbers
from .handed_over import Reason

MAX_HEAD_BYTES = 64 * 1024
"""Bytes of the longest request line and headers."""

PIECE_BYTES = 4 * 1024
"""Bytes that are parsed at a time. Until it is answered, a request takes a hundred times its own size."""

MIN_TAKEN_BYTES = 64 * 1024
"""Bytes that a client takes within SEND_TIMEOUT, unless fewer are left. Byte after byte would last for weeks."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HeldFlow(FlowControl):
    """Flow control that stops reading while the connection holds data. Nobody else can resume it then."""

    is_held = False

    def hold(self) -> None:
        """Stop reading until `release`."""
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Read again."""
        self.is_held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Read again, unless the flow is held. uvicorn asks for this with each response."""
        if not self.is_held:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's with limits and deadlines.

    - A request that offers an upgrade to anything but a WebSocket is served as HTTP/1.1, with its body (RFC 9110,
      section 7.8). httptools takes the offer for the end of the request.
    - A head has at most MAX_HEAD_BYTES, and is complete within RECEIVE_TIMEOUT.
    - Requests of a client that does not wait for answers are parsed a few at a time.
    - Bytes outside of requests, such as empty lines, do not keep the connection open.
    - A client that takes less than MIN_TAKEN_BYTES within SEND_TIMEOUT is cut off.
    - A lost connection has no timers.

    Args:
        options: uvicorn's.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.flow: HeldFlow
        self._held_data: list[bytes] = []
        """Data that waits: the next requests of a client that does not wait for answers."""
        self._is_parsing = False
        self._is_in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._ignores_upgrade = False
        self._send_timer: asyncio.TimerHandle | None = None
        self._unsent = 0
        """Unsent bytes when the timer was set, or -1 if the client has taken most of them since."""
        self._is_server_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected. It has to send a head in time."""
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        self._head_timer = self.loop.call_later(config().receive_timeout, self._time_out_head)

    # Requests

    def data_received(self, data: bytes) -> None:
        """Give data to uvicorn, until a request has to wait."""
        start = 0
        while start < len(data):
            if self.pipeline or self._held_data:
                self._hold(data[start:])
                return
            if not self._parse(data[start : start + PIECE_BYTES]):
                return
            start += PIECE_BYTES

    def _parse(self, data: bytes) -> bool:
        """Give a piece to uvicorn. Return whether it can take more."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            message = "Invalid HTTP request received."
            self.logger.warning(message)
            self.send_400_response(message)
            self._watch_sending()
            return False
        except httptools.HttpParserUpgrade as upgrade:
            if not self._ignores_upgrade:
                self._stop_timers()
                self.handle_websocket_upgrade()
                return False
            self._continue_without_upgrade(data[upgrade.args[0] :])
        if self._is_in_head:
            self._check_head(len(data))
        return not self.transport.is_closing()

    def _hold(self, data: bytes) -> None:
        self._held_data.append(data)
        self.flow.hold()

    def _may_resume(self) -> bool:
        """Return whether held data can be parsed."""
        return not self.pipeline

    def _resume(self) -> None:
        """Parse the held data, and read again."""
        is_waiting = self._held_data or self.flow.is_held
        if not is_waiting or self.transport.is_closing() or not self._may_resume():
            return
        data = b"".join(self._held_data)
        self._held_data = []
        self.flow.release()
        if data:
            self.data_received(data)

    def on_message_begin(self) -> None:
        """A request begins."""
        self._unset_keepalive_if_required()
        self._is_parsing = self._is_in_head = True
        HttpToolsProtocol.on_message_begin(self)  # faster than super(), which each request would pay for

    def on_headers_complete(self) -> None:
        """The head of a request is complete."""
        self._unset_keepalive_if_required()  # uvicorn sets it again when the response before has ended
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._is_in_head = False
        self._head_bytes = 0
        HttpToolsProtocol.on_headers_complete(self)
        if self.parser.should_upgrade() and not self._should_upgrade():
            self._ignores_upgrade = True

    def on_chunk_header(self) -> None:
        """A chunk of a body begins. Fields after the last chunk are dropped: uvicorn would add them without a limit."""
        if type(self.headers) is list:
            self.headers = _CompleteHeaders(self.headers)

    def on_message_complete(self) -> None:
        """A request is complete. Where it offers an upgrade, httptools says so too early."""
        if self._ignores_upgrade:
            return
        self._is_parsing = False
        HttpToolsProtocol.on_message_complete(self)

    def _continue_without_upgrade(self, rest: bytes) -> None:
        """Parse the data after a head that offers an upgrade, as if the head did not.

        httptools has parsed the head and dropped the body. Another parser gets the headers that frame the body, and
        then the body.
        """
        self._ignores_upgrade = False
        framing = [b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING]
        resumed = _ResumedRequest(self)
        self.parser = httptools.HttpRequestParser(resumed)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(framing))
        resumed.is_in_head = False
        if rest:
            self.data_received(rest)

    def _check_head(self, size: int) -> None:
        """Limit the size and the time of the current head."""
        if self._head_timer is not None and not self._head_bytes:  # set when the client connected
            self._head_timer.cancel()
            self._head_timer = None
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(_TOO_LARGE)
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(config().receive_timeout, self._time_out_head)

    def _time_out_head(self) -> None:
        self._head_timer = None
        if self._is_in_head:
            self._refuse_head(_TOO_SLOW)
        elif not self._was_used():
            self.close()

    def _was_used(self) -> bool:
        """Return whether the connection has had a request."""
        return self.cycle is not None

    def _refuse_head(self, response: bytes) -> None:
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.write(response)
        self.close()

    # Responses

    def pause_writing(self) -> None:
        """The client takes data more slowly than it is sent."""
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        """The client has taken the data."""
        super().resume_writing()
        self._unsent = -1

    def on_response_complete(self) -> None:
        """A response is written."""
        HttpToolsProtocol.on_response_complete(self)
        if self._held_data and not self.pipeline:
            self.loop.call_soon(self._resume)
        if self.transport.is_closing():
            self._watch_sending()

    def close(self) -> None:
        """Close the connection once the client has taken the data."""
        if not self.transport.is_closing():  # asyncio's transport for TLS breaks when it is closed twice
            self.transport.close()
        self._watch_sending()

    def timeout_keep_alive_handler(self) -> None:
        """The connection has been idle for long enough."""
        super().timeout_keep_alive_handler()
        self._watch_sending()

    def shutdown(self) -> None:
        """The server is about to end. It does not wait long for a client that takes no data."""
        if not self.transport.is_closing():
            super().shutdown()
        self._watch_end()

    def _watch_end(self) -> None:
        self._is_server_ending = True
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        self._watch_sending()

    def _watch_sending(self) -> None:
        """Cut off a client that takes too little data within SEND_TIMEOUT, or does not end TLS at the server's end."""
        unsent = self._unsent_bytes()
        if self._send_timer is None and (unsent or self._has_to_end_tls()):
            self._unsent = unsent
            seconds = ENDING_SECONDS if self._is_server_ending else config().send_timeout
            self._send_timer = self.loop.call_later(seconds, self._check_progress)

    def _check_progress(self) -> None:
        self._send_timer, unsent = None, self._unsent_bytes()
        has_taken_enough = self._unsent < 0 or unsent <= max(0, self._unsent - MIN_TAKEN_BYTES)
        if has_taken_enough and (unsent or not self._has_to_end_tls()):
            self._watch_sending()
        else:
            self.transport.abort()

    def _unsent_bytes(self) -> int:
        try:
            return self.transport.get_write_buffer_size()
        except AttributeError:  # uvicorn has closed asyncio's transport for TLS twice
            return 0

    def _has_to_end_tls(self) -> bool:
        """Return whether the server ends, and a client has to answer the end of TLS. It may have vanished."""
        return self._is_server_ending and self.scheme == "https" and self.transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        super().connection_lost(exc)
        self._held_data = []
        # uvicorn keeps its timer if the connection was reset.
        self._unset_keepalive_if_required()
        self._stop_timers()

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._send_timer = None


_WRAPPER = Reason.WRAPPER.value  # which is a function call in Python


class CountedConnection(Connection):
    """A connection of a server that has no fast path, because a wrapper stands in front of the streams."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._exits = request_numbers.fast_path_exits.here()

    def on_headers_complete(self) -> None:
        """The head of a request is complete."""
        self._exits[_WRAPPER] += 1
        super().on_headers_complete()


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class _CompleteHeaders(list[tuple[bytes, bytes]]):
    """Headers that take no fields from after a body in chunks."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Drop a field."""


class _ResumedRequest:
    """Passes a parser's findings on to a connection that has the head already: the body, and then whole requests."""

    def __init__(self, connection: Connection) -> None:
        self.is_in_head = True
        self._connection = connection
        self.on_body = connection.on_body
        self.on_chunk_header = connection.on_chunk_header
        self.on_message_complete = connection.on_message_complete

    def on_message_begin(self) -> None:
        if not self.is_in_head:
            self._connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.is_in_head:
            self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_in_head:
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.is_in_head:
            self._connection.on_headers_complete()
