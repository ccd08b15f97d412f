"""Large bodies by Node's fetch, and deletes of their streams: `python -m benchmarks.large`

A process of Node creates a stream, appends 14 MB in one request, and deletes the stream again. The official client
joins 14 waiting messages of 1 MB into such a request. Servers alternate in rounds, and each is started once.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

from benchmarks import targets
from benchmarks.client import Address
from benchmarks.outcome import MeasurementError, percentile

SCRIPT = targets.REFERENCE / "large.mjs"
BODY_BYTES = 14 * 1024 * 1024
DEFAULT_TARGETS = f"{targets.SQLITE},{targets.FILE}"
JOB_SECONDS = 300
MAX_OF_FILES, MAX_DELETE_MS = 1.0, 3.0


def run(address: Address, size: int, streams: int) -> dict[str, list[float]]:
    """Return the milliseconds of each request, by "post" and "delete"."""
    url = f"http://{address.netloc}{address.prefix}"
    job = subprocess.run(
        ["node", str(SCRIPT), url, str(size), str(streams)],
        capture_output=True,
        text=True,
        timeout=JOB_SECONDS,
        check=False,
    )
    if job.returncode:
        raise MeasurementError(job.stderr.strip()[-targets.LOG_TAIL :])
    times: dict[str, list[float]] = json.loads(job.stdout)
    return times


def table(times: dict[str, dict[str, list[float]]]) -> str:
    """Return the times of all servers as a table in Markdown."""
    lines = ["| | POST, ms: p50, lowest to highest | DELETE, ms: p50, lowest to highest |", "|---|---|---|"]
    for title, of_server in times.items():
        cells = [
            f"{percentile(of_server[kind], 50):.1f}, {min(of_server[kind]):.1f} to {max(of_server[kind]):.1f}"
            for kind in ("post", "delete")
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large", description=__doc__)
    parser.add_argument("--targets", default=DEFAULT_TARGETS)
    parser.add_argument("--bytes", type=int, default=BODY_BYTES)
    parser.add_argument("--streams", type=int, default=10, help="in each round")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args(arguments)
    servers = [targets.make(key) for key in options.targets.split(",")]
    times: dict[str, dict[str, list[float]]] = {server.title: {"post": [], "delete": []} for server in servers}
    started = []
    try:
        for server in servers:
            started.append((server, server.start()))
        for _ in range(options.rounds):
            for server, address in started:
                for kind, samples in run(address, options.bytes, options.streams).items():
                    times[server.title][kind] += samples
    finally:
        for server, _ in started:
            server.stop()
    print(table(times))
    ours, files = (times.get(targets.make(key).title) for key in (targets.SQLITE, targets.FILE))
    if ours and files:
        ratio = percentile(ours["post"], 50) / percentile(files["post"], 50)
        print(f"\nPOST, SQLite / files: {ratio:.2f}, to hold: at most {MAX_OF_FILES}.")
        print(f"DELETE, SQLite: {percentile(ours['delete'], 50):.1f} ms, to hold: at most {MAX_DELETE_MS:g}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
