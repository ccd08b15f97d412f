"""Many waiting readers in one process: raw sockets under one epoll, timestamps at receipt.

A fleet is armed with a marker. The first time a reader receives a data event (or response) that holds the
marker is its arrival, taken with `time.perf_counter` right after `recv` returned. The readers are served one
after the other by this one process, so an arrival includes the time that it took for the readers before.
"""

from __future__ import annotations

import select
import socket
from abc import ABC, abstractmethod
from time import perf_counter
from types import TracebackType

from benchmarks.client import NEXT_OFFSET, Address
from benchmarks.outcome import MeasurementError
from benchmarks.wire import HEAD_END, Message, connect, encode_request, parse_head, parse_message

RECEIVE_BYTES = 8192
OPEN_SECONDS = 60.0
# Connections opened before their first bytes are looked at: fewer than any server's accept backlog.
OPEN_AT_ONCE = 100


class Fleet(ABC):
    """Use as a context manager; `open` connects, `arm` sets what to wait for, `pump` receives."""

    def __init__(self, address: Address, name: str, count: int) -> None:
        self.address = address
        self.name = name
        self.count = count
        self.arrivals: list[float] = []
        self.errors: list[str] = []
        self._marker = b""
        self._waiting: set[int] = set()
        self._sockets: dict[int, socket.socket] = {}
        self._buffers: dict[int, bytes] = {}
        self._epoll = select.epoll()
        self._writer: socket.socket | None = None
        self._written: Message | None = None
        self.answered_at = 0.0
        """When the answer to the last append came."""

    def __enter__(self) -> Fleet:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sock in (*self._sockets.values(), *([self._writer] if self._writer else [])):
            sock.close()
        self._epoll.close()

    def open(self, offset: str) -> None:
        """Connects every reader at `offset`; returns once the server is known to hold them all."""
        deadline = perf_counter() + OPEN_SECONDS
        while len(self._sockets) < self.count:
            for _ in range(min(OPEN_AT_ONCE, self.count - len(self._sockets))):
                sock = connect(self.address)
                sock.sendall(self.request(offset))
                sock.setblocking(False)
                self._sockets[sock.fileno()] = sock
                self._buffers[sock.fileno()] = b""
                self._epoll.register(sock.fileno(), select.EPOLLIN)
            while not self.all_open():
                self.pump(0.05)
                if perf_counter() > deadline:
                    raise MeasurementError(f"{self.count} readers are not open after {OPEN_SECONDS:g} s")
                self.raise_errors()

    def write(self, request: bytes) -> float:
        """Sends an append on a connection of its own; returns the time just before it was sent."""
        if self._writer is None:
            self._writer = connect(self.address)
            self._epoll.register(self._writer.fileno(), select.EPOLLIN)
            self._buffers[self._writer.fileno()] = b""
        self._written = None
        sent = perf_counter()
        self._writer.sendall(request)
        return sent

    def arm(self, marker: bytes) -> None:
        self._marker = marker
        self._waiting = set(self._sockets)
        self.arrivals = []

    @property
    def missing(self) -> int:
        return len(self._waiting)

    @property
    def delivered(self) -> bool:
        """Every reader has the marker and the writer has its answer."""
        return not self._waiting and self._written is not None

    def pump(self, timeout: float) -> None:
        """Receives what there is, or waits up to `timeout` seconds for something."""
        writer = self._writer.fileno() if self._writer else -1
        for descriptor, _ in self._epoll.poll(timeout):
            if descriptor == writer:
                self._answer()
                continue
            try:
                data = self._sockets[descriptor].recv(RECEIVE_BYTES)
            except OSError as error:
                data = b""
                self.errors.append(f"a reader failed: {error}")
            now = perf_counter()
            if not data:
                self._lose(descriptor)
                continue
            self.receive(descriptor, data, now)
        self.after_batch()

    def raise_errors(self) -> None:
        if self.errors:
            raise MeasurementError(self.errors[0])

    def arrived(self, descriptor: int, now: float) -> None:
        if descriptor in self._waiting:
            self._waiting.discard(descriptor)
            self.arrivals.append(now)

    def _lose(self, descriptor: int) -> None:
        self.errors.append("the server closed a reader's connection")
        self._epoll.unregister(descriptor)
        self._waiting.discard(descriptor)
        self._sockets.pop(descriptor).close()

    def _answer(self) -> None:
        assert self._writer is not None
        descriptor = self._writer.fileno()
        data = self._writer.recv(RECEIVE_BYTES)
        if not data:
            raise MeasurementError("the server closed the writer's connection")
        self._buffers[descriptor] += data
        message = parse_message(self._buffers[descriptor])
        if message is None:
            return
        self.answered_at = perf_counter()
        self._buffers[descriptor] = message.rest
        self._written = message
        if message.status not in (200, 204):
            raise MeasurementError(f"an append was answered with {message.status}")

    @abstractmethod
    def request(self, offset: str) -> bytes:
        """What a reader sends."""

    @abstractmethod
    def all_open(self) -> bool:
        """Whether every connected reader is known to wait."""

    @abstractmethod
    def receive(self, descriptor: int, data: bytes, now: float) -> None:
        """Takes in what one reader received at `now`."""

    def after_batch(self) -> None:  # noqa: B027 - most kinds of readers have nothing to do here
        """Called when everything that was ready has been received."""


class SseFleet(Fleet):
    """Readers that keep one SSE response open. A reader waits once its first control event came."""

    def __init__(self, address: Address, name: str, count: int) -> None:
        super().__init__(address, name, count)
        self._opening = b"event: control"
        self._open: set[int] = set()

    def request(self, offset: str) -> bytes:
        return encode_request("GET", self.address, f"{self.name}?offset={offset}&live=sse")

    def all_open(self) -> bool:
        return len(self._open) == len(self._sockets)

    def receive(self, descriptor: int, data: bytes, now: float) -> None:
        buffer = self._buffers[descriptor] + data
        if descriptor in self._waiting:
            if self._marker in buffer:
                self.arrived(descriptor, now)
        elif descriptor not in self._open and self._opening in buffer:
            status, _ = parse_head(buffer.partition(HEAD_END)[0])
            if status != 200:
                self.errors.append(f"an SSE read was answered with {status}")
            self._open.add(descriptor)
        # A marker may come in two pieces; of what was searched only its possible beginning is kept.
        opened = descriptor in self._open
        self._buffers[descriptor] = buffer[-len(self._marker) :] if opened and self._marker else buffer


class LongPollFleet(Fleet):
    """Readers that ask again as soon as they were answered, after the batch that their answer came in.

    Nothing on the wire says that a long-poll is waiting: leave time between `open` and an append.
    """

    def __init__(self, address: Address, name: str, count: int) -> None:
        super().__init__(address, name, count)
        self._again: list[tuple[int, bytes]] = []

    def request(self, offset: str, cursor: str = "") -> bytes:
        target = f"{self.name}?offset={offset}&live=long-poll"
        return encode_request("GET", self.address, f"{target}&cursor={cursor}" if cursor else target)

    def all_open(self) -> bool:
        return True

    def receive(self, descriptor: int, data: bytes, now: float) -> None:
        buffer = self._buffers[descriptor] + data
        message = parse_message(buffer)
        if message is None:
            self._buffers[descriptor] = buffer
            return
        self._buffers[descriptor] = message.rest
        if message.status == 200 and self._marker and self._marker in message.body:
            self.arrived(descriptor, now)
        elif message.status not in (200, 204):
            self.errors.append(f"a long-poll was answered with {message.status}")
            return
        offset = message.headers.get(NEXT_OFFSET, "")
        self._again.append((descriptor, self.request(offset, message.headers.get("stream-cursor", ""))))

    def after_batch(self) -> None:
        for descriptor, request in self._again:
            if descriptor in self._sockets:
                self._sockets[descriptor].sendall(request)
        self._again.clear()
