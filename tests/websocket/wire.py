"""A client of a WebSocket at a real server, over a socket of its own: it reads when a test says so."""

import json
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


class WebSocket(ClientSocket):
    """A socket of a server's, opened at once. Use it as a context manager.

    headers: of the handshake.
    answers_pings: whether `next` does what a client has to do, and returns no pings.
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
        self._answers_pings = answers_pings
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._text = ""
        self._frames: list[Frame] = []
        fields = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        self.send(self._connection.send(Request(host=f"{HOST}:{port}", target=target, extra_headers=fields)))
        self._is_open = False
        while not self._is_open:
            self._read()

    def say(self, kind: str, **fields: Any) -> None:
        """Send a frame."""
        self.say_text(json.dumps({"type": kind, **fields}))

    def say_text(self, text: str) -> None:
        """Send a text frame, whatever is in it."""
        self.send(self._connection.send(TextMessage(text)))

    def next(self) -> Frame:
        """Return the next frame. Raises Closed where the server closes the socket."""
        while True:
            while not self._frames:
                self._read()
            frame = self._frames.pop(0)
            if frame["type"] != "ping" or not self._answers_pings:
                return frame
            self.say("pong", n=frame["n"])

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
        data = self.socket.recv(65536)
        if not data:
            raise Closed(None, "the connection has ended")
        self._connection.receive_data(data)
        for event in self._connection.events():
            if isinstance(event, AcceptConnection):
                self._is_open = True
            elif isinstance(event, RejectConnection):
                raise Closed(event.status_code, "refused")
            elif isinstance(event, TextMessage):
                self._text += event.data
                if event.message_finished:
                    self._frames.append(json.loads(self._text))
                    self._text = ""
            elif isinstance(event, Ping):
                self.send(self._connection.send(event.response()))
            elif isinstance(event, CloseConnection):
                raise Closed(event.code, event.reason or "")
            else:
                assert isinstance(event, BytesMessage), event
