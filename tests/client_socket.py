"""A client's end of a connection to a server of a test, for clients that no client library would be."""

import socket
import struct
from types import TracebackType
from typing import Self

from tests.servers import HOST

SECONDS = 15.0
"""Within this time a server has to do the next thing that is waited for."""


class ClientSocket:
    """A connection. Use it as a context manager.

    seconds: how long a single read or write may take.
    receive_buffer: bytes that the system takes for a client that does not read.
    """

    def __init__(self, port: int, *, seconds: float = SECONDS, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(seconds)
        self.socket.connect((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, *pieces: bytes) -> None:
        """Send bytes."""
        self.socket.sendall(b"".join(pieces))

    def close(self) -> None:
        """Leave, as a client does that is done or whose page is closed."""
        self.socket.close()

    def reset(self) -> None:
        """Leave with a TCP reset, as when a client's process or network dies."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
