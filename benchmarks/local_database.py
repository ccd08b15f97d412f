"""A throwaway database for benchmarks that call the package in their own process, and what the process has used."""

from __future__ import annotations

import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.postgres import Cluster

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("sqlite", "postgresql")


class Used(NamedTuple):
    """What a block has used, once it is done."""

    seconds: float
    cpu_seconds: float
    statements: int


class Meter:
    """Measures a block: `with Meter() as meter`, and then `meter.used`."""

    def __init__(self) -> None:
        self.used = Used(0.0, 0.0, 0)
        self._statements = 0
        self._ends = ExitStack()

    def __enter__(self) -> Meter:
        from django.db import connection

        self._ends.enter_context(connection.execute_wrapper(self._count))
        self._began, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *exception: object) -> None:
        self.used = Used(time.perf_counter() - self._began, time.process_time() - self._cpu, self._statements)
        self._ends.close()

    def _count(self, execute, sql, parameters, many, context):  # type: ignore[no-untyped-def]
        self._statements += 1
        return execute(sql, parameters, many, context)


@contextmanager
def local_database(target: str, **streams: object) -> Iterator[None]:
    """Set Django up on an empty database of one kind, which is removed afterwards. One such block for a process.

    Args:
        target: one of TARGETS.
        streams: keys of DURABLE_STREAMS to override.
    """
    with ExitStack() as ends:
        if target == "sqlite":
            folder = ends.enter_context(tempfile.TemporaryDirectory(prefix="durable-streams-"))
            url = f"sqlite:///{folder}/db.sqlite3"
        else:
            cluster = Cluster(_free_port())
            ends.callback(cluster.stop)
            cluster.start()
            url = cluster.url
        set_up(url, **streams)
        from django.core.management import call_command
        from django.db import connections

        call_command("migrate", verbosity=0)
        ends.callback(connections.close_all)
        yield


def set_up(url: str, **streams: object) -> None:
    """Set Django up with the example project's settings on a database."""
    os.environ |= {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "config.settings"}
    sys.path.insert(0, str(ROOT / "example_project"))
    import django
    from django.conf import settings

    settings.DEBUG = False
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, **{key.upper(): value for key, value in streams.items()}}
    django.setup()


def peak_megabytes() -> float:
    """Return the largest resident memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_megabytes() -> float:
    """Return the present resident memory of the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
