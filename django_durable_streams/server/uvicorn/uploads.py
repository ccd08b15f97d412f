"""Bodies that arrive in parts, on connections that answer requests themselves.

A body is taken only if its request is allowed. Until that is decided, the connection does not read. After a refusal the
parts are dropped. Knows neither requests nor responses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ...conf import config
from ...protocol.errors import DurableStreamsError
from ...protocol.messages import ClientDisconnected, Request
from ...runtime.results import Reply
from ..bodies import ArrivingBody, too_slow
from .connection import Connection

DIRECT_BYTES = 1024 * 1024
"""Missing bytes from which a body is received into its own memory."""


class Upload:
    """A body that arrives in parts, until it is complete or given up.

    Args:
        headers: the request's headers.
        length: bytes of the body, which are not over the limit.
    """

    def __init__(self, headers: Mapping[bytes, bytes], length: int, loop: asyncio.AbstractEventLoop) -> None:
        self.body = ArrivingBody(headers, length)
        self.reply = Reply(loop=loop)
        """The whole body, or the error that there is instead."""
        self._length = length
        self._loop = loop
        self._timer = loop.call_later(config().receive_timeout, self._time_out)

    def add(self, part: bytes) -> None:
        """Add a part that has arrived."""
        try:
            self.body.add(part)
            if self.body.size == self._length:
                self._end(self.body.whole())
        except DurableStreamsError as error:
            self._end(error)

    def count(self, size: int) -> None:
        """Count bytes that have arrived in their place.

        The loop holds the place while it tells of the bytes, so the upload ends after that. An error would keep the
        place by its frames.
        """
        try:
            self.body.count(size)
            if self.body.size == self._length:
                self._loop.call_soon(self._end_placed)
        except DurableStreamsError as error:
            self._loop.call_soon(self._end, error.with_traceback(None))

    def _end_placed(self) -> None:
        if not self.reply.done():
            self._end(self.body.whole())

    def give_up(self, error: Exception) -> None:
        """End the upload with an error."""
        self._end(error)

    def _time_out(self) -> None:
        self._end(too_slow())

    def _end(self, value: bytes | Exception) -> None:
        self._timer.cancel()
        self.reply.resolve(value)


class UploadConnection(Connection):
    """A connection that takes the body of a request that it answers itself.

    A subclass sets `_is_answering` for as long as it answers a request, and `_unread` to the length of its body.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._is_answering = False
        self._is_ending = False
        self._unread = 0
        """Bytes of the body that have not arrived."""
        self._upload: Upload | None = None
        self._receiver: BodyReceiver | None = None
        """What takes the body in the place of this connection."""

    def _expect_body(self, length: int, first_part: bytes) -> None:
        """A request has come whose body has not arrived as a whole."""
        self._unread = length
        if first_part:
            self._held_data.append(first_part)

    def _wait_for_permission(self) -> None:
        """Read no more of a body until its request is allowed."""
        if self._is_answering and self._upload is None:
            self.flow.hold()

    async def receive_body(self, request: Request, length: int) -> bytes:
        """Return the body of the current request, which is allowed. `Request.read_body` has the errors."""
        if self.transport.is_closing():
            raise ClientDisconnected
        upload = self._upload = Upload(request.headers, length, self.loop)
        request.arriving = upload.body
        parts, self._held_data = self._held_data, []
        try:
            self.flow.release()
            for part in parts:
                self._take_body(part)
            if self._unread >= DIRECT_BYTES and self.scheme == "http" and not upload.reply.done():
                self._receiver = BodyReceiver(self, upload.body.place())
                self._set_protocol(self._receiver)
            return await upload.reply  # type: ignore[return-value]
        finally:
            self._upload = None
            self._end_direct()

    def count_body(self, size: int) -> None:
        """Count bytes of the body that have arrived in their place."""
        self._unread -= size
        if not self._unread:
            self._end_direct()
        if self._upload is not None:
            self._upload.count(size)

    def _end_direct(self) -> None:
        if self._receiver is not None:
            self._receiver.release()
            self._receiver = None
            self._set_protocol(self)

    def _set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Give all that comes to a protocol. Loops choose how to read when they begin to."""
        if self.transport.is_closing():
            return
        self.transport.pause_reading()
        self.transport.set_protocol(protocol)
        if not self.flow.read_paused:
            self.transport.resume_reading()

    def waiting_bytes(self) -> int:
        """Return how much of a body waits until its request is allowed."""
        return sum(map(len, self._held_data)) if self._unread else 0

    def drop_waiting(self) -> None:
        """Drop the part of a body that waits until its request is allowed, because there is no room for it."""
        if self._unread:
            self._unread -= self.waiting_bytes()
            self._held_data = []

    def _take_body(self, data: bytes) -> None:
        if self._is_answering and self._upload is None:
            self._hold(data)  # whether the request is allowed is not yet decided
            return
        part, rest = data[: self._unread], data[self._unread :]
        self._unread -= len(part)
        if self._upload is not None:
            if rest:
                self._hold(rest)
            self._upload.add(part)
        elif not self._unread:
            # This was the last part of a refused body.
            if self._is_ending:
                self.close()
            elif rest:
                self.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has left."""
        super().connection_lost(exc)
        if self._upload is not None:
            self._upload.give_up(ClientDisconnected())


class BodyReceiver(asyncio.BufferedProtocol):
    """Takes the rest of a body in the place of a connection: the system copies it to where it stays.

    The loop would copy each part once more, and the body is joined from its parts. A body of 14 MB takes half of the
    processor's time without these copies. Everything but the body goes to the connection.

    Args:
        connection: the connection.
        place: where the rest of the body goes. The connection takes its place again when it is full.
    """

    def __init__(self, connection: UploadConnection, place: memoryview) -> None:
        self._connection = connection
        self._place = place
        self.eof_received = connection.eof_received  # type: ignore[method-assign]
        self.connection_lost = connection.connection_lost  # type: ignore[method-assign]
        self.pause_writing = connection.pause_writing  # type: ignore[method-assign]
        self.resume_writing = connection.resume_writing  # type: ignore[method-assign]

    def release(self) -> None:
        """Release the place. uvloop keeps this object until the connection ends, or another one takes its place."""
        self._place = memoryview(b"")

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go."""
        return self._place

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes have arrived."""
        self._place = self._place[nbytes:] if nbytes < len(self._place) else memoryview(b"")
        self._connection.count_body(nbytes)
