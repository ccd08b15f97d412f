"""Messages to many readers, beside what a Django project would take instead: `python -m benchmarks.alternatives`

One worker of uvicorn for each: this app (on the disk, with SQLite and with PostgreSQL), django-eventstream (without a
storage, with its storage on SQLite, with Redis), and groups of Channels over WebSocket (in memory, with Redis). 500
readers get 10 messages of 100 B a second. Each round starts every server afresh.

The other packages need a virtual environment of their own, which `make bench-alternatives` makes. A sample is the time
from just before a message is sent to its receipt by one reader. All readers are one process, on the same two cores.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

from benchmarks import cpu
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address, Client
from benchmarks.delivery import LOST_AFTER_SECONDS, TEXT
from benchmarks.fleet import Fleet, SseFleet
from benchmarks.idle import SETTLE_SECONDS, WARM_UP_READERS, resident_bytes
from benchmarks.outcome import MeasurementError, percentile
from benchmarks.redis import running_redis
from benchmarks.session import log
from benchmarks.targets import ROOT, Ours, OursOnPostgres, Process, TargetError, uvicorn
from benchmarks.websocket import WebSocketFleet
from benchmarks.wire import encode_request

PYTHON = ROOT / ".venv" / "alternatives" / "bin" / "python"
NAME = "bench/alternatives"
MESSAGE_BYTES = 100
WARM_UP_MESSAGES = 10
TITLES = {
    "eventstream": "django-eventstream, no storage",
    "eventstream-storage": "django-eventstream, its storage on SQLite",
    "eventstream-redis": "django-eventstream, Redis, no storage",
    "channels": "Channels, groups in memory",
    "channels-redis": "Channels, groups in Redis",
}


class EventFleet(SseFleet):
    """Readers of django-eventstream. One is open once its first event came."""

    def __init__(self, address: Address, name: str, count: int) -> None:
        super().__init__(address, name, count)
        self._opening = b"stream-open"

    def request(self, offset: str) -> bytes:
        return encode_request("GET", Address(self.address.host, self.address.port, ""), "events/")


class GroupFleet(WebSocketFleet):
    """WebSockets in a group of Channels."""

    path = "/ws/"


class Alternative(Process):
    """`benchmarks.alternatives_project`, in the environment that has the other packages."""

    def __init__(self, key: str) -> None:
        super().__init__(key, TITLES[key])
        self._services = ExitStack()
        self._redis_port = ""

    def prepare(self, directory: Path) -> None:
        if not PYTHON.exists():
            raise TargetError(f"There is no {PYTHON}. Run this by make bench-alternatives.")
        if self.key.endswith("redis"):
            url = self._services.enter_context(running_redis())
            self._redis_port = url.rpartition(":")[2].partition("/")[0]

    def clean_up(self) -> None:
        self._services.close()

    def environment(self, directory: Path) -> dict[str, str]:
        return {
            **os.environ,
            "ALTERNATIVE": self.key,
            "DATABASE_FILE": str(directory / "db.sqlite3"),
            "REDIS_PORT": self._redis_port,
        }

    def command(self, port: int, directory: Path) -> list[str]:
        return [str(PYTHON), *uvicorn(port, ROOT, "benchmarks.alternatives_project:application")[1:]]


@dataclass(frozen=True)
class Shape:
    """A server, the kind of its readers, and the request that publishes."""

    target: Process
    fleet: type[Fleet]

    @property
    def is_ours(self) -> bool:
        return isinstance(self.target, Ours)

    def publish(self, address: Address, body: bytes) -> bytes:
        if self.is_ours:
            return encode_request("POST", address, NAME, body, {"Content-Type": TEXT})
        return encode_request("POST", Address(address.host, address.port, ""), "publish", body, {"Content-Type": TEXT})


def shapes() -> Iterator[Shape]:
    yield Shape(Ours("sqlite", "this app, on SQLite"), SseFleet)
    yield Shape(OursOnPostgres("postgresql", "this app, on PostgreSQL"), SseFleet)
    for key in TITLES:
        yield Shape(Alternative(key), GroupFleet if key.startswith("channels") else EventFleet)


@dataclass(frozen=True)
class Figures:
    """Milliseconds from a message to its readers and to its answer, the load of the server, and KB for each reader."""

    p50: float
    p99: float
    answer: float
    load: float
    kilobytes: float


def measure(shape: Shape, options: argparse.Namespace) -> Figures:
    """Start a server, measure it, and stop it."""
    address = shape.target.start()
    try:
        pid = shape.target.pid
        assert pid is not None
        if shape.is_ours:
            with Client(address) as client:
                client.create(NAME, TEXT)
        with shape.fleet(address, NAME, WARM_UP_READERS) as fleet:
            fleet.open("now")
            for number in range(WARM_UP_MESSAGES):
                deliver(shape, address, fleet, number)
        time.sleep(SETTLE_SECONDS)
        before = resident_bytes(pid)
        with shape.fleet(address, NAME, options.readers) as fleet:
            fleet.open("now")
            time.sleep(SETTLE_SECONDS)
            kilobytes = (resident_bytes(pid) - before) / options.readers / 1e3
            gc.collect()
            gc.disable()
            try:
                samples, answers, load = follow(shape, address, fleet, pid, options)
            finally:
                gc.enable()
            fleet.raise_errors()
    finally:
        shape.target.stop()
    p50, p99 = (percentile(samples, percent) * 1e3 for percent in (50, 99))
    return Figures(p50, p99, percentile(answers, 50) * 1e3, load, kilobytes)


def follow(
    shape: Shape, address: Address, fleet: Fleet, pid: int, options: argparse.Namespace
) -> tuple[list[float], list[float], float]:
    """Publish messages at their rate. Return the times of all receipts and answers, and the load of the server."""
    samples: list[float] = []
    answers: list[float] = []
    slot = began = perf_counter()
    used = cpu.seconds(pid)
    messages = options.rate * options.seconds
    for number in range(WARM_UP_MESSAGES + messages):
        while (left := slot - perf_counter()) > 0:
            fleet.pump(left)
        if number == WARM_UP_MESSAGES:
            began, used = perf_counter(), cpu.seconds(pid)
        sent = deliver(shape, address, fleet, number)
        if number >= WARM_UP_MESSAGES:
            samples += [arrival - sent for arrival in fleet.arrivals]
            answers.append(fleet.answered_at - sent)
        slot = max(slot + 1 / options.rate, perf_counter())
    load = (cpu.seconds(pid) - used) / (perf_counter() - began)
    return samples, answers, load


def deliver(shape: Shape, address: Address, fleet: Fleet, number: int) -> float:
    """Publish a message, wait until all readers have it, and return when it was sent."""
    marker = f"<message {number:06}>".encode()
    fleet.arm(marker)
    sent = fleet.write(shape.publish(address, marker.ljust(MESSAGE_BYTES, b".")))
    while not fleet.delivered:
        fleet.pump(0.05)
        if perf_counter() > sent + LOST_AFTER_SECONDS:
            raise MeasurementError(f"{fleet.missing} of {fleet.count} readers did not get a message")
    return sent


def table(results: dict[str, list[Figures]]) -> Iterator[str]:
    """Yield the lines of the table: medians of all rounds."""
    yield "|  | p50, ms | p99, ms | answer, ms | load, % of a core | KB a reader |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for title, rounds in results.items():
        values = [
            median(getattr(figures, name) for figures in rounds) * factor
            for name, factor in (("p50", 1), ("p99", 1), ("answer", 1), ("load", 100), ("kilobytes", 1))
        ]
        yield f"| {title} | {' | '.join(f'{value:.3g}' for value in values)} |"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.alternatives",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--readers", type=int, default=500)
    parser.add_argument("--rate", type=int, default=10, help="messages a second")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="keys of servers, separated by commas")
    options = parser.parse_args(arguments)
    raise_open_file_limit()
    results: dict[str, list[Figures]] = {}
    for _ in range(options.rounds):
        for shape in shapes():
            if options.only and shape.target.key not in options.only.split(","):
                continue
            figures = measure(shape, options)
            log(f"{shape.target.title}: {figures}")
            results.setdefault(shape.target.title, []).append(figures)
    print("\n".join(table(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
