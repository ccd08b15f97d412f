"""AI answers: the time from a token to its readers, beside a plain streaming response: `python -m benchmarks.answers`

Several readers follow each answer, as tabs and devices do. The answers run in the process that serves them, on SQLite.
The client is a process of its own on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.__main__ import raise_open_file_limit
from benchmarks.idle import resident_bytes
from benchmarks.outcome import MeasurementError, percentile
from benchmarks.pages import cpu_seconds
from benchmarks.targets import START_SECONDS, STOP_SECONDS, free_port

HOST = "127.0.0.1"
TOKEN = re.compile(rb'"delta":"([0-9.]+)"')
END = b"data: [DONE]"
CONNECTS_AT_ONCE = 50
WARM_UP_SECONDS = 3.0
"""Latencies of the first seconds, in which the readers connect, do not count."""

SPARE_SECONDS = 30.0


class Reader(asyncio.Protocol):
    """One connection that notes how old each token is when it comes.

    Tokens from before its request do not count: a reader that comes late gets the answer so far, which is old.
    """

    def __init__(self, request: bytes, latencies: list[float], counts_from: float) -> None:
        self._request = request
        self._latencies = latencies
        self._counts_from = counts_from
        self._asked_at = 0.0
        self.begun = asyncio.get_running_loop().create_future()
        self.ended = asyncio.get_running_loop().create_future()
        self.arrivals = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._asked_at = time.monotonic()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        tokens = TOKEN.findall(data)
        if not self.begun.done():
            self.begun.set_result(data.split(b"\r\n", 1)[0])
        if tokens and now >= self._counts_from:
            self.arrivals += 1
            self._latencies += [now - made for made in map(float, tokens) if made >= self._asked_at]
        if END in data:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        for future in (self.begun, self.ended):
            if not future.done():
                future.set_result(b"")


@contextmanager
def running_site() -> Iterator[tuple[int, int]]:
    """Serve the project, and yield its port and its process id."""
    with tempfile.TemporaryDirectory(prefix="answers-") as folder:
        environment = {**os.environ, "ANSWERS_DATABASE": str(Path(folder) / "db.sqlite3")}
        subprocess.run([sys.executable, "-m", "benchmarks.answers_site"], env=environment, check=True)
        port = free_port()
        options = ["--host", HOST, "--port", str(port), "--log-level", "warning", "benchmarks.answers_site:application"]
        server = subprocess.Popen([sys.executable, "-m", "uvicorn", *options], env=environment)
        try:
            yield port, server.pid
        finally:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


async def until_open(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            if time.monotonic() >= deadline:
                raise MeasurementError("the server does not answer") from None
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


async def commits(port: int) -> int:
    """Return how many transactions the server's committers have committed."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(f"GET /commits HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    response = await reader.read()
    writer.close()
    return int(response.rpartition(b"\r\n\r\n")[2])


def requests(options: argparse.Namespace, answer: int, reader: int) -> bytes:
    """Return the request of a reader: the first one starts the answer, and the others resume it."""
    if options.plain:
        return _request("GET", f"/plain?rate={options.rate}&seconds={options.seconds}")
    if reader:
        return _request("GET", f"/api/chat/c{answer}/stream")
    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Go."}]}
    script = {"rate": options.rate, "seconds": options.seconds}
    return _request("POST", "/api/chat", json.dumps({"id": f"c{answer}", "messages": [message], "script": script}))


def _request(method: str, path: str, body: str = "") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


async def measure(options: argparse.Namespace, port: int, pid: int) -> str:
    """Let all readers follow their answers to the end, and return the figures as a line."""
    await until_open(port)
    before = resident_bytes(pid)
    latencies: list[float] = []
    counts_from = time.monotonic() + WARM_UP_SECONDS
    readers: list[Reader] = []
    places = asyncio.Semaphore(CONNECTS_AT_ONCE)
    loop = asyncio.get_running_loop()

    async def begin(answer: int, reader: int) -> None:
        async with places:
            make = Reader(requests(options, answer, reader), latencies, counts_from)
            await loop.create_connection(lambda: make, HOST, port)
            readers.append(make)
            status = await make.begun
            if b" 200 " not in status + b" ":
                raise MeasurementError(f"a reader got {status.decode() or 'no response'}")

    began, used = time.monotonic(), cpu_seconds(pid)
    async with asyncio.timeout(options.seconds + SPARE_SECONDS):
        for reader in range(options.readers // options.answers):
            await asyncio.gather(*(begin(answer, reader) for answer in range(options.answers)))
        committed = await commits(port)
        connected, used_to_connect = time.monotonic(), cpu_seconds(pid) - used
        await asyncio.sleep(began + options.seconds - 1 - connected)
        passed = time.monotonic() - connected
        load, after = (cpu_seconds(pid) - used - used_to_connect) / passed, resident_bytes(pid)
        rate = (await commits(port) - committed) / passed
        await asyncio.gather(*(reader.ended for reader in readers))
    counted = options.seconds - WARM_UP_SECONDS
    arrivals = sum(reader.arrivals for reader in readers) / len(readers) / counted
    return (
        f"{len(latencies) / counted:,.0f} tokens/s to {len(readers)} readers of {options.answers} answers: "
        f"p50 {percentile(latencies, 50) * 1e3:.1f} ms, p99 {percentile(latencies, 99) * 1e3:.1f} ms, "
        f"{arrivals:.1f} deliveries/s for each reader, {rate:.0f} commits/s, {(after - before) / 1e6:.0f} MB more, "
        f"connected in "
        f"{connected - began:.1f} s with {used_to_connect:.1f} s of processor, then {load:.0%} of a core"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--readers", type=int, default=2000)
    parser.add_argument("--rate", type=float, default=30.0, help="tokens a second of each answer")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each answer takes")
    parser.add_argument("--plain", action="store_true", help="plain streaming responses instead, one for each reader")
    options = parser.parse_args()
    raise_open_file_limit()
    with running_site() as (port, pid):
        print(asyncio.run(measure(options, port, pid)))


if __name__ == "__main__":
    main()
