"""Python's own API beside the ORM: `python -m benchmarks.python_api`

Each append is a transaction of its own. The row beside it is a model of two columns with the same bytes, written by the
ORM's `create`. Both alternate in short rounds in one process, so that what slows one of them also slows the other.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import postgres, targets
from benchmarks.outcome import MeasurementError

JOB_SECONDS = 600.0
HOLDS = {
    "append / create, rate": "at least 0.5",
    "append_many of 100 / bulk_create of 100, rate": "",
    "aappend, 64 at a time / append, rate": "",
    "awriter, 200 answers at 30 tokens/s, share of a core": "at most 0.10",
}


def measure(target: targets.Ours, seconds: float) -> dict[str, float]:
    """Return the values by title, measured in a process with the settings of a target's project."""
    with tempfile.TemporaryDirectory(prefix="bench-python-") as directory:
        try:
            target.prepare(Path(directory))
            job = subprocess.run(
                [sys.executable, "-m", "benchmarks.python_api_job", str(seconds)],
                cwd=targets.ROOT,
                env=target.environment(Path(directory)),
                capture_output=True,
                text=True,
                timeout=JOB_SECONDS,
                check=False,
            )
        finally:
            target.clean_up()
    if job.returncode:
        raise MeasurementError(job.stderr.strip()[-targets.LOG_TAIL :])
    values: dict[str, float] = json.loads(job.stdout.splitlines()[-1])
    return values


def table(columns: dict[str, dict[str, float]]) -> str:
    """Return the values as a table in Markdown, with one column for each database."""
    lines = [f"| | {' | '.join(columns)} | to hold |", f"|---|{'---|' * len(columns)}---|"]
    for title in dict.fromkeys(title for values in columns.values() for title in values):
        cells = [f"{values[title]:,.3g}" for values in columns.values()]
        lines.append(f"| {title} | {' | '.join(cells)} | {HOLDS.get(title, '')} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.python_api", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each measurement")
    parser.add_argument("--targets", default=f"{targets.SQLITE},{targets.POSTGRESQL}")
    options = parser.parse_args(arguments)
    columns = {}
    for key in options.targets.split(","):
        target = targets.make(key)
        if not isinstance(target, targets.Ours):
            parser.error(f"{key} has no Python API")
        if key == targets.POSTGRESQL and postgres.binaries() is None:
            print("postgresql was left out: it is not installed", file=sys.stderr)
            continue
        columns[target.title] = measure(target, options.seconds)
    print(table(columns))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
