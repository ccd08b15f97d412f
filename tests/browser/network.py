"""A network that tests cut: a TCP proxy in front of a server, which counts the requests that pass.

    with Network(server.port) as network:
        page.goto(network.base_url)
        network.cut()

It reads requests, to count them, and forwards every byte as it is. Knows nothing of streams.
"""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Self

from tests.servers import HOST, free_port

PIECE = 64 * 1024
RESET = struct.pack("ii", 1, 0)
"""The linger option with which a close sends RST, as a network does that has lost a connection."""


BAD_GATEWAY = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 11\r\nConnection: close\r\n\r\nBad Gateway"
)


class Asked(NamedTuple):
    """The first line of a request."""

    method: str
    url: str


class _Cut(Exception):
    """The rule for a response has been met."""


class Network:
    """Forwards connections to a port of this machine. Each instance is an origin of its own for browsers.

    port: of the server.
    own_port: where this network listens; default: a free port.
    """

    def __init__(self, port: int, own_port: int | None = None) -> None:
        self.port = own_port or free_port()
        self.base_url = f"http://{HOST}:{self.port}"
        self._upstream = port
        self._listener = socket.create_server((HOST, self.port))
        self._changed = threading.Condition()
        self._requests: list[Asked] = []
        self._marker: bytes | None = None
        self._connections: set[_Connection] = set()
        self._refuses, self._refused = False, 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A close alone leaves a thread in `accept`.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        self.cut()

    def requests(self, part: str) -> list[Asked]:
        """The requests so far whose URL has this part."""
        with self._changed:
            return [asked for asked in self._requests if part in asked.url]

    def open(self, part: str) -> int:
        """How many connections carry a request whose URL has this part as their last one, and have not ended."""
        with self._changed:
            return sum(part in connection.url for connection in self._connections)

    def wait_until_open(self, part: str, count: int, seconds: float = 20) -> None:
        """Return when so many connections carry such a request."""

        def is_so() -> bool:
            return sum(part in connection.url for connection in self._connections) == count

        with self._changed:
            assert self._changed.wait_for(is_so, seconds), [connection.url for connection in self._connections]

    def cut(self) -> None:
        """Cut all connections."""
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            connection.close()

    def cut_behind(self, marker: bytes) -> None:
        """Cut the connection whose response has these bytes, once, right behind them."""
        with self._changed:
            self._marker = marker

    def silence(self) -> None:
        """Forward nothing more on the present connections, and close none of them. New ones are forwarded."""
        with self._changed:
            for connection in self._connections:
                connection.is_silent = True

    def refuse(self, refuses: bool = True) -> None:
        """Answer each new connection with a 502, as a proxy does whose server restarts. False: forward again."""
        with self._changed:
            self._refuses, self._refused = refuses, 0

    def wait_until_refused(self, count: int, seconds: float = 20) -> None:
        """Return when so many requests have got a 502 since `refuse`."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._refused >= count, seconds), self._refused

    def wait_until_cut(self, seconds: float = 20) -> None:
        """Return when the bytes of `cut_behind` have come."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._marker is None, seconds), self._marker

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refuses:
                threading.Thread(target=self._refuse, args=(client,), daemon=True).start()
                continue
            try:
                server = socket.create_connection((HOST, self._upstream), 5)
            except OSError:
                client.close()  # the server is down
                continue
            server.settimeout(None)
            connection = _Connection(self, client, server)
            with self._changed:
                self._connections.add(connection)
            connection.start()

    def _refuse(self, client: socket.socket) -> None:
        """Answer one request. A browser may open connections on which it asks nothing."""
        with client, contextlib.suppress(OSError):
            client.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                if not (piece := client.recv(PIECE)):
                    return
                head += piece
            client.sendall(BAD_GATEWAY)
            with self._changed:
                self._refused += 1
                self._changed.notify_all()

    def asked(self, connection: "_Connection", asked: Asked) -> None:
        """A request has come."""
        with self._changed:
            connection.url = asked.url
            self._requests.append(asked)
            self._changed.notify_all()

    def ended(self, connection: "_Connection") -> None:
        """A connection has ended."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()

    def passed(self, seen: bytes, new: int) -> int | None:
        """Return how many of the new bytes at the end of a response may pass, or None for all."""
        with self._changed:
            if self._marker is None or (place := seen.find(self._marker)) == -1:
                return None
            end = place + len(self._marker)
            self._marker = None
            self._changed.notify_all()
            return end - (len(seen) - new)


class _Connection:
    """Two threads, which forward bytes in both directions until either side ends."""

    def __init__(self, network: Network, client: socket.socket, server: socket.socket) -> None:
        self.url = ""
        self.is_silent = False
        self._network, self._client, self._server = network, client, server

    def start(self) -> None:
        for forward in (self._requests, self._responses):
            threading.Thread(target=self._run, args=(forward,), daemon=True).start()

    def close(self) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                # A close alone leaves the other thread in `recv`.
                end.shutdown(socket.SHUT_RDWR)
        for end in (self._client, self._server):
            end.close()
        self._network.ended(self)

    def _run(self, forward: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, _Cut):
            forward()
        self.close()

    def _requests(self) -> None:
        unread, body = b"", 0
        while piece := self._client.recv(PIECE):
            unread += piece
            while unread and (body or b"\r\n\r\n" in unread):
                passed = min(body, len(unread))
                unread, body = unread[passed:], body - passed
                if not body and b"\r\n\r\n" in unread:
                    head, _, unread = unread.partition(b"\r\n\r\n")
                    body = self._read_head(head.decode("latin-1"))
            if not self.is_silent:
                self._server.sendall(piece)

    def _read_head(self, head: str) -> int:
        """Count a request, and return the length of its body."""
        first, *lines = head.split("\r\n")
        method, url, _ = first.split(" ")
        self._network.asked(self, Asked(method, url))
        lengths = [line.partition(":")[2] for line in lines if line.lower().startswith("content-length:")]
        return int(lengths[0]) if lengths else 0

    def _responses(self) -> None:
        seen = b""
        while piece := self._server.recv(PIECE):
            if self.is_silent:
                continue
            seen = seen[-1024:] + piece
            passed = self._network.passed(seen, len(piece))
            if passed is not None:
                self._client.sendall(piece[:passed])
                raise _Cut
            self._client.sendall(piece)
