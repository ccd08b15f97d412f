"""The rows of the table: the measured value, its unit, and the limit that this server must hold.

Several rows may share a workload (its p50 and its p99); it then runs once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from benchmarks import targets
from benchmarks.consumers import ConsumerLatency, ConsumerRate
from benchmarks.delivery import Delivery, Live
from benchmarks.idle import IdleReaders
from benchmarks.reads import Ask, ConstantGet, Read
from benchmarks.replay import Replay
from benchmarks.workload import Workload
from benchmarks.writes import Append, ConstantPost, Create, ProducerAppend


class Better(Enum):
    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True)
class Hold:
    """This server on SQLite has to be at least `factor` times as good as the column `against`.

    "As good" is ours / theirs where higher is better, theirs / ours where lower is better.
    """

    factor: float
    against: str = targets.MEMORY


@dataclass(frozen=True)
class Row:
    """One line: the result `value` of a workload.

    hold: the limit. None: only this server has it.
    on_ceiling: the equal workload for a server without streams.
    """

    key: str
    title: str
    unit: str
    better: Better
    workload: Workload
    value: str
    hold: Hold | None
    on_ceiling: Workload | None = None


@dataclass(frozen=True)
class Share:
    """One line computed from another: its value as a percentage of the ceiling's in the same round."""

    key: str
    title: str
    of: str
    hold: float


ONE_STREAM = Append()
GET_1_KB = Read(size=1000)
SSE_500 = Delivery(readers=500)
SSE_1000 = Delivery(readers=1000)
LONG_POLL_500 = Delivery(readers=500, live=Live.LONG_POLL)
WOKEN_BY_REDIS = ConsumerLatency(has_redis=True)
POLLING = ConsumerLatency(has_redis=False)
UP, DOWN = Better.HIGHER, Better.LOWER

# Memory comes first, because it is the growth of a process that has done nothing else yet. Rows that leave hundreds of
# megabytes behind (checkpoints, garbage) come last, so that they do not affect other rows.
ROWS: tuple[Row, ...] = (
    Row(
        "idle-sse-memory",
        "memory per idle SSE reader, 1,000 readers",
        "KB",
        DOWN,
        IdleReaders(readers=1000),
        "kb",
        Hold(1.0),
    ),
    Row(
        "append",
        "append 100 B, one stream, 64 connections",
        "req/s",
        UP,
        ONE_STREAM,
        "rate",
        Hold(1.0),
        on_ceiling=ConstantPost(),
    ),
    Row(
        "append-1000-streams",
        "append 100 B, 1,000 streams, 64 connections",
        "req/s",
        UP,
        Append(streams=1000),
        "rate",
        Hold(1.0),
    ),
    Row(
        "append-producers",
        "append 100 B, 64 idempotent producers on one stream",
        "req/s",
        UP,
        ProducerAppend(),
        "rate",
        Hold(0.9),
    ),
    Row(
        "append-json",
        "append 10 JSON messages of 200 B, 64 connections",
        "req/s",
        UP,
        Append(size=200, messages=10),
        "rate",
        Hold(1.0),
    ),
    Row(
        "append-latency",
        "append 100 B, one at a time, p50",
        "ms",
        DOWN,
        Append(connections=1),
        "p50",
        Hold(1.0, targets.FILE),
    ),
    Row("create", "create, 64 connections", "req/s", UP, Create(), "rate", Hold(1.0)),
    Row(
        "get-1kb",
        "GET 1 KB, 64 connections",
        "req/s",
        UP,
        GET_1_KB,
        "rate",
        Hold(1.0),
        on_ceiling=ConstantGet(size=1000),
    ),
    Row("get-100kb", "GET 100 KB in one append, 64 connections", "req/s", UP, Read(100_000), "rate", Hold(1.0)),
    Row(
        "get-100kb-1000",
        "GET 100 KB in 1,000 appends, 64 connections",
        "req/s",
        UP,
        Read(100_000, appends=1000),
        "rate",
        Hold(1.0),
    ),
    Row(
        "get-tail",
        "GET at the tail, 64 connections",
        "req/s",
        UP,
        Read(1000, ask=Ask.NEWS),
        "rate",
        Hold(1.0),
    ),
    Row(
        "get-304",
        "GET not modified, 64 connections",
        "req/s",
        UP,
        Read(1000, ask=Ask.IF_CHANGED),
        "rate",
        Hold(1.0),
    ),
    Row(
        "sse-1-p50",
        "append to SSE delivery, 1 reader, p50",
        "ms",
        DOWN,
        Delivery(readers=1, appends=60, interval=0.05),
        "p50",
        Hold(1.0, targets.FILE),
    ),
    Row("sse-500-p50", "append to SSE delivery, 500 readers, p50", "ms", DOWN, SSE_500, "p50", Hold(1.25)),
    Row("sse-500-p99", "append to SSE delivery, 500 readers, p99", "ms", DOWN, SSE_500, "p99", Hold(1.25)),
    Row("sse-1000-p50", "append to SSE delivery, 1,000 readers, p50", "ms", DOWN, SSE_1000, "p50", Hold(1.25)),
    Row("sse-1000-p99", "append to SSE delivery, 1,000 readers, p99", "ms", DOWN, SSE_1000, "p99", Hold(1.25)),
    Row(
        "poll-500-p50",
        "append to long-poll delivery, 500 readers, p50",
        "ms",
        DOWN,
        LONG_POLL_500,
        "p50",
        Hold(1.0),
    ),
    Row(
        "poll-500-p99",
        "append to long-poll delivery, 500 readers, p99",
        "ms",
        DOWN,
        LONG_POLL_500,
        "p99",
        Hold(1.0),
    ),
    Row("replay", "replay of 100 MB by 4 readers at once", "MB/s", UP, Replay(), "mb", Hold(1.0)),
    Row(
        "append-1mb",
        "append 1 MB, 8 connections",
        "MB/s",
        UP,
        Append(1_000_000, 8),
        "mb",
        Hold(1.0),
    ),
    Row("consumer-1", "consumer, batches of 1 message", "messages/s", UP, ConsumerRate(1, 20_000), "rate", None),
    Row("consumer-100", "consumer, batches of 100", "messages/s", UP, ConsumerRate(100, 400_000), "rate", None),
    Row("consumer-auto", "consumer, automatic batches", "messages/s", UP, ConsumerRate("auto", 600_000), "rate", None),
    Row("consumer-redis-p50", "commit to handler, with Redis, p50", "ms", DOWN, WOKEN_BY_REDIS, "p50", None),
    Row("consumer-redis-p99", "commit to handler, with Redis, p99", "ms", DOWN, WOKEN_BY_REDIS, "p99", None),
    Row("consumer-poll-p50", "commit to handler, without Redis, p50", "ms", DOWN, POLLING, "p50", None),
    Row("consumer-poll-p99", "commit to handler, without Redis, p99", "ms", DOWN, POLLING, "p99", None),
)

# The rows whose limit beside Electric's server is part of docs/benchmarks.md.
BESIDE_ELECTRIC: Mapping[str, Hold] = {
    "append": Hold(0.8, targets.ELECTRIC),
    "append-1000-streams": Hold(0.7, targets.ELECTRIC),
    "create": Hold(2.0, targets.ELECTRIC),
    "get-1kb": Hold(1.0, targets.ELECTRIC),
    "get-100kb": Hold(0.9, targets.ELECTRIC),
    "sse-1000-p99": Hold(1.0, targets.ELECTRIC),
}

SHARES: tuple[Share, ...] = (
    Share("share-append", "share of the ceiling: append 100 B, one stream", of="append", hold=60),
    Share("share-get", "share of the ceiling: GET 1 KB", of="get-1kb", hold=60),
)


def select(keys: str | None) -> tuple[Row, ...]:
    """The rows of a comma-separated list, where a name may end in *; all of them without a list."""
    if keys is None:
        return ROWS
    chosen: set[str] = set()
    for key in filter(None, (part.strip() for part in keys.split(","))):
        stem = key.removesuffix("*")
        matching = {row.key for row in ROWS if row.key == key or (stem != key and row.key.startswith(stem))}
        if not matching:
            raise ValueError(f"no row {key!r}; there are {', '.join(row.key for row in ROWS)}")
        chosen |= matching
    return tuple(row for row in ROWS if row.key in chosen)
