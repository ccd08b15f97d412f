"""A run: in every round every target is started afresh, measured row by row and stopped."""

from __future__ import annotations

import secrets
import subprocess
import sys
import time
from collections.abc import Sequence

from benchmarks.client import Address, Client
from benchmarks.idle import IdleReaders
from benchmarks.outcome import MeasurementError, Outcome
from benchmarks.results import Results, Sample
from benchmarks.rows import Row
from benchmarks.targets import CEILING, Ours, Target, TargetError
from benchmarks.workload import Bench, Workload


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(
    results: Results,
    targets: Sequence[Target],
    rows: Sequence[Row],
    *,
    rounds: int,
    seconds: int,
    thorough: bool,
) -> None:
    """Adds a sample to `results` for each round, target and row. The order of the targets rotates."""
    for number in range(rounds):
        shift = number % len(targets)
        for target in (*targets[shift:], *targets[:shift]):
            log(f"round {number + 1} of {rounds}: {target.title}")
            _visit(results, target, rows, number, seconds, thorough)
    for target in targets:
        results.warnings += dict.fromkeys(target.warnings)


def _visit(results: Results, target: Target, rows: Sequence[Row], number: int, seconds: int, thorough: bool) -> None:
    wanted = [(row, workload) for row in rows if (workload := _workload(row, target))]
    if not wanted:
        return
    try:
        address = target.start()
    except (TargetError, MeasurementError, OSError, subprocess.SubprocessError) as error:  # the others still run
        log(f"  {error}")
        message = " ".join(str(error).split()) or repr(error)
        results.samples += [Sample(number, target.key, row.key, None, message) for row, _ in wanted]
        return
    done: dict[Workload, Outcome] = {}
    leftovers: list[str] = []
    try:
        for row, workload in wanted:
            if workload not in done:
                name = f"bench/{secrets.token_hex(4)}/{row.key}"
                bench = Bench(address, target.pid, seconds, name, thorough, leftovers, target.project)
                done[workload] = _measure(workload, bench, row.key)
            outcome = done[workload]
            problem = "; ".join(outcome.errors) or None
            value = outcome.values.get(row.value)
            results.samples.append(Sample(number, target.key, row.key, value, problem))
        if target.outlives_the_run:
            _delete(address, leftovers)
    finally:
        target.stop()


def _delete(address: Address, names: Sequence[str]) -> None:
    with Client(address) as client:
        for name in names:
            try:
                client.delete(name)
            except MeasurementError as error:
                log(f"  {name} is still there: {error}")


def _workload(row: Row, target: Target) -> Workload | None:
    if target.key == CEILING:
        return row.on_ceiling
    if row.hold is None and not isinstance(target, Ours):
        return None
    # The memory of a process is readable only for a server that this run has started.
    if target.outlives_the_run and isinstance(row.workload, IdleReaders):
        return None
    return row.workload


def _measure(workload: Workload, bench: Bench, key: str) -> Outcome:
    started = time.monotonic()
    try:
        outcome = workload.run(bench)
    except (MeasurementError, OSError, ValueError) as error:
        outcome = Outcome(errors=(str(error) or repr(error),))
    values = ", ".join(f"{name} {value:,.2f}" for name, value in outcome.values.items())
    problems = "".join(f" !! {error}" for error in outcome.errors)
    log(f"  {key:22} {values}{problems}  [{time.monotonic() - started:.1f} s]")
    return outcome
