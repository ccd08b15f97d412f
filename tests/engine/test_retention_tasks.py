"""Housekeeping applies the rules of retention and gives the space back, while an engine serves streams."""

import asyncio
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_durable_streams.engine import engine_for, retention_tasks
from django_durable_streams.engine.retention_tasks import RetentionTask, TrimmingTask
from django_durable_streams.models import Chunk, Retention, Stream
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.store.operations import Append, Create, Trim
from django_durable_streams.store.upkeep import compaction, trimming
from django_durable_streams.store.write import group_commit
from tests.engine.test_housekeeping_tasks import drain, place
from tests.overriding import override_streams

BYTES = "application/octet-stream"

pytestmark = pytest.mark.django_db(transaction=True)


def apply_now(trim: Trim, callback: Any) -> None:
    (outcome,), _ = group_commit.apply([trim], "default")
    callback.resolve(outcome)


def fill(count: int, appends: int = 4) -> None:
    operations: list[Any] = [Create(f"s/{number}", BYTES) for number in range(count)]
    operations += [Append(f"s/{n}", BYTES, b"x" * 10) for _ in range(appends) for n in range(count)]
    for operation in operations:  # a chunk for each
        group_commit.apply([operation], "default")


def stored() -> int:
    return sum(len(data) for data in Chunk.objects.values_list("data", flat=True))


@override_streams(RETENTION={"s/**": {"bytes": 10}, "**": {"bytes": 1}})
def test_all_streams_are_trimmed_and_their_space_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(40)
    Stream.objects.get(path="s/7").retain()
    Stream.objects.get(path="s/8").retain(bytes=20)
    group_commit.apply([Create("else", BYTES), Append("else", BYTES, b"1"), Append("else", BYTES, b"2")], "default")
    rules, dropping = RetentionTask(place(), apply_now), TrimmingTask(place())
    drain(rules)
    firsts = dict(Stream.objects.values_list("path", "first_position"))
    assert firsts.pop("s/7") == 0
    assert firsts.pop("s/8") == 20
    assert firsts.pop("else") == 1
    assert set(firsts.values()) == {30}
    drain(dropping)
    assert stored() == 38 * 10 + 20 + 40 + 1
    assert not Retention.objects.filter(trim_position__isnull=False).exists()


def test_a_sweep_does_not_begin_again_at_once() -> None:
    fill(2)
    Stream.objects.get(path="s/1").retain(bytes=10)
    task = RetentionTask(place(), apply_now)
    drain(task)
    Stream.objects.get(path="s/0").retain(bytes=10)
    assert task.step() is None
    assert Stream.objects.get(path="s/0").first_position == 0
    task._next_sweep = 0.0
    drain(task)
    assert Stream.objects.get(path="s/0").first_position == 30


def test_a_trim_that_finds_no_place_is_made_in_the_next_sweep() -> None:
    fill(1)
    Stream.objects.get(path="s/0").retain(bytes=10)

    def refuse(trim: Trim, callback: Any) -> None:
        raise ServiceUnavailable("Too many operations wait.")

    drain(RetentionTask(place(), refuse))
    drain(TrimmingTask(place()))
    assert stored() == 40
    drain(RetentionTask(place(), apply_now))
    drain(TrimmingTask(place()))
    assert stored() == 10


def test_one_transaction_deletes_a_limited_number_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimming, "ROWS", 3)
    fill(3)
    for stream in Stream.objects.all():
        stream.trim(stream.offset_at(30))
    deleted: list[int] = []
    real = trimming.delete
    monkeypatch.setattr(
        trimming, "delete", lambda using, portion: (deleted.append(len(portion.chunk_ids)), real(using, portion))[1]
    )
    drain(TrimmingTask(place()))
    assert deleted == [3, 3, 3]
    assert stored() == 30


def test_a_damaged_chunk_does_not_hold_up_the_others() -> None:
    fill(2)
    for stream in Stream.objects.order_by("pk"):
        compaction.compact("default", [stream.pk])
        stream.trim(stream.offset_at(20))
    Chunk.objects.filter(stream__path="s/0").unguarded().update(ends=b"x")
    damaged = Chunk.objects.filter(stream__path="s/0").count()
    drain(TrimmingTask(place()))
    assert Chunk.objects.filter(stream__path="s/0").count() == damaged
    assert sum(len(chunk.data) for chunk in Chunk.objects.filter(stream__path="s/1")) == 20


def test_data_that_forks_need_is_not_looked_at_in_each_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(1)
    source = Stream.objects.get(path="s/0")
    source.fork("fork")
    source.trim("now")
    looks: list[Any] = []
    real = trimming.find
    monkeypatch.setattr(trimming, "find", lambda using, ids: (looks.append(ids), real(using, ids))[1])
    task = TrimmingTask(place())
    for _ in range(3):
        drain(task)
    assert looks == [[source.pk]]
    assert stored() == 40
    monkeypatch.setattr(retention_tasks, "KEPT_SECONDS", 0.0)
    Stream.objects.get(path="fork").delete()
    drain(TrimmingTask(place()))
    assert stored() == 0


async def test_the_engine_does_it_by_itself(engines: None) -> None:
    with override_streams(RETENTION={"s/*": {"messages": 2}}):
        engine = engine_for("default")
        await engine.write(Create("s/a", BYTES))
        deadline = time.monotonic() + 25
        appended = 0
        while time.monotonic() < deadline:
            await engine.write(Append("s/a", BYTES, b"0123456789"))
            appended += 10
            stream = await Stream.objects.aget(path="s/a")
            if stream.first_position and await sync_to_async(stored)() < appended:
                break
            await asyncio.sleep(0.05)
        else:
            pytest.fail("nothing was trimmed, or its data was not deleted")
        snapshot = await engine.read("s/a")
        assert snapshot.info.first_position == stream.first_position
