"""The load generator of Electric's authors, on servers of this benchmark: `python -m benchmarks.ds_bench`

`DS_BENCH` is the path of the built program, from github.com/electric-sql/ds-bench. In each round each server is started
afresh, goes through all styles and is stopped. Each style uses streams of its own.

ds-bench counts an append as good by its status, and no lost event as an error. So this checks the counts of each style
as far as they are known beforehand.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import report, targets
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address, Client
from benchmarks.outcome import MeasurementError
from benchmarks.results import Results, Sample
from benchmarks.rows import Better

GRACE_SECONDS = 120
# A server may send two appends in one event, which ds-bench counts once. On a quiet machine hardly any are so close.
MOST_EVENTS = 0.95
DEFAULT_TARGETS = (targets.SQLITE, targets.ELECTRIC)
UP, DOWN = Better.HIGHER, Better.LOWER
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Figure:
    """One line of the table: the number at `path` in the report of a style, times `scale`."""

    key: str
    title: str
    unit: str
    better: Better
    path: str
    scale: float = 1.0

    def value(self, measured: Report) -> float:
        return float(at(measured, self.path)) * self.scale


@dataclass(frozen=True)
class Count:
    """A count of a report, and the paths whose product it must be. `least`: the share of it that is enough."""

    path: str
    factors: Sequence[str]
    least: float = 1.0

    def problem(self, measured: Report) -> str | None:
        counted, expected = int(at(measured, self.path)), math.prod(int(at(measured, path)) for path in self.factors)
        if expected * self.least <= counted <= expected:
            return None
        return f"{self.path} is {counted:,}, and {' x '.join(self.factors)} is {expected:,}"


@dataclass(frozen=True)
class Style:
    """One run of ds-bench.

    options: `{seconds}` stands for the length of the load.
    no_errors: the paths of counts that must be 0.
    counts: the expected values of its counts.
    """

    key: str
    command: str
    options: str
    figures: Sequence[Figure]
    no_errors: Sequence[str] = ("counts.other_err", "counts.backpressure")
    counts: Sequence[Count] = ()

    def arguments(self, address: Address, seconds: int) -> list[str]:
        target = ["--target", f"http://{address.netloc}", "--api-style", "durable"]
        return [self.command, *target, *self.options.format(seconds=seconds).split()]

    def problems(self, measured: Report) -> list[str]:
        problems = [f"{path} is {at(measured, path)}" for path in self.no_errors if at(measured, path)]
        problems += filter(None, (count.problem(measured) for count in self.counts))
        return problems


def percentiles(key: str, title: str, latency: str) -> list[Figure]:
    """Return the figures of the median and of the 99th percentile of a latency in a report."""
    return [Figure(f"{key}-{rank}", f"{title}, {rank}", "ms", DOWN, f"{latency}.{rank}_ms") for rank in ("p50", "p99")]


APPEND_STREAM, APPEND_BYTES = "append-bench", 256
READS = "--streams 10 --connections 64 --duration-secs {seconds} --warmup-secs 2 --settle-secs 1"
LIVE_READS = f"{READS} --read-size-bytes 256 --append-rate-per-sec 50"
STYLES: tuple[Style, ...] = (
    Style(
        "append",
        "append",
        f"--stream {APPEND_STREAM} --connections 64 --payload-bytes {APPEND_BYTES} --duration-secs {{seconds}}",
        [
            Figure("append", "append: one stream, 64 producers", "req/s", UP, "aggregate_ops_per_sec"),
            Figure("append-p99", "append: one stream, 64 producers, p99", "ms", DOWN, "latency_ms.p99_ms"),
        ],
    ),
    Style(
        "multi-stream",
        "multi-stream",
        "--streams 1000 --payload-bytes 256 --duration-secs {seconds} --warmup-secs 2 --settle-secs 1",
        [
            Figure(
                "multi-stream", "multi-stream: 1,000 streams, a producer each", "req/s", UP, "aggregate_ops_per_sec"
            ),
            Figure("multi-stream-p99", "multi-stream: the same, p99", "ms", DOWN, "latency_ms.p99_ms"),
        ],
    ),
    Style(
        "fan-out",
        "fan-out",
        "--stream fan-out --subscribers 1000 --writer-rate 5 --payload-bytes 256 --duration-secs {seconds}",
        percentiles("fan-out", "fan-out: 1,000 SSE readers", "fan_out_latency_ms"),
        no_errors=("append_counts.other_err", "append_counts.backpressure", "subscriber_errors"),
        counts=[Count("events_received", ["events_sent", "subscribers"], MOST_EVENTS)],
    ),
    Style(
        "catch-up",
        "catch-up",
        "--stream catch-up --clients 200 --pre-events 2000 --event-bytes 1024",
        [
            Figure(
                "catch-up", "catch-up: 200 clients at once, 2 MB each", "MB/s", UP, "aggregate_mb_per_sec", 1.048576
            ),
            Figure("catch-up-p99", "catch-up: 200 clients at once, p99", "ms", DOWN, "latency_ms.p99_ms"),
        ],
        counts=[Count("bytes_received_total", ["pre_bytes_total", "clients"])],
    ),
    Style(
        "reads-catchup",
        "reads",
        f"--mode catchup --stream reads-catchup {READS} --read-size-bytes 4096 --seed-bytes 1048576",
        [
            Figure("reads-catchup", "reads, catch-up: 64 readers of 10 streams", "MB/s", UP, "bytes_per_sec", 1e-6),
            Figure("reads-catchup-p99", "reads, catch-up: 1 MB, p99", "ms", DOWN, "latency_ms.p99_ms"),
        ],
        counts=[Count("bytes_read_total", ["counts.ok", "seed_bytes"])],
    ),
    Style(
        "reads-long-poll",
        "reads",
        f"--mode long-poll --stream reads-long-poll {LIVE_READS}",
        percentiles("reads-long-poll", "reads, long-poll: 64 readers", "latency_ms"),
    ),
    Style(
        "reads-sse",
        "reads",
        f"--mode sse --stream reads-sse {LIVE_READS}",
        percentiles("reads-sse", "reads, SSE: 64 readers", "latency_ms"),
    ),
    Style(
        "mixed",
        "mixed",
        "--streams 50 --readers 50 --subscribers 50 --writer-rate 50 --payload-bytes 256 --duration-secs {seconds}",
        [
            Figure(
                "mixed-append", "mixed: appends of 50 writers, 50 a second each", "req/s", UP, "aggregate_ops_per_sec"
            ),
            Figure("mixed-append-p99", "mixed: append, p99", "ms", DOWN, "write_latency_ms.p99_ms"),
            Figure("mixed-sse-p99", "mixed: 50 SSE readers, p99", "ms", DOWN, "fan_out_latency_ms.p99_ms"),
            Figure("mixed-reads", "mixed: whole reads of 50 readers, in all", "reads", UP, "read_counts.ok"),
            Figure("mixed-read-p99", "mixed: whole read, p99", "ms", DOWN, "read_latency_ms.p99_ms"),
        ],
        no_errors=[f"{kind}_counts.{count}" for kind in ("write", "read") for count in ("other_err", "backpressure")],
    ),
)


def at(measured: Report, path: str) -> Any:
    """Return the value at a dotted path of a report."""
    value: Any = measured
    for name in path.split("."):
        value = value[name]
    return value


def measure(style: Style, address: Address, seconds: int) -> tuple[Report, list[str]]:
    """Run ds-bench once. Return its report and the problems in it."""
    environment = {**os.environ, "NO_PROXY": address.host, "RUST_LOG": "warn"}
    command = [os.environ["DS_BENCH"], *style.arguments(address, seconds)]
    timeout = seconds + GRACE_SECONDS
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"ds-bench did not end within {timeout} s") from None
    if done.returncode:
        raise MeasurementError(f"ds-bench ended with {done.returncode}: {' '.join(done.stderr.split())[-200:]}")
    measured: Report = json.loads(done.stdout)
    problems = style.problems(measured)
    if style.command == "append":
        with Client(address) as client:
            stored = client.count_bytes(APPEND_STREAM)
        if stored != measured["counts"]["ok"] * APPEND_BYTES:
            problems.append(
                f"{measured['counts']['ok']} appends were answered, {stored / APPEND_BYTES:g} are in the stream"
            )
    return measured, problems


def visit(target: targets.Target, styles: Sequence[Style], number: int, seconds: int) -> list[Sample]:
    """Start a server, run all styles on it, and stop it."""
    samples: list[Sample] = []
    address = target.start()
    try:
        for style in styles:
            try:
                measured, problems = measure(style, address, seconds)
                values: Mapping[str, float] = {figure.key: figure.value(measured) for figure in style.figures}
            except (MeasurementError, ValueError, KeyError) as error:
                values, problems = {}, [str(error) or repr(error)]
            problem = "; ".join(problems) or None
            shown = ", ".join(f"{key} {value:,.2f}" for key, value in values.items())
            print(f"  {style.key}: {shown}{f' !! {problem}' if problem else ''}", file=sys.stderr, flush=True)
            samples += [Sample(number, target.key, each.key, values.get(each.key), problem) for each in style.figures]
    finally:
        target.stop()
    return samples


def table(results: Results, styles: Sequence[Style]) -> str:
    """Return the medians in Markdown, with the ratios of this server to Electric's."""
    own = [key for key in results.titles if key in report.OURS and targets.ELECTRIC in results.titles]
    header = ["", "unit", *results.titles.values(), *(f"{results.titles[key]} / Electric" for key in own)]
    body, errors = [], []
    for figure in (figure for style in styles for figure in style.figures):
        cells = {key: results.cell(key, figure.key) for key in results.titles}
        theirs = cells[targets.ELECTRIC].median if own else None
        ratios = []
        for key in own:
            ours = cells[key].median
            ratios.append(f"{ours / theirs:.2f}" if ours is not None and theirs else report.NOTHING)
        arrow = "↑" if figure.better is UP else "↓"
        texts = [report.text(cell, figure.unit) for cell in cells.values()]
        body.append([f"{figure.title} {arrow}", figure.unit, *texts, *ratios])
        errors += [f"- {figure.title}, {key}, {error}" for key, cell in cells.items() for error in cell.errors]
    return "\n".join([*report.table(header, body), *([""] if errors else []), *errors])


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ds_bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="for each load, up to 20")
    parser.add_argument("--styles", default=",".join(style.key for style in STYLES))
    parser.add_argument("--targets", default=",".join(DEFAULT_TARGETS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to save every sample")
    options = parser.parse_args(arguments)
    names = options.styles.split(",")
    options.styles = [style for style in STYLES if style.key in names]
    if len(options.styles) != len(names):
        parser.error(f"--styles {','.join(names)}: there are {', '.join(style.key for style in STYLES)}")
    try:
        options.targets = [targets.make(key) for key in options.targets.split(",")]
    except ValueError as error:
        parser.error(str(error))
    return options


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    styles, chosen = options.styles, options.targets
    if shutil.which(os.environ.get("DS_BENCH", "")) is None:
        print("DS_BENCH names no program. Build ds-bench, and set its path.", file=sys.stderr)
        return 2
    raise_open_file_limit()
    results = Results(titles={target.key: target.title for target in chosen})
    for number in range(options.rounds):
        shift = number % len(chosen)
        for target in (*chosen[shift:], *chosen[:shift]):
            print(f"round {number + 1} of {options.rounds}: {target.title}", file=sys.stderr, flush=True)
            results.samples += visit(target, styles, number, options.seconds)
    if options.json:
        results.save(options.json)
    print(table(results, styles))
    return 1 if any(sample.error for sample in results.samples) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
