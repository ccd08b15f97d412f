"""The performance guard: five short rows, as ratios to the bare ASGI application, against the stored ratios.

    python -m benchmarks.guard [--rounds 3] [--seconds 2] [--write]

A ratio hardly depends on the machine, because what slows this server in a round also slows the ceiling. A row fails if
its median ratio is more than 15 % below the one in `guard.json`. `--write` stores the measured ratios instead. Use it
on a quiet machine only, after a change that is meant to cost, or to gain, something.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import rows, session, targets
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.results import Results, Sample

STORED = Path(__file__).resolve().parent / "guard.json"
MAX_LOSS = 0.15
ROUNDS, SECONDS = 3, 2


@dataclass(frozen=True)
class GuardedRow:
    """A row of the benchmark, and the row of the ceiling in the same round that it is compared with."""

    key: str
    ceiling_key: str
    is_latency: bool = False

    def ratio(self, value: float, ceiling_rate: float) -> float:
        """Return the share of the ceiling's rate, or for a latency in ms: the ceiling's requests per ms, divided by it.

        Both are better if they are higher.
        """
        return 1e3 / value / ceiling_rate if self.is_latency else value / ceiling_rate


GUARDED = (
    GuardedRow("append", "append"),
    GuardedRow("append-1000-streams", "append"),
    GuardedRow("create", "append"),
    GuardedRow("get-1kb", "get-1kb"),
    GuardedRow("sse-500-p50", "append", is_latency=True),
)


def ratios(samples: Sequence[Sample]) -> dict[str, float]:
    """Return the median of the rounds' ratios by row. Rows without a good sample are left out."""
    values = {
        (sample.round, sample.target, sample.row): sample.value
        for sample in samples
        if sample.value and sample.error is None
    }
    medians = {}
    for row in GUARDED:
        pairs = [
            (value, values.get((number, targets.CEILING, row.ceiling_key)))
            for (number, target, key), value in values.items()
            if (target, key) == (targets.SQLITE, row.key)
        ]
        by_round = [row.ratio(value, ceiling_rate) for value, ceiling_rate in pairs if ceiling_rate]
        if by_round:
            medians[row.key] = statistics.median(by_round)
    return medians


def compare(measured: Mapping[str, float], stored: Mapping[str, float]) -> tuple[list[str], bool]:
    """Return a line for each row, and whether no row has lost more than `MAX_LOSS`, or is missing."""
    lines, holds = [], True
    for row in GUARDED:
        before, now = stored.get(row.key), measured.get(row.key)
        if now is None or before is None:
            lines.append(f"{row.key:20} {'no stored ratio' if before is None else 'not measured'}")
            holds = False
            continue
        change = now / before - 1
        verdict = "holds" if change >= -MAX_LOSS else "LOST"
        holds = holds and change >= -MAX_LOSS
        lines.append(f"{row.key:20} {now:10.5f}  stored {before:10.5f}  {change:+7.1%}  {verdict}")
    return lines, holds


def measure(rounds: int, seconds: int) -> Results:
    """Measure the guarded rows on the ceiling and on this server with SQLite, in alternating rounds."""
    chosen = [targets.make(targets.CEILING), targets.make(targets.SQLITE)]
    results = Results(titles={target.key: target.title for target in chosen})
    selected = rows.select(",".join(row.key for row in GUARDED))
    session.run(results, chosen, selected, rounds=rounds, seconds=seconds, thorough=False)
    return results


def store(measured: Mapping[str, float], source: str) -> None:
    """Replace the stored ratios. `source`: how and on what they were measured."""
    content = {"source": source, "ratios": {key: round(value, 6) for key, value in measured.items()}}
    STORED.write_text(json.dumps(content, indent=2) + "\n")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.guard", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="per load measurement")
    parser.add_argument("--write", action="store_true", help="store the measured ratios")
    options = parser.parse_args(arguments)
    if shutil.which("wrk") is None:
        print("wrk is not installed. `tools/ensure_system.py wrk` installs it.", file=sys.stderr)
        return 2
    raise_open_file_limit()
    load_average = os.getloadavg()[0]
    results = measure(options.rounds, options.seconds)
    problems = [f"{sample.row} on {sample.target}: {sample.error}" for sample in results.samples if sample.error]
    for problem in problems:
        print(f"!! {problem}", file=sys.stderr)
    measured = ratios(results.samples)
    if options.write:
        if problems:
            return 1
        store(measured, f"{options.rounds} rounds of the guard, load average before {load_average:.2f}")
    stored = json.loads(STORED.read_text())["ratios"]
    lines, holds = compare(measured, stored)
    print("\n".join(lines))
    if not holds:
        print(
            f"A row is more than {MAX_LOSS:.0%} below its stored ratio. Repeat this on a quiet machine. If it is true, "
            "find the commit that costs it.",
            file=sys.stderr,
        )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
