"""Pages: an event source that many readers follow, with each message rendered once by a template.

    python -m benchmarks.pages [--readers 1000] [--rate 10] [--seconds 20] [--target sqlite] [--own]

A sample is the time from just before an append is sent to the receipt of its event by one reader. The event source is a
Django view behind the example project's middleware. With `--own`, each reader has its own events.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.client import Address, Client
from benchmarks.fleet import SseFleet
from benchmarks.outcome import MeasurementError, percentile
from benchmarks.targets import POSTGRESQL, ROOT, SQLITE, Ours, OursOnPostgres, uvicorn
from benchmarks.wire import encode_request

JSON = "application/json"
STREAM = "measured/pages"
WARM_UP_APPENDS = 10
LOST_AFTER_SECONDS = 15.0
TICKS_A_SECOND = 100
"""Clock ticks of `/proc`, the same on all Linux machines of today."""


class PageFleet(SseFleet):
    """Readers of an event source. One is open once the first bytes of its event stream came."""

    def __init__(self, address: Address, count: int, view: str) -> None:
        super().__init__(address, STREAM, count)
        self._opening = b"retry:"
        self._view = view

    def request(self, offset: str) -> bytes:
        pages = Address(self.address.host, self.address.port, f"/{self._view}")
        return encode_request("GET", pages, f"{STREAM}?offset={offset}", headers={"Accept": "text/event-stream"})


class WithPages(Ours):
    """The example project with event sources, whose renderer counts its calls in a file."""

    def environment(self, directory: Path) -> dict[str, str]:
        environment = super().environment(directory)
        return {**environment, "RENDERED_FILE": str(directory / "rendered")}

    def command(self, port: int, directory: Path) -> list[str]:
        return uvicorn(port, ROOT, "benchmarks.pages_project:application")

    @property
    def rendered(self) -> int:
        """How often the renderer was called."""
        assert self._directory is not None
        return (self._directory / "rendered").stat().st_size


class WithPagesOnPostgres(WithPages, OursOnPostgres):
    """The same on PostgreSQL."""


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process has taken."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def measure(options: Any, target: WithPages, address: Address) -> None:
    assert target.pid is not None
    appends = WARM_UP_APPENDS + options.rate * options.seconds
    samples: list[float] = []
    with Client(address) as client:
        client.create(STREAM, JSON)
        with PageFleet(address, options.readers, "own" if options.own else "events") as fleet:
            gc.collect()
            gc.disable()
            fleet.open("now")
            began, used, rendered = perf_counter(), cpu_seconds(target.pid), target.rendered
            slot = perf_counter()
            for number in range(appends):
                while (left := slot - perf_counter()) > 0:
                    fleet.pump(left)
                arrivals = deliver(address, fleet, number)
                if number == WARM_UP_APPENDS - 1:
                    began, used, rendered = perf_counter(), cpu_seconds(target.pid), target.rendered
                elif number >= WARM_UP_APPENDS:
                    samples += arrivals
                slot = max(slot + 1 / options.rate, perf_counter())
            seconds = perf_counter() - began
            load = (cpu_seconds(target.pid) - used) / seconds
            rendered = target.rendered - rendered
            errors = dict.fromkeys(fleet.errors)
            gc.enable()
    measured = appends - WARM_UP_APPENDS
    p50, p99 = (percentile(samples, percent) * 1e3 for percent in (50, 99))
    print(f"{options.readers} readers, {measured / seconds:.1f} messages a second: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    print(f"server: {load:.0%} of a core; {rendered} messages rendered for {measured} appended")
    for error in errors:
        print(f"error: {error}")


def deliver(address: Address, fleet: PageFleet, number: int) -> list[float]:
    """Append a message, wait until all readers have its event, and return the seconds that each of them waited."""
    marker = f"message {number:06}"
    body = json.dumps({"author": "somebody", "text": marker}).encode()
    fleet.arm(marker.encode())
    sent = fleet.write(encode_request("POST", address, STREAM, body, {"Content-Type": JSON}))
    while not fleet.delivered:
        fleet.pump(0.05)
        if perf_counter() > sent + LOST_AFTER_SECONDS:
            raise MeasurementError(f"{fleet.missing} of {fleet.count} readers did not get an event")
    return [arrival - sent for arrival in fleet.arrivals]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--target", choices=(SQLITE, POSTGRESQL), default=SQLITE)
    parser.add_argument("--readers", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=10, help="messages a second")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--own", action="store_true", help="render for each reader")
    options = parser.parse_args()
    target = {SQLITE: WithPages, POSTGRESQL: WithPagesOnPostgres}[options.target](options.target, options.target)
    with ExitStack() as stack:
        stack.callback(target.stop)
        measure(options, target, target.start())
    return 0


if __name__ == "__main__":
    sys.exit(main())
