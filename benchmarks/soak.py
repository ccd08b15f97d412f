"""A check for growing memory: minutes of mixed load on one server, with its resident memory after each round.

    python -m benchmarks.soak [--minutes 5] [--target sqlite]

Appends to one stream and to a hundred, creates of streams that expire, reads of a page and at the tail, and readers by
SSE that come, stay for some appends and leave, all at once. Streams that grow are begun anew every round.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks import wrk
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address, Client
from benchmarks.fleet import SseFleet
from benchmarks.idle import resident_bytes
from benchmarks.targets import Process, make
from benchmarks.workload import body_file
from benchmarks.writes import BINARY

ROUND_SECONDS = 20
READERS = 100
TTL = "5"
KIND = f"Content-Type={BINARY}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--target", default="sqlite")
    options = parser.parse_args()
    raise_open_file_limit()
    target = make(options.target)
    if not isinstance(target, Process):
        parser.error("the memory of a server that this run has not started cannot be read")
    address = target.start()
    problems: set[str] = set()
    try:
        assert target.pid is not None
        began = time.monotonic()
        number = 0
        while (elapsed := time.monotonic() - began) < options.minutes * 60:
            problems.update(load(address, f"soak/{number}"))
            number += 1
            megabytes = resident_bytes(target.pid) / 1e6
            print(f"{elapsed + ROUND_SECONDS:5.0f} s  {megabytes:7.1f} MB", flush=True)
    finally:
        target.stop()
    for problem in sorted(problems):
        print(f"!! {problem}", file=sys.stderr)
    return 1 if problems else 0


def load(address: Address, name: str) -> list[str]:
    """Run one round of all loads at once, and return the errors."""
    with Client(address) as client, body_file(b"x" * 100) as file, ThreadPoolExecutor() as pool:
        grown = [f"{name}/one", *(f"{name}/many/{number}" for number in range(100))]
        for stream in (*grown, f"{name}/live", f"{name}/page"):
            client.create(stream, BINARY)
        client.append(f"{name}/page", b"x" * 10_000, BINARY)
        tail = client.tail(f"{name}/page")
        loads = [
            ("fixed", f"{name}/one", ["POST", file, KIND]),
            ("paths", f"{name}/many", ["POST", file, "100", KIND]),
            ("paths", f"{name}/new", ["PUT", "-", "0", KIND, f"Stream-TTL={TTL}"]),
            ("fixed", f"{name}/page", ["GET", "-"]),
            ("fixed", f"{name}/page?offset={tail}", ["GET", "-"]),
        ]
        running = [
            pool.submit(wrk.run, script, address.url(path), arguments, threads=1, connections=8, seconds=ROUND_SECONDS)
            for script, path, arguments in loads
        ]
        errors: list[str] = []
        while not all(run.done() for run in running):
            with SseFleet(address, f"{name}/live", READERS) as fleet:
                fleet.open(client.tail(f"{name}/live"))
                for _ in range(20):
                    client.append(f"{name}/live", b"x" * 100, BINARY)
                    fleet.pump(0.05)
                errors += fleet.errors
        for run in running:
            errors += run.result().errors
        for stream in (*grown, f"{name}/live", f"{name}/page"):
            client.delete(stream)
    return errors


if __name__ == "__main__":
    sys.exit(main())
