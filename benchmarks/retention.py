"""Retention and key compaction over a day: a million messages in 24 hours of simulated time.

    python -m benchmarks.retention [--target sqlite] [--messages 1000000] [--seconds 60]

It needs no server. One engine takes the appends of 64 tasks, in `--seconds` or more: first without any rule, then with
`age` of an hour, then with key compaction of 1,000 keys. Time passes with the messages, and housekeeping looks for work
every tenth of a second, which is some minutes of that time. Printed are the latency of an append, and the size of the
stream in the database beside that of one hour's messages.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.local_database import TARGETS, local_database

DAY = 86_400.0
TASKS = 64
KEYS = 1000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SWEEP_SECONDS = 0.1
SETTLE_SECONDS = 2.0
MAX_SETTLE_SECONDS = 120.0
"""The size is that after which housekeeping has changed nothing for a while."""

KINDS = {
    "no rules": ("bench/plain", "application/octet-stream"),
    "age of an hour": ("bench/aged", "application/octet-stream"),
    "keys": ("bench/keys", "application/json"),
}


class SimulatedClock:
    """Stands for `django_durable_streams.clock` in the rules of retention: the time follows from the messages."""

    def __init__(self, messages: int) -> None:
        self.messages = messages
        self.done = 0
        self.after = timedelta(0)
        """The time since the last message."""

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=DAY * self.done / self.messages) + self.after

    def to_microseconds(self, moment: datetime) -> int:
        return int(moment.timestamp() * 1_000_000)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retention", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="sqlite")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="shortest time for all messages of a kind")
    options = parser.parse_args()
    rules = {
        "retention": {"bench/aged": {"age": 3600}},
        "key_compaction": {"bench/keys": {"delay": 60}},
    }
    with local_database(options.target, **rules):
        asyncio.run(measure(options.messages, options.seconds))


async def measure(messages: int, seconds: float) -> None:
    from django_durable_streams.engine import engine_for, retention_tasks
    from django_durable_streams.store.upkeep import key_compaction, retention

    retention_tasks.SWEEP_SECONDS = SWEEP_SECONDS
    retention_tasks.KEPT_SECONDS = SWEEP_SECONDS  # a minute would be more than a day of the simulated time
    engine = engine_for("default")
    p99_before = 0.0
    for name, (path, kind) in KINDS.items():
        clock = SimulatedClock(messages)
        retention.clock = key_compaction.clock = clock  # type: ignore[assignment]
        latencies = await append_all(engine, path, kind, clock, seconds)
        if name == "keys":
            clock.after = timedelta(minutes=10)  # the newest messages are older than the delay
        await asyncio.to_thread(settle, path, messages)
        p50, p99 = (latencies[int(len(latencies) * share)] * 1e3 for share in (0.5, 0.99))
        p99_before = p99_before or p99
        size, chunks, hour = await asyncio.to_thread(stored, path, messages)
        print(
            f"{name:>15}: append p50 {p50:6.2f} ms, p99 {p99:6.2f} ms ({p99 / p99_before:4.2f} times), "
            f"{size / 1e6:7.2f} MB in {chunks} chunks, {size / hour:6.3f} times an hour's messages",
            flush=True,
        )
    await asyncio.to_thread(engine.stop)


async def append_all(engine: Any, path: str, kind: str, clock: SimulatedClock, seconds: float) -> list[float]:
    from django_durable_streams.store.operations import Append, Create

    await engine.write(Create(path, kind))
    numbers = itertools.count()
    latencies: list[float] = []
    randomness = random.Random(1)
    start = time.perf_counter()

    async def task() -> None:
        while (number := next(numbers)) < clock.messages:
            # In less time, housekeeping would look for work more seldom than it does in a day.
            await asyncio.sleep(max(number / clock.messages * seconds - (time.perf_counter() - start), 0))
            data = message(kind, randomness.randrange(KEYS), number)
            began = time.perf_counter()
            await engine.write(Append(path, kind, data))
            latencies.append(time.perf_counter() - began)
            clock.done += 1

    await asyncio.gather(*(task() for _ in range(TASKS)))
    latencies.sort()
    return latencies


def settle(path: str, messages: int) -> None:
    """Wait until the size of a stream does not change any more."""
    deadline = time.monotonic() + MAX_SETTLE_SECONDS
    size, steady_since = -1, 0.0
    while time.monotonic() < deadline:
        now_size, _, _ = stored(path, messages)
        if now_size != size:
            size, steady_since = now_size, time.monotonic()
        elif time.monotonic() - steady_since >= SETTLE_SECONDS * (15 if path == KINDS["keys"][0] else 1):
            return
        time.sleep(0.2)


def message(kind: str, key: int, number: int) -> bytes:
    """Return a message of 100 bytes."""
    if kind != "application/json":
        return b"x" * 100
    text = b'{"type":"row","key":"%06d","value":%012d,"headers":{"operation":"update"}}' % (key, number + 10**11)
    return text.ljust(99) + b"\n"


def stored(path: str, messages: int) -> tuple[int, int, float]:
    """Return the bytes and chunks of a stream, and the bytes of an hour's messages."""
    from django.db.models import Count, Sum
    from django.db.models.functions import Length

    from django_durable_streams.models import Chunk, StagedChunk

    size = chunks = 0
    for model in (Chunk, StagedChunk):
        rows = model._default_manager.filter(stream__path=path)
        sizes = rows.aggregate(size=Sum(Length("data") + Length("ends")), count=Count("pk"))
        size, chunks = size + (sizes["size"] or 0), chunks + sizes["count"]
    return size, chunks, messages / 24 * 100


if __name__ == "__main__":
    main()
