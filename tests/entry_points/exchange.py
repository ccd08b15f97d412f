"""HTTP over a raw socket: for clients that leave, stay silent, or break off, as no client library would."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

from tests.client_socket import ClientSocket
from tests.servers import HOST


@dataclass(frozen=True)
class Event:
    """A server-sent event."""

    kind: str
    data: str


class Exchange(ClientSocket):
    """One request over a connection of its own, and its response as it comes.

    target: path and query, percent-encoded.
    headers: besides Host. Content-Length is added where there is a body and no header that says how long it is.
    timeout: seconds that a single read may take.
    """

    def __init__(
        self,
        port: int,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        *,
        timeout: float = 10.0,
        receive_buffer: int | None = None,
    ) -> None:
        self._method = method
        self._response: HTTPResponse | None = None
        self._received = b""
        super().__init__(port, seconds=timeout, receive_buffer=receive_buffer)
        fields = {"Host": f"{HOST}:{port}", **(headers or {})}
        if body and "Content-Length" not in fields and "Transfer-Encoding" not in fields:
            fields["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.send(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("latin-1"), body)

    @property
    def response(self) -> HTTPResponse:
        """The response, once its head is there."""
        if self._response is None:
            response = HTTPResponse(self.socket, method=self._method)
            response.begin()
            self._response = response
        return self._response

    def events(self) -> Iterator[Event]:
        """Yield events up to the proper end of the response. A response that is cut off raises IncompleteRead."""
        while True:
            # One event at a time is taken out of what has come, so that another call goes on where this one stops.
            while b"\n\n" in self._received:
                block, _, self._received = self._received.partition(b"\n\n")
                fields = [line.partition(":")[::2] for line in block.decode().split("\n")]
                kinds = [value.strip() for name, value in fields if name == "event"]
                if kinds:
                    yield Event(kinds[0], "\n".join(value for name, value in fields if name == "data"))
            # Unlike `readline`, it tells a response that was cut off from one that has ended.
            if not (piece := self.response.read1(65536)):
                return
            self._received += piece

    def send_chunk(self, data: bytes) -> None:
        """Send a piece of a body in chunked encoding; an empty one ends it."""
        self.send(b"%x\r\n%b\r\n" % (len(data), data))

    def close(self) -> None:
        """Leave, as a client does that is done or whose page is closed."""
        if self._response is not None:
            with suppress(OSError, HTTPException):
                self._response.close()
        super().close()


def live(port: int, path: str, mode: str, offset: str = "-1", **options: float) -> Exchange:
    """A live read of a stream; `mode` is sse or long-poll."""
    return Exchange(port, "GET", f"/v1/stream/{path}?live={mode}&offset={offset}", **options)  # type: ignore[arg-type]
