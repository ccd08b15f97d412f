"""Retention and key compaction over a day: a million messages in 24 hours of simulated time.

    python -m benchmarks.retention [--target sqlite] [--messages 1000000] [--seconds 80] [--kinds age keys]

It needs no server. One engine takes the appends of 64 tasks. Time passes with the messages: 24 hours in `--seconds`, or
in more where the machine is slower. All intervals of housekeeping are shortened with it, as far as threads can wait so
shortly. A stream with `age` of an hour and one without any rule take the messages of each hour in turn, so what else
the machine does slows both. Printed are the latency of an append to each, and the size in the database beside that of
an hour's messages: the largest after an hour of messages, from the second hour on. Key compaction of 1,000 keys
follows, with a tenth of the messages.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch

from benchmarks.local_database import TARGETS, local_database

HOURS = 24
DAY = HOURS * 3600.0
TASKS = 64
KEYS = 1000
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MIN_INTERVAL = 0.02
"""Shortest interval of housekeeping in real seconds. With 80 seconds for a day, these are 22 seconds."""

BINARY, JSON = "application/octet-stream", "application/json"
DELAY = 60
"""Seconds after which key compaction removes an older value."""


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


class Load:
    """Appends to one stream.

    Args:
        engine: takes the appends.
        path: the stream.
        kind: its content type.
        clock: goes on with each append. None: it does not.
        interval: shortest time between two appends in seconds.
    """

    def __init__(self, engine: Any, path: str, kind: str, clock: SimulatedClock | None, interval: float) -> None:
        self.engine, self.path, self.kind, self.clock, self.interval = engine, path, kind, clock, interval
        self.latencies: list[float] = []
        self._randomness = random.Random(1)

    async def append(self, count: int) -> None:
        """Append `count` messages by many tasks."""
        from django_durable_streams.store.operations import Append

        numbers = iter(range(count))
        start = time.perf_counter()

        async def task() -> None:
            for number in numbers:
                await asyncio.sleep(max(number * self.interval - (time.perf_counter() - start), 0))
                data = message(self.kind, self._randomness.randrange(KEYS), number)
                began = time.perf_counter()
                await self.engine.write(Append(self.path, self.kind, data))
                self.latencies.append(time.perf_counter() - began)
                if self.clock is not None:
                    self.clock.done += 1

        await asyncio.gather(*(task() for _ in range(TASKS)))

    def percentiles(self) -> tuple[float, float]:
        """Return the median and the 99th percentile in milliseconds."""
        latencies = sorted(self.latencies)
        return latencies[len(latencies) // 2] * 1e3, latencies[len(latencies) * 99 // 100] * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retention", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="sqlite")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=80.0, help="shortest time for the messages of a stream")
    parser.add_argument("--kinds", nargs="+", choices=("age", "keys"), default=["age", "keys"])
    options = parser.parse_args()
    rules = {
        "retention": {"bench/aged": {"age": 3600}},
        "key_compaction": {"bench/keys": {"delay": DELAY}},
    }
    with local_database(options.target, **rules), ExitStack() as patches:
        patch_intervals(patches, options.seconds / DAY)
        asyncio.run(measure(options.messages, options.seconds, options.kinds))


def patch_intervals(patches: ExitStack, factor: float) -> None:
    """Shorten the times between two looks of housekeeping, because the simulated time passes faster."""
    from django_durable_streams.engine import housekeeping, retention_tasks
    from django_durable_streams.store.upkeep import key_compaction

    # A claim lasts for this time of the simulated clock. It is meant for work that goes on in real time.
    patches.enter_context(patch.object(key_compaction, "CLAIM_SECONDS", round(key_compaction.CLAIM_SECONDS / factor)))
    for module, name in (
        (housekeeping, "INTERVAL"),
        (housekeeping, "WOKEN_INTERVAL"),
        (retention_tasks, "SWEEP_SECONDS"),
        (retention_tasks, "KEPT_SECONDS"),
    ):
        seconds = max(getattr(module, name) * factor, MIN_INTERVAL)
        patches.enter_context(patch.object(module, name, seconds))


async def measure(messages: int, seconds: float, kinds: list[str]) -> None:
    from django_durable_streams.engine import engine_for

    engine = engine_for("default")
    if "age" in kinds:
        await measure_age(engine, messages, seconds)
    if "keys" in kinds:
        await measure_keys(engine, messages // 10, seconds / 10)
    await asyncio.to_thread(engine.stop)


async def measure_age(engine: Any, messages: int, seconds: float) -> None:
    from django_durable_streams.store.operations import Create
    from django_durable_streams.store.upkeep import retention

    clock = SimulatedClock(messages)
    retention.clock = clock  # type: ignore[assignment]
    loads = [
        Load(engine, "bench/plain", BINARY, None, seconds / messages),
        Load(engine, "bench/aged", BINARY, clock, seconds / messages),
    ]
    for load in loads:
        await engine.write(Create(load.path, load.kind))
    largest = 0
    per_hour = messages // HOURS
    for hour in range(HOURS):
        for load in loads:
            await load.append(per_hour)
            if load.clock is not None:
                size, chunks = await asyncio.to_thread(stored, load.path)
                if hour:
                    largest = max(largest, size)
    hour_bytes = per_hour * 100
    p99_before = loads[0].percentiles()[1]
    for name, load in zip(("no rules", "age of an hour"), loads, strict=True):
        p50, p99 = load.percentiles()
        size, chunks = await asyncio.to_thread(stored, load.path)
        print(
            f"{name:>15}: append p50 {p50:6.2f} ms, p99 {p99:6.2f} ms ({p99 / p99_before:4.2f} times), "
            f"{size / 1e6:7.2f} MB in {chunks} chunks, {size / hour_bytes:6.3f} times an hour's messages",
            flush=True,
        )
    print(f"{'':>15}  at most {largest / hour_bytes:.3f} times an hour's messages at the end of each hour", flush=True)


async def measure_keys(engine: Any, messages: int, seconds: float) -> None:
    from django_durable_streams.store.operations import Create
    from django_durable_streams.store.upkeep import key_compaction

    clock = SimulatedClock(messages)
    key_compaction.clock = clock  # type: ignore[assignment]
    load = Load(engine, "bench/keys", JSON, clock, seconds / messages)
    await engine.write(Create(load.path, load.kind))
    await load.append(messages)
    size, chunks = await asyncio.to_thread(settled, load.path, clock)
    p50, p99 = load.percentiles()
    print(
        f"{'keys':>15}: append p50 {p50:6.2f} ms, p99 {p99:6.2f} ms, {size / 1e6:7.2f} MB in {chunks} chunks of "
        f"{messages / 1e4:.1f} MB, {size / (KEYS * 100):6.2f} times the newest values",
        flush=True,
    )


def settled(
    path: str, clock: SimulatedClock, steady_seconds: float = 30.0, max_seconds: float = 120.0
) -> tuple[int, int]:
    """Wait, while time passes, until housekeeping has changed the size of a stream for the last time; return it."""
    deadline = time.monotonic() + max_seconds
    seen, since = stored(path), time.monotonic()
    while time.monotonic() < min(deadline, since + steady_seconds):
        time.sleep(0.2)
        clock.after += timedelta(seconds=DELAY)
        if (now := stored(path)) != seen:
            seen, since = now, time.monotonic()
    return seen


def message(kind: str, key: int, number: int) -> bytes:
    """Return a message of 100 bytes."""
    if kind != JSON:
        return b"x" * 100
    text = b'{"type":"row","key":"%06d","value":%012d,"headers":{"operation":"update"}}' % (key, number + 10**11)
    return text.ljust(99) + b"\n"


def stored(path: str) -> tuple[int, int]:
    """Return the bytes and the number of the chunks of a stream."""
    from django.db.models import Count, Sum
    from django.db.models.functions import Length

    from django_durable_streams.models import Chunk, StagedChunk

    size = chunks = 0
    for model in (Chunk, StagedChunk):
        rows = model._default_manager.filter(stream__path=path)
        sizes = rows.aggregate(size=Sum(Length("data") + Length("ends")), count=Count("pk"))
        size, chunks = size + (sizes["size"] or 0), chunks + sizes["count"]
    return size, chunks


if __name__ == "__main__":
    main()
