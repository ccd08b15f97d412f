"""uvicorn's connections with what uvicorn leaves out: limits, deadlines, and requests that offer to upgrade.

Knows nothing of streams. It serves every request that comes over the connection, whoever answers it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ...conf import config
from ...protocol.messages import ENDING_SECONDS

MAX_HEAD_BYTES = 64 * 1024
"""Bytes that a request's line and headers may have before they are complete."""

PIECE_BYTES = 4 * 1024
"""How much is parsed at a time: each request in it takes a hundred times its own size until it is answered."""

_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
_TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class HeldFlow(FlowControl):
    """Flow control in which reading rests, whoever resumes it, while something that came waits to be looked at."""

    is_held = False

    def hold(self) -> None:
        """Read no more until `release`."""
        self.is_held = True
        self.pause_reading()

    def release(self) -> None:
        """Read on."""
        self.is_held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        """Read on, unless it is held: uvicorn does so with each response, and while a response waits for its client."""
        if not self.is_held:
            super().resume_reading()


class Connection(HttpToolsProtocol):
    """A connection of uvicorn's.

    - A request that offers to upgrade to anything but a WebSocket is served as HTTP/1.1, with its body (RFC 9110,
      section 7.8). httptools takes the offer for the end of the request.
    - Its head has to be complete within RECEIVE_TIMEOUT, and is no larger than MAX_HEAD_BYTES.
    - Requests of a client that does not wait for answers are parsed a few at a time.
    - What is no request, such as empty lines between two, does not keep it open.
    - A client that takes nothing of what it is sent for SEND_TIMEOUT is cut off.
    - Once it is lost, no timer holds it.

    Args:
        options: uvicorn's.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.flow: HeldFlow
        # What came before it could be looked at: the next requests of a client that does not wait for answers.
        self._waiting: list[bytes] = []
        self._is_parsing = False
        self._is_in_head = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._ignores_upgrade = False
        self._send_timer: asyncio.TimerHandle | None = None
        self._unsent = 0  # bytes, when the timer was set
        self._is_server_ending = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Uvicorn has taken a client in. It has to say something."""
        super().connection_made(transport)
        self.flow = HeldFlow(transport)
        self._head_timer = self.loop.call_later(config().receive_timeout, self._head_is_late)

    # Requests

    def data_received(self, data: bytes) -> None:
        """Have uvicorn read what has come, as far as it need not wait."""
        start = 0
        while start < len(data):
            if self.pipeline or self._waiting:
                self._keep(data[start:])
                return
            if not self._parse(data[start : start + PIECE_BYTES]):
                return
            start += PIECE_BYTES

    def _parse(self, data: bytes) -> bool:
        """Have uvicorn read a piece, and return whether it can read more."""
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
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        if self._is_in_head:
            self._bound_head(len(data))
        return not self.transport.is_closing()

    def _keep(self, data: bytes) -> None:
        self._waiting.append(data)
        self.flow.hold()

    def _may_go_on(self) -> bool:
        """Whether what was kept can be looked at."""
        return not self.pipeline

    def _go_on(self) -> None:
        """Look at what was kept."""
        if not self._waiting or self.transport.is_closing() or not self._may_go_on():
            return
        data = b"".join(self._waiting)
        self._waiting = []
        self.flow.release()
        self.data_received(data)

    def on_message_begin(self) -> None:
        """A request has begun."""
        self._unset_keepalive_if_required()
        self._is_parsing = self._is_in_head = True
        HttpToolsProtocol.on_message_begin(self)  # quicker than super(), and felt at each request

    def on_headers_complete(self) -> None:
        """The head of a request is there."""
        self._unset_keepalive_if_required()  # it is set once more when the response before this has ended
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._is_in_head = False
        self._head_bytes = 0
        HttpToolsProtocol.on_headers_complete(self)
        if self.parser.should_upgrade() and not self._should_upgrade():
            self._ignores_upgrade = True

    def on_chunk_header(self) -> None:
        """A chunk of a body begins. What comes after the last one would be added to the headers, however much it is."""
        if type(self.headers) is list:
            self.headers = _CompleteHeaders(self.headers)

    def on_message_complete(self) -> None:
        """A request has come whole, unless that is only what httptools makes of an offer to upgrade."""
        if self._ignores_upgrade:
            return
        self._is_parsing = False
        HttpToolsProtocol.on_message_complete(self)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read on behind a head that has offered to upgrade, as if it had not.

        httptools has handed over the head and lost the body. Another parser is given as much of the head as says how
        the body is framed, and then what has come of it.
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

    def _bound_head(self, size: int) -> None:
        """See that the head that is coming in comes to its end."""
        if self._head_timer is not None and not self._head_bytes:  # of the connection's beginning
            self._head_timer.cancel()
            self._head_timer = None
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head(_TOO_LARGE)
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(config().receive_timeout, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_in_head:
            self._refuse_head(_TOO_SLOW)
        elif not self._was_used():
            self.transport.close()

    def _was_used(self) -> bool:
        """Whether a request has come over the connection."""
        return self.cycle is not None

    def _refuse_head(self, response: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(response)
        self.close()

    # Responses

    def pause_writing(self) -> None:
        """The client does not take as fast as it is sent to."""
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        """The client has taken what it was sent."""
        super().resume_writing()
        self._unsent = -1

    def on_response_complete(self) -> None:
        """A response has been written."""
        HttpToolsProtocol.on_response_complete(self)
        if self._waiting and not self.pipeline:
            self.loop.call_soon(self._go_on)
        if self.transport.is_closing():
            self._watch_sending()

    def close(self) -> None:
        """Close the connection once the client has taken what was sent."""
        self.transport.close()
        self._watch_sending()

    def timeout_keep_alive_handler(self) -> None:
        """The connection has been idle for long enough."""
        super().timeout_keep_alive_handler()
        self._watch_sending()

    def shutdown(self) -> None:
        """The server is about to end: nobody waits for a client that takes nothing."""
        super().shutdown()
        self._watch_end()

    def _watch_end(self) -> None:
        self._is_server_ending = True
        if self._send_timer is not None:
            self._send_timer.cancel()
            self._send_timer = None
        self._watch_sending()

    def _watch_sending(self) -> None:
        """See to it that the client takes something of what it is sent."""
        unsent = self.transport.get_write_buffer_size()
        if unsent and self._send_timer is None:
            self._unsent = unsent
            seconds = ENDING_SECONDS if self._is_server_ending else config().send_timeout
            self._send_timer = self.loop.call_later(seconds, self._see_progress)

    def _see_progress(self) -> None:
        self._send_timer = None
        # Less than none: it has taken everything in between, and what is there now is something new.
        if 0 <= self._unsent <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._watch_sending()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        super().connection_lost(exc)
        self._waiting = []
        # uvicorn leaves its timer if the connection was reset.
        self._unset_keepalive_if_required()
        self._stop_timers()

    def _stop_timers(self) -> None:
        for timer in (self._head_timer, self._send_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._send_timer = None


_FRAMING = frozenset({b"content-length", b"transfer-encoding"})


class _CompleteHeaders(list[tuple[bytes, bytes]]):
    """Headers to which a body in chunks adds nothing: fields behind it are dropped."""

    def append(self, header: tuple[bytes, bytes]) -> None:
        """Drop a field."""


class _ResumedRequest:
    """Takes what a parser finds behind a head that has been handed over already, and then whole requests."""

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
