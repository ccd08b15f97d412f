"""Plain ASGI beside the reference server: `python -m benchmarks.plain_asgi`

The fast path exists on uvicorn only, and only where the application is the one that uvicorn runs. This measures all
other shapes: uvicorn with a wrapper around the application, granian and hypercorn. The processor time of the server for
each request is in the table as well, because it depends less on what else the machine does than the rates.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import targets, wrk
from benchmarks.client import Address, Client
from benchmarks.outcome import MeasurementError
from benchmarks.workload import body_file
from benchmarks.writes import BINARY, WARM_UP_SECONDS, binary

CONNECTIONS = 64
APPEND_BYTES, GET_BYTES = 100, 1000
TO_HOLD = 0.9


class OnServer(targets.Ours):
    """The example project on a server of Python's, with a command line of its own."""

    def __init__(self, key: str, title: str, line: Callable[[int], list[str]]) -> None:
        super().__init__(key, title)
        self._line = line

    def command(self, port: int, directory: Path) -> list[str]:
        return self._line(port)


def uvicorn(application: str) -> Callable[[int], list[str]]:
    return lambda port: targets.uvicorn(port, targets.ROOT / "example_project", application)


def granian(port: int) -> list[str]:
    options = ["--interface", "asgi", "--workers", "1", "--loop", "uvloop", "--log-level", "warning"]
    address = ["--host", "127.0.0.1", "--port", str(port)]
    return [sys.executable, "-m", "granian", *options, *address, "config.asgi:application"]


def hypercorn(port: int) -> list[str]:
    options = ["--workers", "0", "--worker-class", "uvloop", "--bind", f"127.0.0.1:{port}"]
    return [sys.executable, "-m", "hypercorn", *options, "config.asgi:application"]


SHAPES: dict[str, Callable[[], targets.Process]] = {
    "fast": lambda: OnServer("fast", "uvicorn, fast path", uvicorn("config.asgi:application")),
    "wrapped": lambda: OnServer("wrapped", "uvicorn, wrapped", uvicorn("benchmarks.wrapped:application")),
    "granian": lambda: OnServer("granian", "granian", granian),
    "hypercorn": lambda: OnServer("hypercorn", "hypercorn", hypercorn),
    "memory": lambda: targets.Reference("memory", "reference, memory", durable=False),
}


@dataclass(frozen=True)
class Sample:
    """Requests a second, and microseconds of the server's processor time for each."""

    rate: float
    microseconds: float


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its descendants, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    children: set[int] = set()
    for thread in Path(f"/proc/{pid}/task").iterdir():
        children.update(map(int, (thread / "children").read_text().split()))
    return own + sum(cpu_seconds(child) for child in children)


def drive(pid: int, address: Address, name: str, arguments: list[str], seconds: int) -> Sample:
    def run(run_seconds: int) -> wrk.Counts:
        return wrk.run("fixed", address.url(name), arguments, threads=1, connections=CONNECTIONS, seconds=run_seconds)

    run(WARM_UP_SECONDS)
    before = cpu_seconds(pid)
    counts = run(seconds)
    used = cpu_seconds(pid) - before
    if counts.errors:
        raise MeasurementError("; ".join(counts.errors))
    return Sample(counts.rate, used / counts.requests * 1e6)


def visit(target: targets.Process, seconds: int) -> dict[str, Sample]:
    """Start a server, measure its rows, and stop it."""
    address = target.start()
    try:
        assert target.pid is not None
        with Client(address) as client, body_file(binary(APPEND_BYTES)) as file:
            client.create("append", BINARY)
            client.create("get", BINARY)
            client.append("get", binary(GET_BYTES), BINARY)
            append = drive(target.pid, address, "append", ["POST", file, f"Content-Type={BINARY}"], seconds)
            return {"append": append, "GET": drive(target.pid, address, "get?offset=-1", ["GET", "-"], seconds)}
    finally:
        target.stop()


def table(samples: Mapping[str, Mapping[str, list[Sample]]], titles: Mapping[str, str]) -> str:
    """Return the medians as a table in Markdown, each beside the reference of the same run."""
    lines = ["| | append/s | of the reference | us of CPU | GET/s | of the reference | us of CPU |", f"|{'---|' * 7}"]
    for key, rows in samples.items():
        cells = []
        for row, taken in rows.items():
            rate = statistics.median(sample.rate for sample in taken)
            ratio = "-"
            if "memory" in samples:
                ratio = f"{rate / statistics.median(sample.rate for sample in samples['memory'][row]):.2f}"
            cells += [f"{rate:,.0f}", ratio, f"{min(sample.microseconds for sample in taken):.1f}"]
        lines.append(f"| {titles[key]} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"To hold, for wrapped uvicorn and granian: at least {TO_HOLD} of the reference."])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plain_asgi", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="for each load measurement")
    parser.add_argument("--shapes", default=",".join(SHAPES))
    options = parser.parse_args(arguments)
    chosen = options.shapes.split(",")
    titles, samples = {}, {key: defaultdict[str, list[Sample]](list) for key in chosen}
    for _ in range(options.rounds):
        for key in chosen:
            target = SHAPES[key]()
            titles[key] = target.title
            for row, sample in visit(target, options.seconds).items():
                samples[key][row].append(sample)
            rates = ", ".join(f"{row} {taken[-1].rate:,.0f}/s" for row, taken in samples[key].items())
            print(f"{target.title}: {rates}", file=sys.stderr, flush=True)
    print(table(samples, titles))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
