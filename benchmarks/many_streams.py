"""A million streams beside a thousand: `python -m benchmarks.many_streams`

One server creates a thousand streams and is measured, then creates the rest and is measured again. Each request is for
a random stream. The memory is the server's own, without the pages of the database that the system caches.
"""

from __future__ import annotations

import argparse
import math
import sys
from dataclasses import dataclass

from benchmarks import targets, wrk
from benchmarks.client import Address, Client
from benchmarks.idle import resident_bytes
from benchmarks.outcome import MeasurementError
from benchmarks.workload import body_file
from benchmarks.writes import BINARY, WARM_UP_SECONDS, binary

FEW_STREAMS, MANY_STREAMS = 1_000, 1_000_000
CONNECTIONS = 64
BODY_BYTES = 100
MARGIN = 1.3
"""How much longer the creates run than their first rate requires."""

HOLDS = {"create": "at least 0.5", "random append": "at least 0.5", "random GET": "at least 0.5"}
MAX_MEMORY_MB = 150


@dataclass(frozen=True)
class Rates:
    """Requests a second over a number of streams, and the memory of the server afterwards."""

    streams: int
    create: float
    append: float
    read: float
    memory_mb: float


def checked(counts: wrk.Counts) -> float:
    """Return the rate of a run without errors."""
    if counts.errors:
        raise MeasurementError("; ".join(counts.errors))
    return counts.rate


def create(address: Address, name: str, seconds: int) -> wrk.Counts:
    """Create streams with the numbers from 1 on below a path. Raises MeasurementError if one fails."""
    arguments = ["PUT", "-", "0", f"Content-Type={BINARY}"]
    counts = wrk.run("paths", address.url(name), arguments, threads=1, connections=CONNECTIONS, seconds=seconds)
    checked(counts)
    return counts


def measure(address: Address, pid: int, name: str, streams: int, create_rate: float, seconds: int) -> Rates:
    """Measure random appends and reads over streams 0 to `streams` - 1 below a path."""
    with body_file(binary(BODY_BYTES)) as file:
        requests = {
            "append": ["POST", file, str(streams), f"Content-Type={BINARY}"],
            "read": ["GET", "-", str(streams)],
        }
        rates = {}
        for title, arguments in requests.items():
            for run_seconds in (WARM_UP_SECONDS, seconds):
                counts = wrk.run(
                    "random", address.url(name), arguments, threads=1, connections=CONNECTIONS, seconds=run_seconds
                )
            rates[title] = checked(counts)
    return Rates(streams, create_rate, rates["append"], rates["read"], resident_bytes(pid) / 1e6)


def compare(target: targets.Target, total: int, seconds: int) -> tuple[Rates, Rates]:
    """Measure a server with a thousand streams, and again with so many in total."""
    address = target.start()
    try:
        pid = target.pid
        if pid is None:
            raise MeasurementError("the server is not this run's own")
        rate = create(address, "first", seconds).rate
        with Client(address) as client:
            for number in range(FEW_STREAMS):
                client.create(f"few/{number}", BINARY)
        few = measure(address, pid, "few", FEW_STREAMS, rate, seconds)
        created = create(address, "many", math.ceil(total / rate * MARGIN)).requests
        if created < total:
            raise MeasurementError(f"only {created} streams were created: creates became slower by {MARGIN} times")
        with Client(address) as client:
            client.create("many/0", BINARY)  # the run has begun at 1
        last_rate = create(address, "last", seconds).rate
        return few, measure(address, pid, "many", total, last_rate, seconds)
    finally:
        target.stop()


def table(few: Rates, many: Rates, total: int) -> str:
    """Return the comparison as a table in Markdown."""
    rows = [("create", few.create, many.create), ("random append", few.append, many.append)]
    rows.append(("random GET", few.read, many.read))
    lines = [f"| a second | {few.streams:,} streams | {total:,} streams | ratio | to hold |", "|---|---|---|---|---|"]
    lines += [
        f"| {title} | {before:,.0f} | {after:,.0f} | {after / before:.2f} | {HOLDS[title]} |"
        for title, before, after in rows
    ]
    memory = f"| memory, MB | {few.memory_mb:.0f} | {many.memory_mb:.0f} | | under {MAX_MEMORY_MB} |"
    return "\n".join([*lines, memory])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.many_streams", description=__doc__)
    parser.add_argument("--streams", type=int, default=MANY_STREAMS)
    parser.add_argument("--seconds", type=int, default=4, help="for each load measurement")
    parser.add_argument("--target", default=targets.SQLITE)
    options = parser.parse_args(arguments)
    few, many = compare(targets.make(options.target), options.streams, options.seconds)
    print(table(few, many, options.streams))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
