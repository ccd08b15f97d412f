"""Replay: readers read a large stream at once, from its start, following Stream-Next-Offset to its tail."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context

from benchmarks.client import NEXT_OFFSET, UP_TO_DATE, Address, Client
from benchmarks.outcome import MeasurementError, Outcome
from benchmarks.wire import HEAD_END, connect, encode_request, parse_head
from benchmarks.workload import Bench
from benchmarks.writes import BINARY, binary

BUFFER_BYTES = 1 << 20
APPEND_BYTES = 1_000_000


class ChunkedBody:
    """Counts the bytes of a chunked body as they go by, without copying them."""

    def __init__(self) -> None:
        self.total = 0
        self.ended = False
        self._left = 0
        self._line = b""
        self._last = False

    def feed(self, buffer: bytearray, start: int, end: int) -> None:
        while start < end and not self.ended:
            if self._left:
                taken = min(self._left, end - start)
                self._left -= taken
                self.total += taken
                start += taken
                continue
            stop = buffer.find(b"\n", start, end)
            if stop < 0:
                self._line += buffer[start:end]
                return
            line = (self._line + buffer[start:stop]).strip()
            self._line = b""
            start = stop + 1
            if line:
                self._left = int(line.split(b";", 1)[0], 16)
                self._last = self._left == 0
            elif self._last:
                self.ended = True


class Reader:
    """One connection that reads a stream through and keeps nothing of it."""

    def __init__(self, address: Address, name: str) -> None:
        self.address = address
        self.name = name
        self._socket = connect(address)
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)

    def close(self) -> None:
        self._socket.close()

    def replay(self) -> int:
        """Reads from the start to the tail; returns the number of bytes."""
        total, offset = 0, "-1"
        while True:
            request = encode_request("GET", self.address, f"{self.name}?offset={offset}")
            self._socket.sendall(request)
            headers, received = self._response()
            total += received
            offset = headers.get(NEXT_OFFSET, "")
            if headers.get(UP_TO_DATE, "").lower() == "true":
                return total
            if not received:
                raise MeasurementError("an empty read that is not up to date")

    def _receive(self, start: int = 0) -> int:
        count = self._socket.recv_into(self._view[start:])
        if not count:
            raise MeasurementError("the server closed a replaying connection")
        return start + count

    def _response(self) -> tuple[dict[str, str], int]:
        end = self._receive()
        while (head_end := self._buffer.find(HEAD_END, 0, end)) < 0:
            end = self._receive(end)
        status, headers = parse_head(bytes(self._view[:head_end]))
        if status != 200:
            raise MeasurementError(f"a replay was answered with {status}")
        start = head_end + len(HEAD_END)
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = ChunkedBody()
            body.feed(self._buffer, start, end)
            while not body.ended:
                body.feed(self._buffer, 0, self._receive())
            return headers, body.total
        length = int(headers.get("content-length", "0"))
        left = length - (end - start)
        while left > 0:
            left -= self._receive()
        return headers, length


@dataclass(frozen=True)
class Replay:
    """MB/s of all readers together, over as many passes as fit into the time (at least one)."""

    size: int = 100_000_000
    readers: int = 4

    def run(self, bench: Bench) -> Outcome:
        with Client(bench.address) as client:
            client.create(bench.name, BINARY)
            for _ in range(self.size // APPEND_BYTES):
                client.append(bench.name, binary(APPEND_BYTES), BINARY)
            rate = self.measure(bench.address, bench.name, bench.seconds)
            bench.leave(bench.name)
        return Outcome({"mb": rate})

    def measure(self, address: Address, name: str, seconds: float) -> float:
        readers = [Reader(address, name) for _ in range(self.readers)]
        try:
            self._pass(readers[:1])
            passes, elapsed = 0, 0.0
            started = time.perf_counter()
            while elapsed < seconds:
                self._pass(readers)
                passes += 1
                elapsed = time.perf_counter() - started
            return passes * self.readers * self.size / elapsed / 1e6
        finally:
            for reader in readers:
                reader.close()

    def _pass(self, readers: list[Reader]) -> None:
        failures: list[str] = []

        def read(reader: Reader) -> None:
            try:
                received = reader.replay()
                if received != self.size:
                    failures.append(f"a replay has {received} bytes, not {self.size}")
            except (OSError, ValueError, MeasurementError) as error:
                failures.append(str(error))

        # recv_into releases the GIL while it copies, so threads are enough; see `client_ceiling`.
        threads = [threading.Thread(target=read, args=(reader,)) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise MeasurementError(failures[0])


def client_ceiling(seconds: float) -> float:
    """MB/s that the readers reach when the server is a process that only sends: no server can exceed it."""
    with _sender() as port:
        return Replay().measure(Address("127.0.0.1", port, ""), "anything", seconds)


@contextmanager
def _sender() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = get_context("fork").Process(target=_send_forever, args=(listener,), daemon=True)
        process.start()
        try:
            yield listener.getsockname()[1]
        finally:
            process.kill()
            process.join()


def _send_forever(listener: socket.socket) -> None:
    block = binary(APPEND_BYTES)
    count = Replay().size // APPEND_BYTES
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-length: {count * len(block)}\r\n{UP_TO_DATE}: true\r\n{NEXT_OFFSET}: 1\r\n\r\n"
    ).encode()

    def serve(sock: socket.socket) -> None:
        while sock.recv(BUFFER_BYTES):
            sock.sendall(head)
            for _ in range(count):
                sock.sendall(block)

    while True:
        sock, _ = listener.accept()
        threading.Thread(target=serve, args=(sock,), daemon=True).start()
