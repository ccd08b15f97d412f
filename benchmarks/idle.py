"""Memory of waiting readers: the growth of the server process while they are connected and idle."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Client
from benchmarks.delivery import TEXT
from benchmarks.fleet import SseFleet
from benchmarks.outcome import MeasurementError, Outcome
from benchmarks.workload import Bench

# Enough requests and readers for a server to finish its one-time loading, compiling and caching.
WARM_UP_REQUESTS = 200
WARM_UP_READERS = 20
SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class IdleReaders:
    """KB of resident memory per idle SSE reader. Meaningful on a server that has done nothing else yet."""

    readers: int

    def run(self, bench: Bench) -> Outcome:
        if bench.pid is None:
            raise MeasurementError("the process of this server is unknown")
        with Client(bench.address) as client:
            client.create(bench.name, TEXT)
            for _ in range(WARM_UP_REQUESTS):
                client.append(bench.name, b"warm-up", TEXT)
                client.request("GET", f"{bench.name}?offset=-1", expect=(200,))
            tail = client.tail(bench.name)
            with SseFleet(bench.address, bench.name, WARM_UP_READERS) as fleet:
                fleet.open(tail)
            time.sleep(SETTLE_SECONDS)
            before = resident_bytes(bench.pid)
            with SseFleet(bench.address, bench.name, self.readers) as fleet:
                fleet.open(tail)
                time.sleep(SETTLE_SECONDS)
                after = resident_bytes(bench.pid)
                fleet.pump(0)
                errors = tuple(dict.fromkeys(fleet.errors))
            bench.leave(bench.name)
        return Outcome({"kb": (after - before) / self.readers / 1e3, "idle_mb": before / 1e6}, errors)


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants."""
    status = Path(f"/proc/{pid}/status").read_text()
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) * 1024
    children: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError):  # the thread has ended meanwhile
            children.update(map(int, (thread / "children").read_text().split()))
    return own + sum(resident_bytes(child) for child in children)
