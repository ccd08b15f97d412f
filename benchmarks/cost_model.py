"""The model of cost of docs/explanation/cost.md: what a number of streams, readers and appends takes.

The page has the same numbers in a table, and its calculator the same formulas in JavaScript. Tests compare all three.
`python -m benchmarks.cost` measures the numbers. Knows neither servers nor databases.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

HEADROOM = 3
"""Plan with a third of a core, as other requests, permissions and peaks need the rest."""

READERS_PER_WORKER = 10_000
CORES_PER_DATABASE = 16
"""Cores of one server of PostgreSQL. More appends need another database."""

DAY = 86_400


class Numbers(NamedTuple):
    """The measured costs of one kind of database."""

    append_us: float
    """Processor time of a worker for an append, in microseconds, with 1,000 streams and 64 clients."""
    database_us: float
    """Processor time of the database's own processes for an append, in microseconds."""
    read_us: float
    """Processor time of a worker for a read of 1 KB, in microseconds."""
    event_us: float
    """Processor time of a worker for an event to one of many readers, in microseconds."""
    reader_kb: float
    """Memory of a worker for a waiting reader, in kilobytes."""
    worker_mb: float
    """Memory of a worker with a full cache, in megabytes."""
    stream_bytes: float
    """Disk of an empty stream, in bytes."""
    append_bytes: float
    """Disk of an append beyond its data, in bytes, before compaction."""


SQLITE = Numbers(20, 0, 13, 16, 9.4, 142, 117, 75)
POSTGRESQL = Numbers(42, 34, 15, 18, 9.4, 142, 173, 205)


class Load(NamedTuple):
    """A load to plan for. Rates are for each second."""

    streams: float = 0
    readers: float = 0
    appends: float = 0
    reads: float = 0
    events: float = 0
    """Events that reach readers: appends times the readers of their stream."""
    bytes: float = 100
    """Bytes of data of an append."""


class Plan(NamedTuple):
    """What a load takes."""

    workers: int
    databases: int
    database_cores: float
    """Cores that PostgreSQL is busy with. Plan three times as many."""
    memory_gb: float
    """Memory of all workers."""
    disk_gb: float
    """Disk of the streams without data."""
    growth_gb: float
    """Disk of the appends of a day, if nothing is deleted."""


def plan(numbers: Numbers, load: Load) -> Plan:
    """Return what a load takes with one kind of database."""
    busy = (load.appends * numbers.append_us + load.reads * numbers.read_us + load.events * numbers.event_us) / 1e6
    workers = max(ceil(busy * HEADROOM), ceil(load.readers / READERS_PER_WORKER), 1)
    database_cores = load.appends * numbers.database_us / 1e6
    # SQLite has one writer at a time for each file, which is a thread of one worker.
    writers = database_cores / CORES_PER_DATABASE if numbers.database_us else load.appends * numbers.append_us / 1e6
    return Plan(
        workers,
        max(ceil(writers * HEADROOM), 1),
        database_cores,
        (workers * numbers.worker_mb * 1e6 + load.readers * numbers.reader_kb * 1e3) / 1e9,
        load.streams * numbers.stream_bytes / 1e9,
        load.appends * DAY * (load.bytes + numbers.append_bytes) / 1e9,
    )
