"""Requests that are read directly from a connection, and their bodies where these come in parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from ...access.identities import Source
from ...conf import config
from ...protocol.errors import DurableStreamsError
from ...protocol.messages import Request, Response
from ...runtime.results import Reply
from ..answers import EventStream, Work
from ..bodies import ArrivingBody, too_slow
from ..dispatch import finish_request, prepare_response
from ..hosts import absolute_url
from . import request_heads


class Upload:
    """A body that comes in parts, until it is whole or is given up.

    Args:
        found: the request's headers.
        length: of the body, which is not over the limit.
    """

    def __init__(self, found: Mapping[bytes, bytes], length: int, loop: asyncio.AbstractEventLoop) -> None:
        self.body = ArrivingBody(found, length)
        self.reply = Reply(loop=loop)
        """The whole body, or why there is none."""
        self._length = length
        self._timer = loop.call_later(config().receive_timeout, self._is_late)

    def add(self, part: bytes) -> None:
        """Take a part that has come."""
        try:
            self.body.add(part)
            if self.body.size == self._length:
                self._end(self.body.whole())
        except DurableStreamsError as error:
            self._end(error)

    def give_up(self, error: Exception) -> None:
        """Let whoever waits for the body have an error instead."""
        self._end(error)

    def _is_late(self) -> None:
        self._end(too_slow())

    def _end(self, value: bytes | Exception) -> None:
        self._timer.cancel()
        self.reply.resolve(value)


class DirectConnection(Protocol):
    """The connection that a request has come over, as the request uses it: `fast_path.DirectProtocol`."""

    prefix: str

    @property
    def scheme(self) -> str | None:
        """Return `http` or `https`, or None before a transport exists."""

    def scope_of(self, head: request_heads.Head) -> Source:
        """Return the ASGI scope that uvicorn would make of a head."""

    def start_upload(self, head: request_heads.Head) -> Upload:
        """Begin to read a body."""

    def end_upload(self) -> None:
        """Pass no more of the body on."""

    def prepare(self, request: DirectRequest, response: Response) -> None:
        """Make the bytes of a response that may follow."""

    def write(self, request: DirectRequest, response: Response) -> None:
        """Send a response."""

    def go_on(self, request: DirectRequest, outcome: Response | EventStream | Work) -> None:
        """Send what a handler has made, or do what is left to do."""

    def when_left(self, tell: Callable[[], object]) -> None:
        """Have a function called when the client leaves."""


class DirectRequest(Request):
    """A request that has come over a connection that is read directly.

    Args:
        body: the whole of it, or None where it is to be read.
    """

    __slots__ = ("_connection", "_foreseen", "_head", "_source")

    def __init__(self, head: request_heads.Head, body: bytes | None, connection: DirectConnection) -> None:
        self.method, path, self.query, self.headers, _ = head
        self.path = path[len(connection.prefix) :]
        self._begin(body)
        self._head = head
        self._connection = connection
        self._source: Source | None = None
        self._foreseen: tuple[object, Response] | None = None

    is_bare = True

    @property
    def scheme(self) -> str:
        return self._connection.scheme or "http"

    @property
    def source(self) -> Source:
        if self._source is None:
            self._source = self._connection.scope_of(self._head)
        return self._source

    def url(self) -> bytes:
        return absolute_url(self._connection.scheme or "http", self._head.path, self.headers)

    def root(self) -> str:
        return self._connection.prefix

    async def read_body(self) -> bytes:
        upload = self._connection.start_upload(self._head)
        self.arriving = upload.body
        try:
            return await upload.reply  # type: ignore[return-value]
        finally:
            self._connection.end_upload()

    def prepare(self, value: object) -> None:
        """Make the response to what the engine is about to commit."""
        response = prepare_response(self, value)
        if response is not None:
            self._connection.prepare(self, response)
            self._foreseen = value, response

    def resolve(self, value: object) -> None:
        """Take what the engine has made of the request."""
        if self._foreseen is not None and self._foreseen[0] is value:
            self._connection.write(self, self._foreseen[1])
        else:
            self._connection.go_on(self, finish_request(self, value))

    def when_left(self, tell: Callable[[], object]) -> None:
        self._connection.when_left(tell)

    def send_now(self, response: Response) -> bool:
        self._connection.write(self, response)
        return True
