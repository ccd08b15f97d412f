"""Two checkouts side by side: `python -m benchmarks.compare OLD NEW`

Both servers run on SQLite all the time, and each row is measured by turns, a second or two at a time. So whatever else
the machine does, it does to both, and the ratio of a turn depends on it little. The table shows the median of these
ratios, and the lowest and highest.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Self

from benchmarks import rows
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address
from benchmarks.outcome import MeasurementError, Outcome
from benchmarks.rows import Better, Row
from benchmarks.session import log
from benchmarks.targets import Ours, Target
from benchmarks.workload import Bench, Workload

ROWS = "append,append-1000-streams,append-json,append-latency,create,get-1kb,get-tail,get-304,sse-1-p50,sse-500-*"
TURNS = 9
SECONDS = 2

Ratios = Mapping[str, Sequence[float]]


class Pair:
    """Two running servers that are measured by turns. A ratio is above 1 where the second is better."""

    def __init__(self, old: Target, new: Target, seconds: int) -> None:
        self._targets = (old, new)
        self._seconds = seconds
        self.ratios: dict[str, list[float]] = defaultdict(list)
        self._addresses: dict[Target, Address] = {}

    def __enter__(self) -> Self:
        try:
            self._addresses = {target: target.start() for target in self._targets}
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def measure(self, selected: Sequence[Row], *, is_new_first: bool) -> None:
        """Measure each row once on both servers, and note the ratios."""
        done: dict[Workload, tuple[Outcome, Outcome]] = {}
        for row in selected:
            if row.workload not in done:
                order = self._targets[::-1] if is_new_first else self._targets
                outcomes = {target: self._run(target, row) for target in order}
                old, new = (outcomes[target] for target in self._targets)
                done[row.workload] = (old, new)
                if "cpu" in new.values:
                    self.ratios[f"{row.title}, by processor time"].append(old.values["cpu"] / new.values["cpu"])
            old, new = done[row.workload]
            ratio = new.values[row.value] / old.values[row.value]
            self.ratios[row.title].append(ratio if row.better is Better.HIGHER else 1 / ratio)

    def _stop(self) -> None:
        for target in self._targets:
            target.stop()

    def _run(self, target: Target, row: Row) -> Outcome:
        name = f"bench/{secrets.token_hex(4)}"
        address = self._addresses[target]
        outcome = row.workload.run(Bench(address, target.pid, self._seconds, name, project=target.project))
        if outcome.errors:
            raise MeasurementError(f"{row.key} on {target.title}: {'; '.join(outcome.errors)}")
        return outcome


def render(ratios: Ratios) -> str:
    lines = ["| the second / the first | median | lowest | highest |", "|---|---:|---:|---:|"]
    for title, values in sorted(ratios.items()):
        lines.append(f"| {title} | {median(values):.3f} | {min(values):.3f} | {max(values):.3f} |")
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("old", type=Path, help="a checkout")
    parser.add_argument("new", type=Path, help="the checkout that is compared with it")
    parser.add_argument("--rows", default=ROWS, help="keys of rows, separated by commas; a name may end in *")
    parser.add_argument("--turns", type=int, default=TURNS)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for each load measurement")
    options = parser.parse_args(arguments)
    try:
        selected = rows.select(options.rows)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    raise_open_file_limit()
    old, new = (Ours(root.name, str(root), root.resolve()) for root in (options.old, options.new))
    with Pair(old, new, options.seconds) as pair:
        for turn in range(options.turns):
            log(f"turn {turn + 1} of {options.turns}")
            pair.measure(selected, is_new_first=bool(turn % 2))
    print(render(pair.ratios))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
