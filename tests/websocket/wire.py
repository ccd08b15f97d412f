"""A client of a WebSocket at a real server, over a socket of its own: it reads when a test says so."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)

from tests.client_socket import ClientSocket
from tests.servers import HOST
from tests.websocket.socket import Closed, Frame

PATH = "/v1/ws/"


class Conversation:
    """The bytes of one socket's client, without a connection.

    headers: of the handshake.
    answers_pings: whether it does what a client has to do, and shows no pings.
    """

    def __init__(
        self, port: int, target: str = PATH, headers: dict[str, str] | None = None, *, answers_pings: bool = True
    ) -> None:
        self.frames: deque[Frame] = deque()
        self.is_open = False
        self._answers_pings = answers_pings
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._text: list[str] = []
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.handshake = self._connection.send(Request(host=f"{HOST}:{port}", target=target, extra_headers=fields))

    def frame(self, kind: str, **fields: Any) -> bytes:
        """Return the bytes of a frame."""
        return self.text(json.dumps({"type": kind, **fields}))

    def text(self, text: str) -> bytes:
        """Return the bytes of a text frame, whatever is in it."""
        return self._connection.send(TextMessage(text))

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the server, and return the bytes that answer them. Raises Closed."""
        if not data:
            raise Closed(None, "the connection has ended")
        self._connection.receive_data(data)
        return b"".join(self._answer(event) for event in self._connection.events())

    def _answer(self, event: object) -> bytes:
        match event:
            case AcceptConnection():
                self.is_open = True
            case RejectConnection():
                raise Closed(event.status_code, "refused")
            case CloseConnection():
                raise Closed(event.code, event.reason or "")
            case Ping():
                return self._connection.send(event.response())
            case TextMessage():
                self._text.append(event.data)
                if event.message_finished:
                    frame: Frame = json.loads("".join(self._text))
                    self._text.clear()
                    if frame["type"] == "ping" and self._answers_pings:
                        return self.frame("pong", n=frame["n"])
                    self.frames.append(frame)
            case _:
                assert isinstance(event, BytesMessage), event
        return b""


class WebSocket(ClientSocket):
    """A socket of a server's, opened at once. Use it as a context manager.

    headers, target, answers_pings: as for `Conversation`.
    """

    def __init__(
        self,
        port: int,
        *,
        headers: dict[str, str] | None = None,
        target: str = PATH,
        answers_pings: bool = True,
        receive_buffer: int | None = None,
    ) -> None:
        super().__init__(port, receive_buffer=receive_buffer)
        self._conversation = Conversation(port, target, headers, answers_pings=answers_pings)
        self.send(self._conversation.handshake)
        while not self._conversation.is_open:
            self._read()

    def say(self, kind: str, **fields: Any) -> None:
        """Send a frame."""
        self.send(self._conversation.frame(kind, **fields))

    def say_text(self, text: str) -> None:
        """Send a text frame, whatever is in it."""
        self.send(self._conversation.text(text))

    def next(self) -> Frame:
        """Return the next frame. Raises Closed where the server closes the socket."""
        while not self._conversation.frames:
            self._read()
        return self._conversation.frames.popleft()

    def until(self, *kinds: str) -> list[Frame]:
        """Return the next frames up to one of these types."""
        frames = [self.next()]
        while frames[-1]["type"] not in kinds:
            frames.append(self.next())
        return frames

    def closing(self) -> Closed:
        """Wait until the server closes the socket, and return why."""
        try:
            while True:
                self.next()
        except Closed as closed:
            return closed

    def _read(self) -> None:
        self.send(self._conversation.receive(self.socket.recv(65536)))


@asynccontextmanager
async def following(port: int, path: str, offset: str) -> AsyncIterator[AsyncIterator[Frame]]:
    """Follow one stream over a socket of its own, and yield its frames as they come."""
    reader, writer = await asyncio.open_connection(HOST, port)
    conversation = Conversation(port)

    async def frames() -> AsyncIterator[Frame]:
        while True:
            while conversation.frames:
                yield conversation.frames.popleft()
            writer.write(conversation.receive(await reader.read(65536)))

    try:
        writer.write(conversation.handshake)
        while not conversation.is_open:
            writer.write(conversation.receive(await reader.read(65536)))
        writer.write(conversation.frame("subscribe", path=path, offset=offset))
        yield frames()
    finally:
        writer.close()
