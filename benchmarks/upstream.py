"""The protocol's own benchmarks against several servers: `python -m benchmarks.upstream --source FILE`

FILE is `packages/benchmarks/src/index.ts` of a checkout of `durable-streams/durable-streams`. It is copied to a
directory of its own, run there by the vitest and the client of tests/conformance, and removed again. Servers alternate
in rounds, and each round starts them afresh.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import targets
from benchmarks.client import Address
from benchmarks.outcome import MeasurementError, percentile

SUITE = targets.ROOT / "tests" / "conformance"
DEFAULT_TARGETS = f"{targets.SQLITE},{targets.FILE}"
JOB_SECONDS = 600
RESULTS = "benchmark-results.json"
BENCHMARK = """\
import { runBenchmarks } from "./source"
runBenchmarks({ baseUrl: process.env.BENCHMARK_URL ?? "", environment: "local" })
"""

# The names of the upstream results, and whether a higher value is better.
ROWS = {
    "Latency - Total RTT": False,
    "Latency - Overhead": False,
    "Throughput - Small Messages": True,
    "Throughput - Large Messages": True,
}
LEAST = 1.0


def run(address: Address, source: Path) -> dict[str, float]:
    """Run the benchmarks once, and return the medians by the names of their results."""
    with tempfile.TemporaryDirectory(prefix="bench-upstream-") as name:
        directory = Path(name)
        shutil.copy(source, directory / "source.ts")
        (directory / "server.bench.ts").write_text(BENCHMARK)
        (directory / "package.json").write_text('{"type": "module"}')
        (directory / "node_modules").symlink_to(SUITE / "node_modules")
        job = subprocess.run(
            ["node", "node_modules/vitest/vitest.mjs", "bench", "--run", "--pool=threads", "--maxWorkers=1"],
            cwd=directory,
            env={**os.environ, "BENCHMARK_URL": f"http://{address.netloc}", "CI": "1"},
            capture_output=True,
            text=True,
            timeout=JOB_SECONDS,
            check=False,
        )
        results = directory / RESULTS
        if job.returncode or not results.exists():
            raise MeasurementError((job.stderr or job.stdout).strip()[-targets.LOG_TAIL :])
        measured = json.loads(results.read_text())["results"]
    return {title: measured[title]["p50"] for title in ROWS}


def table(columns: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians of all rounds as a table in Markdown, with the ratio of the first two servers."""
    ours, *others = columns
    lines = [f"| | {' | '.join(columns)} | {ours} / {others[0] if others else '-'} | to hold |"]
    lines.append(f"|---|{'---:|' * len(columns)}---:|---|")
    for title, is_rate in ROWS.items():
        medians = [percentile(values[title], 50) for values in columns.values()]
        ratio = "–"
        if others:
            ratio = f"{medians[0] / medians[1] if is_rate else medians[1] / medians[0]:.2f}"
        unit = "a second" if is_rate else "ms"
        cells = " | ".join(f"{median:,.2f}" for median in medians)
        lines.append(f"| {title}, {unit} | {cells} | {ratio} | at least {LEAST} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.upstream", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--targets", default=DEFAULT_TARGETS)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if not (SUITE / "node_modules" / "vitest").exists():
        parser.error("vitest is not installed: run `make conformance` once")
    servers = [targets.make(key) for key in options.targets.split(",")]
    columns: dict[str, dict[str, list[float]]] = {server.title: {title: [] for title in ROWS} for server in servers}
    for _ in range(options.rounds):
        for server in servers:
            address = server.start()
            try:
                values = run(address, options.source)
            finally:
                server.stop()
            print(f"{server.title}: {values}", file=sys.stderr, flush=True)
            for title, value in values.items():
                columns[server.title][title].append(value)
    print(table(columns))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
