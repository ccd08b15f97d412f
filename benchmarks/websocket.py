"""WebSockets: memory for each, and the time from an append to its readers, beside SSE.

    python -m benchmarks.websocket

A socket follows ten streams. All sockets follow the same ten, and an append to one of them reaches all sockets. The SSE
readers follow one stream each, and all the same. The server is the example project on uvicorn and on Daphne.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address, Client
from benchmarks.delivery import TEXT, Delivery
from benchmarks.fleet import Fleet, SseFleet
from benchmarks.idle import SETTLE_SECONDS, WARM_UP_READERS, WARM_UP_REQUESTS, resident_bytes
from benchmarks.outcome import MeasurementError
from benchmarks.targets import Ours
from benchmarks.wire import HEAD_END
from benchmarks.workload import Bench

STREAMS = 10
END_SECONDS = 30.0
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
NO_MASK = bytes(4)


def client_frame(**fields: object) -> bytes:
    """Return a text frame with less than 126 bytes or with less than 64 KiB, under a mask that changes nothing."""
    payload = json.dumps(fields).encode()
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xfe" + struct.pack("!H", len(payload))
    return b"\x81" + length + NO_MASK + payload


def server_frames(buffer: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Return the whole frames in a buffer, each with its opcode, and the rest."""
    frames = []
    while len(buffer) >= 2:
        length, begin = buffer[1] & 0x7F, 2
        if length >= 126:
            begin = 4 if length == 126 else 10
            if len(buffer) < begin:
                break
            length = int.from_bytes(buffer[2:begin], "big")
        if len(buffer) < begin + length:
            break
        frames.append((buffer[0] & 0x0F, buffer[begin : begin + length]))
        buffer = buffer[begin + length :]
    return frames, buffer


class WebSocketFleet(Fleet):
    """WebSockets that answer pings. Each is open after its handshake.

    Attributes:
        path: the path of the handshake.
    """

    path: str

    def __init__(self, address: Address, name: str, count: int) -> None:
        super().__init__(address, name, count)
        self._upgraded: set[int] = set()

    def request(self, offset: str) -> bytes:
        return HANDSHAKE.format(path=self.path, host=self.address.netloc).encode()

    def all_open(self) -> bool:
        return len(self._upgraded) == len(self._sockets)

    def receive(self, descriptor: int, data: bytes, now: float) -> None:
        buffer = self._buffers[descriptor] + data
        if descriptor not in self._upgraded:
            head, end, buffer = buffer.partition(HEAD_END)
            if not end:
                self._buffers[descriptor] = head
                return
            if b" 101 " not in head:
                raise MeasurementError(f"a handshake was answered with {head[:80]!r}")
            self._upgraded.add(descriptor)
            self.upgraded(descriptor)
        frames, self._buffers[descriptor] = server_frames(buffer)
        for opcode, payload in frames:
            if opcode == 9:
                self._sockets[descriptor].sendall(b"\x8a" + bytes([0x80 | len(payload)]) + NO_MASK + payload)
            else:
                self.received(descriptor, payload, now)

    def upgraded(self, descriptor: int) -> None:
        """Begin after the handshake."""

    def received(self, descriptor: int, payload: bytes, now: float) -> None:
        """Take the payload of a frame."""
        if self._marker and self._marker in payload:
            self.arrived(descriptor, now)


class SocketFleet(WebSocketFleet):
    """Sockets that follow STREAMS streams each. A socket waits once it is up to date with all of them."""

    path = "/v1/ws/"

    def __init__(self, address: Address, name: str, count: int) -> None:
        super().__init__(address, name, count)
        self._offset = ""
        self._current: dict[int, int] = {}

    def request(self, offset: str) -> bytes:
        self._offset = offset
        return super().request(offset)

    def all_open(self) -> bool:
        return sum(count == STREAMS for count in self._current.values()) == len(self._sockets)

    def upgraded(self, descriptor: int) -> None:
        self._current[descriptor] = 0
        paths = [self.name, *(f"{self.name}-{number}" for number in range(1, STREAMS))]
        frames = [
            client_frame(type="subscribe", path=path, offset=self._offset if path == self.name else "now")
            for path in paths
        ]
        self._sockets[descriptor].sendall(b"".join(frames))

    def received(self, descriptor: int, payload: bytes, now: float) -> None:
        if b'"type":"ping"' in payload:
            self._sockets[descriptor].sendall(client_frame(type="pong", n=json.loads(payload)["n"]))
        elif b'"type":"up-to-date"' in payload:
            self._current[descriptor] += 1
        elif b'"type":"error"' in payload:
            self.errors.append(payload.decode())
        else:
            super().received(descriptor, payload, now)


class OursOnDaphne(Ours):
    """The example project on Daphne."""

    def command(self, port: int, directory: Path) -> list[str]:
        return [
            sys.executable,
            "-m",
            "daphne",
            "-b",
            "127.0.0.1",
            "-p",
            str(port),
            "-v",
            "0",
            "config.asgi:application",
        ]


def open_connections(pid: int) -> int:
    """Return the number of sockets of a process."""
    count = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            count += str(link.readlink()).startswith("socket:")
    return count


def create_streams(bench: Bench) -> str:
    """Create the streams, let the server finish its one-time loading, and return the tail of the first stream."""
    with Client(bench.address) as client:
        for name in (bench.name, *(f"{bench.name}-{number}" for number in range(1, STREAMS))):
            client.create(name, TEXT)
        for _ in range(WARM_UP_REQUESTS):
            client.append(bench.name, b"warm-up", TEXT)
            client.request("GET", f"{bench.name}?offset=-1", expect=(200,))
        return client.tail(bench.name)


def measure_memory(bench: Bench, kind: type[Fleet], count: int) -> dict[str, float]:
    """Return the memory of each reader in KB, and the connections that are left after all of them have vanished."""
    assert bench.pid is not None
    tail = create_streams(bench)
    with kind(bench.address, bench.name, WARM_UP_READERS) as fleet:
        fleet.open(tail)
    time.sleep(SETTLE_SECONDS)
    before, connections = resident_bytes(bench.pid), open_connections(bench.pid)
    with kind(bench.address, bench.name, count) as fleet:
        fleet.open(tail)
        time.sleep(SETTLE_SECONDS)
        after = resident_bytes(bench.pid)
        fleet.pump(0)
        fleet.raise_errors()
    deadline = time.monotonic() + END_SECONDS
    while (left := open_connections(bench.pid) - connections) > 0 and time.monotonic() < deadline:
        time.sleep(0.1)
    return {"KB each": (after - before) / count / 1e3, "connections left": left}


def measure_delivery(bench: Bench, kind: type[Fleet], count: int) -> dict[str, float]:
    """Return the milliseconds from an append to each reader."""
    create_streams(bench)
    outcome = Delivery(count, fleet=kind).run(bench)
    if outcome.errors:
        raise MeasurementError(outcome.errors[0])
    return outcome.values


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.websocket", description=__doc__)
    parser.add_argument("--readers", type=int, default=1000, metavar="N")
    options = parser.parse_args(arguments)
    raise_open_file_limit()
    for target in (Ours("uvicorn", "uvicorn"), OursOnDaphne("daphne", "Daphne")):
        for title, kind in (("WebSocket", SocketFleet), ("SSE", SseFleet)):
            for measure in (measure_memory, measure_delivery):
                address = target.start()
                try:
                    bench = Bench(address, target.pid, 4, "bench/websocket", project=target.project)
                    values = measure(bench, kind, options.readers)
                finally:
                    target.stop()
                shown = ", ".join(f"{name} {value:.1f}" for name, value in values.items())
                print(f"{target.title}, {options.readers} by {title}: {shown}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
