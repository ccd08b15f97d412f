"""Housekeeping compacts keys, while an engine serves the stream. On every database."""

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_durable_streams.engine import engine_for
from django_durable_streams.engine.key_compaction_task import KeyCompactionTask
from django_durable_streams.models import Chunk, Retention, Stream
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.upkeep import key_compaction
from django_durable_streams.store.upkeep.key_compaction import Notes
from django_durable_streams.store.write import group_commit
from tests.engine.test_housekeeping_tasks import drain, place
from tests.overriding import override_streams
from tests.store.key_compaction_steps import change, state

JSON = "application/json"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def every_byte_counts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    with override_streams(KEY_COMPACTION={"s/**": {"delay": 0}}):
        yield


def line(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def fill(path: str) -> None:
    group_commit.apply([Create(path, JSON)], "default")
    for number in range(6):
        group_commit.apply([Append(path, JSON, line(change(str(number % 2), number)))], "default")


def sweep(task: KeyCompactionTask) -> None:
    task._next_sweep = 0.0
    drain(task)


def test_all_streams_of_the_patterns_are_compacted() -> None:
    for path in ("s/1", "s/2", "else"):
        fill(path)
    sweep(KeyCompactionTask(place()))
    values = {path: [one["value"] for one in Stream.objects.get(path=path).read()] for path in ("s/1", "s/2", "else")}
    assert values == {"s/1": [4, 5], "s/2": [4, 5], "else": [0, 1, 2, 3, 4, 5]}
    assert [Notes.of(row).claimed_until for row in Retention.objects.all()] == [0, 0]


def test_a_damaged_stream_does_not_hold_up_the_others() -> None:
    for number in range(4):
        fill(f"s/{number}")
    Chunk.objects.filter(stream__path="s/1").unguarded().update(ends=b"x")
    task = KeyCompactionTask(place())
    sweep(task)
    for path in ("s/0", "s/2", "s/3"):
        assert [one["value"] for one in Stream.objects.get(path=path).read()] == [4, 5]
    assert len(list(Stream.objects.get(path="s/1").read())) == 6


def test_a_pass_that_is_held_up_is_given_up_and_made_later(monkeypatch: pytest.MonkeyPatch) -> None:
    fill("s/1")
    task = KeyCompactionTask(place())
    with monkeypatch.context() as patch:
        patch.setattr(key_compaction, "replace", lambda *_: False)
        sweep(task)
    assert len(list(Stream.objects.get(path="s/1").read())) == 6
    sweep(task)
    assert len(list(Stream.objects.get(path="s/1").read())) == 2


async def test_readers_and_writers_go_on_while_the_engine_compacts(engines: None) -> None:
    engine = engine_for("default")
    await engine.write(Create("s/a", JSON))
    stream = await Stream.objects.aget(path="s/a")
    live: list[Any] = []

    async def follow() -> None:
        async for page in stream.atail("-1", timeout=20):
            live.extend(page)
            if page.closed:
                return

    following = asyncio.create_task(follow())
    deadline = time.monotonic() + 25
    count = 0
    while time.monotonic() < deadline:
        for _ in range(10):
            await engine.write(Append("s/a", JSON, line(change(str(count % 3), count))))
            count += 1
        await asyncio.sleep(0.05)
        if await sync_to_async(Chunk.objects.count)() and len([one async for one in stream.aread()]) < count // 2:
            break
    else:
        pytest.fail("nothing was compacted")
    await engine.write(Append("s/a", JSON, b"", close=True))
    await following
    assert [one["value"] for one in live] == sorted({one["value"] for one in live})
    expected = {("row", str(number % 3)): number for number in range(count)}
    assert state(live) == expected
    assert state([one async for one in stream.aread()]) == expected
    snapshot = await engine.read("s/a", Sentinel.START)
    assert snapshot.segment is not None
    assert state(json.loads(message.data) for message in snapshot.segment.messages(JSON)) == expected
