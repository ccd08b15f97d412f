"""Measures the numbers of the model of cost: `python -m benchmarks.cost`

For each database and one to four workers: processor time for an append over 1,000 streams, a read of 1 KB, and an event
to one of 500 readers. The model holds if these times hardly depend on the number of workers. Then, with one process:
the disk of a stream and of an append. docs/explanation/cost.md has the numbers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import cpu, targets
from benchmarks.__main__ import raise_open_file_limit
from benchmarks.client import Address
from benchmarks.delivery import Delivery
from benchmarks.local_database import local_database
from benchmarks.outcome import MeasurementError, Outcome
from benchmarks.reads import Read
from benchmarks.workload import Bench, Workload
from benchmarks.writes import Append

READERS = 500
FEW_APPENDS, MANY_APPENDS = 10, 50
"""The difference of two runs leaves out the opening of the readers."""

EMPTY_STREAMS, PORTION = 20_000, 500
BODY_BYTES = 100
WORKLOADS: Mapping[str, Workload] = {"append": Append(streams=1000), "read": Read(1000)}
ROWS = (*WORKLOADS, "event")


class Workers(targets.Ours):
    """The example project on SQLite, with several workers."""

    count = 1

    def command(self, port: int, directory: Path) -> list[str]:
        command = super().command(port, directory)
        command[command.index("--workers") + 1] = str(self.count)
        return command

    @property
    def database_pid(self) -> int | None:
        """The first process of the database. None: the workers themselves are the database."""
        return None


class WorkersOnPostgres(targets.OursOnPostgres, Workers):
    """The same on PostgreSQL."""

    @property
    def database_pid(self) -> int | None:
        return self._cluster.pid if self._cluster is not None else None


KINDS = {targets.SQLITE: Workers, targets.POSTGRESQL: WorkersOnPostgres}


def run(server: Workers, workload: Workload, address: Address, seconds: int) -> tuple[Outcome, float, float]:
    """Run a workload. Return its outcome, and the processor time of the workers and of the database, in seconds."""
    bench = Bench(address, server.pid, seconds, f"cost/{secrets.token_hex(4)}")
    pids = server.pid, server.database_pid
    before = [0.0 if pid is None else cpu.seconds(pid) for pid in pids]
    outcome = workload.run(bench)
    app, database = (0.0 if pid is None else cpu.seconds(pid) - began for pid, began in zip(pids, before, strict=True))
    if outcome.errors:
        raise MeasurementError("; ".join(outcome.errors))
    return outcome, app, database


def measure(server: Workers, title: str, address: Address, seconds: int) -> str:
    """Measure a cost and return its line of the table."""
    if title == "event":
        few, many = (
            run(server, Delivery(READERS, appends=appends, interval=0.05), address, seconds)
            for appends in (FEW_APPENDS, MANY_APPENDS)
        )
        events = READERS * (MANY_APPENDS - FEW_APPENDS)
        app, database = ((after - before) / events * 1e6 for before, after in zip(few[1:], many[1:], strict=True))
        return f"| {title} | {server.count} | {app:.1f} | {database:.1f} | |"
    outcome, app, database = run(server, WORKLOADS[title], address, seconds)
    # The workload measures the server alone, without the warm-up. The database has its share of the same requests.
    time = outcome.values["cpu"]
    return f"| {title} | {server.count} | {time:.1f} | {time * database / app:.1f} | {outcome.values['rate']:,.0f} |"


def disk(target: str) -> None:
    """Print the disk that streams and appends take. Needs a process of its own."""
    with local_database(target):
        from django_durable_streams.store import operations
        from django_durable_streams.store.write import group_commit

        kind, paths = "application/json", [f"bench/{number:07}" for number in range(EMPTY_STREAMS)]
        data = b"x" * BODY_BYTES
        steps = {
            "a stream": [operations.Create(path, kind) for path in paths],
            "an append": [operations.Append(path, kind, data) for path in paths * 3],
        }
        for title, made in steps.items():
            before = _database_bytes()
            for first in range(0, len(made), PORTION):
                group_commit.apply(made[first : first + PORTION], "default")
            print(f"{target}: disk of {title}: {(_database_bytes() - before) / len(made):.0f} bytes", flush=True)


def _database_bytes() -> int:
    from django.db import connection

    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            tables = "pragma_page_count, pragma_page_size, pragma_freelist_count"
            cursor.execute(f"SELECT (page_count - freelist_count) * page_size FROM {tables}")
        else:
            cursor.execute("SELECT pg_database_size(current_database())")
        return int(cursor.fetchone()[0])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--targets", default=",".join(KINDS))
    parser.add_argument("--workers", default="1,2,3,4")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--seconds", type=int, default=3, help="for each load measurement")
    parser.add_argument("--no-disk", action="store_true")
    options = parser.parse_args(arguments)
    raise_open_file_limit()
    for key in options.targets.split(","):
        head = "| | workers | µs of workers | µs of the database | a second |\n|---|---|---|---|---|"
        print(f"\n{key}\n\n{head}", flush=True)
        for count in map(int, options.workers.split(",")):
            server = KINDS[key](key, key)
            server.count = count
            address = server.start()
            try:
                for title in options.rows.split(","):
                    print(measure(server, title, address, options.seconds), flush=True)
            finally:
                server.stop()
        if not options.no_disk:
            process = multiprocessing.get_context("spawn").Process(target=disk, args=(key,))
            process.start()
            process.join()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
