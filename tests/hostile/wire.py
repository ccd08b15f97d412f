"""HTTP/1.1 by its bytes, as no client library would send it, and what a server makes of it. Bounded in time."""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from tests.client_socket import SECONDS, ClientSocket
from tests.servers import HOST


@dataclass(frozen=True)
class Answer:
    """A response, as far as it came."""

    status: int
    headers: dict[str, str]
    body: bytes


class Wire(ClientSocket):
    """A connection, by its bytes. What is awaited comes within SECONDS, or the test fails."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        super().__init__(port, receive_buffer=receive_buffer)
        self.received = b""

    def send_what_is_taken(self, data: bytes, seconds: float) -> int:
        """Send until the server takes no more for so many seconds, or hangs up. Returns how many bytes it took."""
        self.socket.settimeout(seconds)
        view, sent = memoryview(data), 0
        with suppress(OSError):
            while sent < len(data):
                sent += self.socket.send(view[sent : sent + 65536])
        self.socket.settimeout(SECONDS)
        return sent

    def answer(self, *, method: str = "POST") -> Answer:
        """The next response. Status 0: the connection was closed without one."""
        try:
            while (end := self.received.find(b"\r\n\r\n")) < 0:
                self._more()
            line, *lines = self.received[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
            self.received = self.received[end + 4 :]
            status = int(line.split()[1])
            if status == 100:
                return self.answer(method=method)
            return Answer(status, headers, b"" if method == "HEAD" else self._body(status, headers))
        except (EOFError, ConnectionError):
            return Answer(0, {}, b"")

    def _body(self, status: int, headers: dict[str, str]) -> bytes:
        if status in (204, 304):
            return b""
        if "chunked" in headers.get("transfer-encoding", ""):
            return b"".join(self.chunks())
        length = int(headers["content-length"]) if "content-length" in headers else None
        with suppress(EOFError, ConnectionError):
            while length is None or len(self.received) < length:
                self._more()
        body, self.received = self.received[:length], self.received[len(self.received) if length is None else length :]
        return body

    def chunks(self) -> Iterator[bytes]:
        """The chunks of a response, up to its end."""
        while True:
            while (end := self.received.find(b"\r\n")) < 0:
                self._more()
            size = int(self.received[:end], 16)
            while len(self.received) < end + 2 + size + 2:
                self._more()
            chunk = self.received[end + 2 : end + 2 + size]
            self.received = self.received[end + 2 + size + 2 :]
            if not size:
                return
            yield chunk

    def is_closed(self, seconds: float = SECONDS) -> bool:
        """Whether the server closes the connection within some seconds, whatever it sends before."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                if not self.socket.recv(65536):
                    return True
            except TimeoutError:
                return False
            except OSError:
                return True
        return False

    def pause(self, seconds: float) -> None:
        """Let the server take what it was sent, until it answers or some time is over."""
        self.socket.settimeout(seconds)
        with suppress(OSError):
            self.received += self.socket.recv(65536)
        self.socket.settimeout(SECONDS)

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self.received += data


def head(method: str, path: str, *lines: str, kind: str = "text/plain") -> bytes:
    """A request's head, with these header lines besides Host and Content-Type."""
    fields = "".join(f"{line}\r\n" for line in (f"Host: {HOST}", f"Content-Type: {kind}", *lines) if line)
    return f"{method} /v1/stream/{path} HTTP/1.1\r\n{fields}\r\n".encode("latin-1")


def chunked(*pieces: bytes, end: bool = True) -> bytes:
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + (b"0\r\n\r\n" if end else b"")


# The lines that the JDK's HttpClient adds to every request on a plain connection.
JDK = (
    "Connection: Upgrade, HTTP2-Settings",
    "HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA",
    "Upgrade: h2c",
    "User-Agent: Java-http-client/17.0.15",
)


def jdk(port: int, method: str, path: str, body: bytes, *, framing: str) -> list[bytes]:
    """A request of the JDK's HttpClient, in the pieces in which it writes it."""
    connection, settings, upgrade, agent = JDK
    lines = [f"{method} /v1/stream/{path} HTTP/1.1", connection]
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"Host: {HOST}:{port}", settings]
    if framing == "chunked":
        lines.append("Transfer-encoding: chunked")
    lines += [upgrade, agent, "Content-Type: text/plain", "", ""]
    pieces = ["\r\n".join(lines).encode()]
    if framing == "chunked":
        pieces += [chunked(body, end=False), b"0\r\n\r\n"]
    elif body:
        pieces.append(body)
    return pieces
