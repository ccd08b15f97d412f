"""The shape that production has: proxies, tokens, PostgreSQL with Redis, several workers.

python -m benchmarks.production [--quick] [--rounds 3] [--seconds 3] [--targets A,B] [--rows A,B] [--json FILE]

Each round starts every server afresh, measures all rows and stops it, as `python -m benchmarks` does. Prints a table in
Markdown, the processor time of the server for each request, and the ratios that have to hold.

Three rounds take about 17 minutes, `--quick` three: one round with short measurements and fewer appends to readers. A
name of a row or a target may end in *. `--rows 'append*' --targets 'nginx-*'` measures the appends behind nginx.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import secrets
import shutil
import sys
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import jwt

from benchmarks import machine, postgres, session
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address
from benchmarks.delivery import Delivery
from benchmarks.nginx import BehindNginx
from benchmarks.reads import Ask, Read
from benchmarks.redis import running_redis
from benchmarks.results import Results
from benchmarks.rows import DOWN, GET_1_KB, ONE_STREAM, SSE_500, UP, Hold, Row
from benchmarks.targets import Ours, OursOnPostgres, Reference, Target
from benchmarks.writes import Append

ROUNDS = 3
SECONDS = 3
"""The length of a load measurement."""

SECONDS_OF_TOKEN = 24 * 3600
KEY = secrets.token_hex(32)
ACTIONS = ("create", "read", "append", "close", "delete")
TOKEN = jwt.encode(
    {"exp": int(time.time()) + SECONDS_OF_TOKEN, "streams": {action: ["bench/**"] for action in ACTIONS}},
    KEY,
    algorithm="HS256",
)
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
FORWARDED = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "https"}


class WithHeaders(Target):
    """Another target, whose clients send the headers of a proxy."""

    def __init__(self, server: Target, headers: Mapping[str, str]) -> None:
        super().__init__(f"headers-{server.key}", f"{server.title}, forwarded headers")
        self._server = server
        self._headers = headers

    @property
    def pid(self) -> int | None:
        return self._server.pid

    def start(self) -> Address:
        return replace(self._server.start(), headers=tuple(self._headers.items()))

    def stop(self) -> None:
        self._server.stop()


class Routed(Ours):
    """The example project on SQLite, inside Channels' routing."""

    def command(self, port: int, directory: Path) -> list[str]:
        command = super().command(port, directory)
        command[command.index("config.asgi:application")] = "benchmarks.routed:application"
        return command


class Tokens(Ours):
    """The example project on SQLite, with tokens."""

    def environment(self, directory: Path) -> dict[str, str]:
        return with_tokens(super().environment(directory))


class TokensOnPostgres(OursOnPostgres):
    """The example project on PostgreSQL with Redis and tokens, and several workers.

    workers: the number of processes.
    """

    def __init__(self, key: str, title: str, *, workers: int) -> None:
        super().__init__(key, title)
        self._workers = workers
        self._services = ExitStack()
        self._redis_url = ""

    def prepare(self, directory: Path) -> None:
        self._redis_url = self._services.enter_context(running_redis())
        super().prepare(directory)

    def environment(self, directory: Path) -> dict[str, str]:
        return {**with_tokens(super().environment(directory)), "REDIS_URL": self._redis_url}

    def command(self, port: int, directory: Path) -> list[str]:
        command = super().command(port, directory)
        command[command.index("--workers") + 1] = str(self._workers)
        return command

    def clean_up(self) -> None:
        super().clean_up()
        self._services.close()


def with_tokens(environment: dict[str, str]) -> dict[str, str]:
    """Return the environment of a server that verifies tokens."""
    return {**environment, "DJANGO_SETTINGS_MODULE": "benchmarks.production_settings", "BENCHMARK_JWT_KEY": KEY}


def make_targets() -> Iterator[Target]:
    yield Ours("sqlite", "SQLite")
    yield WithHeaders(Ours("sqlite", "SQLite"), FORWARDED)
    yield WithHeaders(Routed("routed", "SQLite, Channels' routing"), FORWARDED)
    yield WithHeaders(Reference("memory", "reference, memory", durable=False), FORWARDED)
    yield BehindNginx(Tokens("sqlite", "SQLite, JWT"), AUTHORIZATION)
    yield BehindNginx(TokensOnPostgres("postgresql", "PostgreSQL + Redis, JWT", workers=1), AUTHORIZATION)
    yield BehindNginx(TokensOnPostgres("workers", "the same, two workers", workers=2), AUTHORIZATION)
    yield BehindNginx(Reference("memory", "reference, memory", durable=False), AUTHORIZATION)


MANY_STREAMS = Append(streams=1000)
NOT_MODIFIED = Read(1000, ask=Ask.IF_CHANGED)
# Every row is for every target, so each has a limit, and `judge` has the real ones.
ANY = Hold(0.0)
ROWS: tuple[Row, ...] = (
    Row("append", "append 100 B, one stream", "req/s", UP, ONE_STREAM, "rate", ANY),
    Row("append-1000-streams", "append 100 B, 1,000 streams", "req/s", UP, MANY_STREAMS, "rate", ANY),
    Row("get-1kb", "GET 1 KB", "req/s", UP, GET_1_KB, "rate", ANY),
    Row("get-304", "GET not modified", "req/s", UP, NOT_MODIFIED, "rate", ANY),
    Row("sse-p50", "append to SSE delivery, 500 readers, p50", "ms", DOWN, SSE_500, "p50", ANY),
    Row("sse-p99", "append to SSE delivery, 500 readers, p99", "ms", DOWN, SSE_500, "p99", ANY),
    Row("answer-0", "answer to an append, no readers, p50", "ms", DOWN, Delivery(readers=0), "answer_p50", ANY),
    Row("answer-500", "answer to an append, 500 SSE readers, p50", "ms", DOWN, SSE_500, "answer_p50", ANY),
    Row("cpu-append", "CPU of the server, append, one stream", "µs", DOWN, ONE_STREAM, "cpu", ANY),
    Row("cpu-append-1000", "CPU of the server, append, 1,000 streams", "µs", DOWN, MANY_STREAMS, "cpu", ANY),
    Row("cpu-get", "CPU of the server, GET 1 KB", "µs", DOWN, GET_1_KB, "cpu", ANY),
    Row("cpu-304", "CPU of the server, GET not modified", "µs", DOWN, NOT_MODIFIED, "cpu", ANY),
)


@dataclass(frozen=True)
class Limit:
    """A ratio that has to hold: a row of a target, divided by that row, or another one, of another target."""

    row: str
    target: str
    against: str
    least: float | None = None
    most: float | None = None
    against_row: str | None = None


RATES = ("append", "append-1000-streams", "get-1kb", "get-304")
LIMITS: tuple[Limit, ...] = (
    *(Limit(row, "headers-sqlite", "sqlite", least=0.9) for row in ("append", "get-1kb")),
    *(Limit(row, "headers-routed", "sqlite", least=0.9) for row in ("append", "get-1kb")),
    *(Limit(row, "headers-sqlite", "headers-memory", least=1.2) for row in ("append", "get-1kb")),
    *(Limit(row, "nginx-sqlite", "nginx-memory", least=1.0) for row in RATES),
    *(Limit(row, "nginx-postgresql", "nginx-memory", least=0.7) for row in RATES),
    *(Limit(row, "nginx-sqlite", "nginx-memory", most=0.8) for row in ("sse-p50", "sse-p99")),
    *(Limit(row, "nginx-postgresql", "nginx-memory", most=0.8) for row in ("sse-p50", "sse-p99")),
    Limit("append", "nginx-workers", "nginx-postgresql", least=0.7),
    Limit("append-1000-streams", "nginx-workers", "nginx-postgresql", least=1.0),
    *(Limit("answer-500", target, target, most=1.5, against_row="answer-0") for target in ("sqlite", "nginx-sqlite")),
)


def table(results: Results, rows: tuple[Row, ...]) -> Iterator[str]:
    """Yield the lines of the table: medians, with the range of all rounds."""
    yield "| | " + " | ".join(results.titles.values()) + " |"
    yield "|---|" + "---|" * len(results.titles)
    for row in rows:
        cells = []
        for target in results.titles:
            cell = results.cell(target, row.key)
            if cell.median is None:
                cells.append("–")
                continue
            digits = 0 if cell.median >= 100 else 2
            low, high = min(cell.values), max(cell.values)
            cells.append(f"{cell.median:,.{digits}f} ({low:,.{digits}f}-{high:,.{digits}f})")
        yield f"| {row.title}, {row.unit} | " + " | ".join(cells) + " |"


def judge(results: Results, rows: tuple[Row, ...]) -> Iterator[str]:
    """Yield the lines of the ratios that have to hold."""
    titles = {row.key: row.title for row in rows}
    yield "| ratio | limit | measured | holds |"
    yield "|---|---|---|---|"
    for limit in LIMITS:
        other_row = limit.against_row or limit.row
        value = results.cell(limit.target, limit.row).median
        other = results.cell(limit.against, other_row).median
        if value is None or not other:
            continue
        ratio = value / other
        bound = f"at least {limit.least}" if limit.least is not None else f"at most {limit.most}"
        holds = ratio >= limit.least if limit.least is not None else limit.most is not None and ratio <= limit.most
        against = results.titles[limit.against] if limit.against != limit.target else titles[other_row]
        name = f"{titles[limit.row]}: {results.titles[limit.target]} / {against}"
        yield f"| {name} | {bound} | {ratio:.2f} | {'yes' if holds else 'no'} |"


def choose(keys: str | None, options: Collection[str], what: str) -> list[str]:
    """Return the chosen keys in their order; all of them without a choice. A name may end in *.

    Raises:
        ValueError: a name fits no key.
    """
    names = ["*"] if keys is None else keys.split(",")
    unknown = [name for name in names if not fnmatch.filter(options, name)]
    if unknown:
        raise ValueError(f"Unknown {what}: {', '.join(unknown)}. There are: {', '.join(options)}.")
    return [key for key in options if any(fnmatch.fnmatchcase(key, name) for name in names)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="default: 3")
    parser.add_argument("--seconds", type=int, help="for each load measurement; default: 3")
    parser.add_argument("--targets", metavar="A,B")
    parser.add_argument("--rows", metavar="A,B")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to save every sample")
    options = parser.parse_args()
    all_targets = {target.key: target for target in make_targets()}
    try:
        chosen = [all_targets[key] for key in choose(options.targets, all_targets, "targets")]
        keys = choose(options.rows, [row.key for row in ROWS], "rows")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rows = tuple(row for row in ROWS if row.key in keys)
    warnings = []
    missing = [name for name in ("wrk", "node", "nginx", "redis-server") if shutil.which(name) is None]
    missing += ["postgresql"] if postgres.binaries() is None else []
    if missing:
        warnings.append(f"Some servers cannot be measured, because these are not installed: {', '.join(missing)}.")
    raise_open_file_limit()
    results = Results(
        titles={target.key: target.title for target in chosen},
        machine=machine.machine(),
        versions=machine.versions(),
        warnings=warnings,
    )
    rounds = options.rounds or (1 if options.quick else ROUNDS)
    seconds = options.seconds or (1 if options.quick else SECONDS)
    session.run(results, chosen, rows, rounds=rounds, seconds=seconds, thorough=not options.quick)
    if options.json:
        results.save(options.json)
    print("\n".join(["", *table(results, rows), "", *judge(results, rows), ""]))
    print(f"{os.cpu_count()} cores; " + "; ".join(f"{name}: {value}" for name, value in results.machine.items()))
    errors = [f"{sample.target}, {sample.row}: {sample.error}" for sample in results.samples if sample.error]
    print("\n".join([*results.warnings, *dict.fromkeys(errors)]))
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
