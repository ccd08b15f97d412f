"""The command line: `python -m benchmarks`, from the root of the repository."""

from __future__ import annotations

import argparse
import resource
import shutil
import signal
import sys
from pathlib import Path

from benchmarks import machine, postgres, report, rows, session, targets
from benchmarks.replay import client_ceiling
from benchmarks.results import Results

OTHER_MEASUREMENTS = "## Other measurements"
DOCUMENT = targets.ROOT / "docs" / "benchmarks.md"
FULL_ROUNDS, FULL_SECONDS = 3, 4
QUICK_ROUNDS, QUICK_SECONDS = 1, 2
QUICK_TARGETS = (targets.SQLITE, targets.MEMORY, targets.CEILING)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures this server beside the reference server and a bare ASGI application. "
        "A run of all rows on all targets writes docs/benchmarks.md; any other only prints.",
        epilog=f"Rows: {', '.join(row.key for row in rows.ROWS)}.",
    )
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {FULL_ROUNDS}")
    parser.add_argument("--seconds", type=int, metavar="N", help=f"per load measurement; default: {FULL_SECONDS}")
    parser.add_argument("--rows", metavar="A,B", help="only these; a name may end in *")
    parser.add_argument(
        "--targets", metavar="A,B", help=f"default: {','.join(targets.DEFAULT)}; there is {targets.ELECTRIC} too"
    )
    parser.add_argument("--url", action="append", default=[], metavar="NAME=URL", help="one more, already running")
    parser.add_argument("--quick", action="store_true", help="under three minutes: one round, three targets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to save every sample")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing: write the report of a saved run")
    return parser.parse_args(arguments)


def choose_targets(options: argparse.Namespace) -> list[targets.Target]:
    default = QUICK_TARGETS if options.quick else targets.DEFAULT
    keys = options.targets.split(",") if options.targets is not None else default
    chosen = [targets.make(key.strip()) for key in keys if key.strip()]
    for pair in options.url:
        name, separator, url = pair.partition("=")
        if not separator:
            raise ValueError(f"--url {pair!r}: expected NAME=URL")
        chosen.append(targets.Running(name, url))
    names = [target.key for target in chosen]
    if len(set(names)) < len(names):
        raise ValueError(f"a target is named twice: {', '.join(names)}")
    if not chosen:
        raise ValueError("nothing to measure")
    return chosen


def raise_open_file_limit() -> None:
    """Allow thousands of sockets, here and in the servers, which inherit the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def drop_missing_targets(chosen: list[targets.Target]) -> tuple[list[targets.Target], list[str]]:
    missing = {}
    if postgres.binaries() is None:
        missing[targets.POSTGRESQL] = "PostgreSQL is not installed"
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing[targets.MEMORY] = missing[targets.FILE] = "Node is not installed"
    kept = [target for target in chosen if target.key not in missing]
    return kept, [f"{key} was left out: {reason}" for key, reason in missing.items()]


def write(text: str) -> None:
    """Write the report, and keep the measurements of other programs at the end of the present one."""
    DOCUMENT.parent.mkdir(exist_ok=True)
    before = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    _, heading, others = before.partition(f"\n{OTHER_MEASUREMENTS}\n")
    DOCUMENT.write_text(text + heading + others)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    if options.render:
        write(report.render(Results.load(options.render)))
        return 0
    try:
        chosen, selected = choose_targets(options), rows.select(options.rows)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if shutil.which("wrk") is None:
        print("wrk is not installed", file=sys.stderr)
        return 2
    # The servers are stopped on the way out, so a request to end must unwind like any other exception.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    raise_open_file_limit()
    chosen, warnings = drop_missing_targets(chosen)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else FULL_ROUNDS)
    seconds = options.seconds or (QUICK_SECONDS if options.quick else FULL_SECONDS)
    results = Results(
        titles={target.key: target.title for target in chosen},
        machine=machine.machine(),
        versions=machine.versions(),
        options={"rounds": str(rounds), "seconds per load measurement": str(seconds)},
        warnings=warnings,
    )
    if any(row.key == "replay" for row in selected):
        results.machine["replay client with a server that only sends"] = f"{client_ceiling(seconds):,.0f} MB/s"
    session.run(results, chosen, selected, rounds=rounds, seconds=seconds, thorough=not options.quick)
    if options.json:
        results.save(options.json)
    text = report.render(results)
    print(text)
    complete = selected == rows.ROWS and {target.key for target in chosen} >= set(targets.DEFAULT)
    if complete and not options.quick:
        write(text)
    return 1 if any(sample.error for sample in results.samples) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
