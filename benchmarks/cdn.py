"""A cache in front: how many requests of many readers reach the servers, when they catch up, follow, and wait.

python -m benchmarks.cdn [--readers 2000] [--appends 20]

The cache is nginx with the configuration of docs/deployment/cdn.md. Behind it another nginx counts what comes, and
passes it on to the example project.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address, Client
from benchmarks.outcome import MeasurementError
from benchmarks.targets import ROOT, Ours, free_port

PAGE = ROOT / "docs" / "deployment" / "cdn.md"
STREAM = "measured"
APPEND_BYTES, APPENDS_BEFORE = 8_000, 24
TEXT = "text/plain"
START_SECONDS = 10.0
TIMEOUTS = 2
"""How many long-polls without data each reader waits for."""


class Origin(Ours):
    """The example project, whose streams caches may keep."""

    def __init__(self, long_poll_timeout: float) -> None:
        super().__init__("cdn", "ours")
        self.long_poll_timeout = long_poll_timeout

    def environment(self, directory: Path) -> dict[str, str]:
        return {
            **super().environment(directory),
            "DJANGO_SETTINGS_MODULE": "benchmarks.cdn_settings",
            "LONG_POLL_TIMEOUT": str(self.long_poll_timeout),
        }


@dataclass
class Cache:
    """The nginx in front. `requests` counts those that have come out of it, and were answered."""

    port: int
    log: Path

    def requests(self) -> int:
        return self.log.read_bytes().count(b"\n")


@contextmanager
def cache_before(origin_port: int) -> Iterator[Cache]:
    """Start nginx as the page has it, in front of an nginx that counts, in front of a server."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise MeasurementError("nginx is missing; Debian: apt-get install nginx")
    match = re.search(r"^```nginx\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    if match is None:
        raise MeasurementError(f"{PAGE} has no configuration")
    with tempfile.TemporaryDirectory(prefix="bench-cdn-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        cache, counter = Cache(free_port(), folder / "origin.log"), free_port()
        site = match[1]
        for old, new in (
            ("/var/cache/nginx/streams", f"{folder}/kept"),
            ("127.0.0.1:8000", f"127.0.0.1:{counter}"),
            ("listen 80;", f"listen 127.0.0.1:{cache.port};"),
        ):
            if old not in site:
                raise MeasurementError(f"the configuration of {PAGE} has no {old}")
            site = site.replace(old, new)
        (folder / "nginx.conf").write_text(_main(folder, site, counter, origin_port, cache.log))
        with (folder / "errors.log").open("wb") as errors:
            command = [program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
            process = subprocess.Popen(command, stderr=errors)
        try:
            _wait_for(cache.port, process, folder / "errors.log")
            yield cache
        finally:
            process.terminate()
            process.wait()


def _main(folder: Path, site: str, counter: int, origin_port: int, log: Path) -> str:
    temporary = "\n".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off;
pid nginx.pid;
worker_processes 1;
worker_rlimit_nofile 65536;
events {{ worker_connections 16384; }}
http {{
    {temporary}
    access_log off;
    log_format count "$request_method $request_uri $status";
    {site}
    upstream server {{ server 127.0.0.1:{origin_port}; keepalive 64; }}
    server {{
        listen 127.0.0.1:{counter} backlog=4096;
        access_log {log} count;
        location / {{
            proxy_pass http://server;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_read_timeout 75s;
        }}
    }}
}}
"""


def _wait_for(port: int, process: subprocess.Popen[bytes], errors: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise MeasurementError(f"nginx did not start: {errors.read_text()}") from None
            time.sleep(0.05)


class Reader:
    """One client with one connection, which keeps what it has read."""

    def __init__(self, port: int) -> None:
        self.data = bytearray()
        self.requests = 0
        self.timeouts = 0
        self._port = port
        self._writer: asyncio.StreamWriter | None = None
        self._target = f"/v1/stream/{STREAM}?offset=-1"

    async def connect(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def catch_up(self) -> None:
        """Read to the tail."""
        while (await self._get()).get("stream-up-to-date") != "true":
            pass

    async def follow(self, size: int) -> float:
        """Long-poll until so many bytes are there, and return when they were."""
        while len(self.data) < size:
            await self._get(live=True)
        return time.perf_counter()

    async def wait(self, timeouts: int) -> None:
        """Long-poll until so many have ended without data."""
        until = self.timeouts + timeouts
        while self.timeouts < until:
            await self._get(live=True)

    async def _get(self, live: bool = False) -> dict[str, str]:
        assert self._writer is not None
        query = self._target + ("&live=long-poll" if live else "")
        self._writer.write(f"GET {query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.requests += 1
        lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
        status = int(lines[0].split(" ")[1])
        if status == 200:
            self.data += await self._body(headers)
        elif status == 204:
            self.timeouts += 1
        else:
            raise MeasurementError(f"{query}: {lines[0]}")
        cursor = headers.get("stream-cursor")
        self._target = f"/v1/stream/{STREAM}?offset={headers['stream-next-offset']}"
        self._target += f"&cursor={cursor}" if cursor else ""
        return headers

    async def _body(self, headers: dict[str, str]) -> bytes:
        if "content-length" in headers:
            return await self._reader.readexactly(int(headers["content-length"]))
        body = b""
        while size := int(await self._reader.readline(), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readline()
        return body

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()
            with suppress(OSError):
                await self._writer.wait_closed()


@dataclass(frozen=True)
class Phase:
    """What readers did, their requests, those that reached the servers, and the delays in seconds, if it has any."""

    name: str
    requests: int
    reached: int
    delays: Sequence[float] = ()

    def row(self) -> str:
        """Return the row of the table."""
        delay = ""
        if len(self.delays) > 1:
            cuts = statistics.quantiles(self.delays, n=100)
            delay = f"{cuts[49] * 1000:.0f} ms, {cuts[98] * 1000:.0f} ms"
        return f"| {self.name} | {self.requests:,} | {self.reached:,} | {delay or '-'} |"


async def measure(cache: Cache, origin: Client, readers: Sequence[Reader], appends: int) -> list[Phase]:
    """Let readers catch up, follow appends, and wait for nothing. Checks that all have read the same."""

    def count() -> tuple[int, int]:
        return sum(reader.requests for reader in readers), cache.requests()

    phases = []
    size = APPEND_BYTES * APPENDS_BEFORE
    for reader in readers:
        await reader.connect()
    before = count()
    await asyncio.gather(*(reader.catch_up() for reader in readers))
    after = count()
    phases.append(Phase("catch up", after[0] - before[0], after[1] - before[1]))

    delays: list[float] = []
    for _ in range(appends):
        size += APPEND_BYTES
        following = [asyncio.ensure_future(reader.follow(size)) for reader in readers]
        await asyncio.sleep(0.2)  # they wait
        began = time.perf_counter()
        await asyncio.to_thread(append, origin)
        delays += [arrived - began for arrived in await asyncio.gather(*following)]
    before, after = after, count()
    phases.append(Phase(f"follow {appends} appends", after[0] - before[0], after[1] - before[1], delays))

    await asyncio.gather(*(reader.wait(TIMEOUTS) for reader in readers))
    before, after = after, count()
    phases.append(Phase(f"wait for {TIMEOUTS} timeouts", after[0] - before[0], after[1] - before[1]))
    if len({bytes(reader.data) for reader in readers}) != 1 or len(readers[0].data) != size:
        raise MeasurementError("not all readers have read the same")
    return phases


async def connected(cache: Cache, origin: Client, readers: Sequence[Reader], appends: int) -> list[Phase]:
    """Measure, and close all connections."""
    try:
        return await measure(cache, origin, readers, appends)
    finally:
        for reader in readers:
            await reader.close()


def append(origin: Client) -> None:
    origin.append(STREAM, b"x" * (APPEND_BYTES - 1) + b"\n", TEXT)


def run(readers: int, appends: int, long_poll_timeout: float) -> list[Phase]:
    """Start everything, and measure."""
    server = Origin(long_poll_timeout)
    try:
        address: Address = server.start()
        with cache_before(address.port) as cache, Client(address) as origin:
            origin.create(STREAM, TEXT)
            for _ in range(APPENDS_BEFORE):
                append(origin)
            return asyncio.run(connected(cache, origin, [Reader(cache.port) for _ in range(readers)], appends))
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cdn", description=__doc__)
    parser.add_argument("--readers", type=int, default=2000)
    parser.add_argument("--appends", type=int, default=20)
    parser.add_argument("--timeout", type=float, default=5.0, help="LONG_POLL_TIMEOUT in seconds")
    options = parser.parse_args()
    raise_open_file_limit()
    print("| Readers | Requests | At the servers | Delay, p50 and p99 |\n|---|---|---|---|")
    for phase in run(options.readers, options.appends, options.timeout):
        print(phase.row())


if __name__ == "__main__":
    main()
