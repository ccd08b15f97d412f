"""Housekeeping tasks skip a row that fails, try it again later, and do all other work. On every database."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from itertools import chain, pairwise, repeat
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest
from django.apps import apps
from django.db import OperationalError, connection, connections, models, transaction
from django.utils import timezone

from django_durable_streams.engine import housekeeping_failures, housekeeping_tasks
from django_durable_streams.engine.compaction_tracker import CompactionTracker
from django_durable_streams.engine.housekeeping_context import HousekeepingContext
from django_durable_streams.engine.housekeeping_tasks import (
    CompactionTask,
    ExpiryTask,
    FlushTask,
    HousekeepingTask,
    PurgeTask,
    RemovalTask,
)
from django_durable_streams.models import Chunk, Producer, StagedChunk, Stream
from django_durable_streams.runtime.connection import DedicatedConnection
from django_durable_streams.runtime.write_lock import write_lock
from django_durable_streams.store.operations import Append, Commit, Create, Delete, Fork
from django_durable_streams.store.sql import CommitUncertain
from django_durable_streams.store.upkeep import related_rows, removal
from django_durable_streams.store.write import group_commit
from tests.store.contents import read
from tests.store.contexts import Staging
from tests.store.triggers import MESSAGE, refusing

pytestmark = pytest.mark.django_db(transaction=True)

TEXT = "text/plain"
PATHS = [f"s/{number}" for number in range(20)]
BAD = "s/7"
sqlite_only = pytest.mark.skipif(connection.vendor != "sqlite", reason="only SQLite has staged chunks")


class OwnLine(nullcontext[None]):
    """The connection of the test itself."""

    using = "default"

    def open(self) -> bool:
        """It is open."""
        return False


def in_thread(work: Callable[[], None]) -> None:
    """Do something over another connection, and wait for it: it must not wait for this one."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(run).result(30)


def place() -> HousekeepingContext:
    return HousekeepingContext(cast(DedicatedConnection, OwnLine()), write_lock("default"), None)


def drain(duty: HousekeepingTask, steps: int = 500) -> None:
    """Take steps until there is nothing to do."""
    for _ in range(steps):
        if duty.step() is None:
            return
    raise AssertionError(f"there is no end to what is to be done to {duty.name}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is added to the time, for what waits until it is tried again."""
    later = [0.0]
    monkeypatch.setattr(housekeeping_failures, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + later[0]))
    return later


def make(*paths: str, **options: Any) -> None:
    group_commit.apply([Create(path, TEXT, **options) for path in paths], "default")


def number(path: str) -> int:
    return Stream.objects.get(path=path).pk


class Job(NamedTuple):
    """A duty with something to do for each of PATHS, which of them it has done, and a trigger that refuses one."""

    number: int
    """Of BAD."""
    duty: HousekeepingTask
    done: Callable[[], set[str]]
    refusal: Callable[[int], AbstractContextManager[None]]


def expiry() -> Job:
    make(*PATHS, expires_at=timezone.now() + timedelta(hours=1))
    Stream.objects.unguarded().update(deadline=timezone.now() - timedelta(seconds=1))
    commits: list[Commit] = []
    return Job(
        number(BAD),
        ExpiryTask(place(), commits.extend),
        lambda: {commit.path for commit in commits},
        lambda pk: refusing("UPDATE", Stream, "id", pk),
    )


def collection() -> Job:
    make(*PATHS)
    group_commit.apply([Create(f"fork-of/{path}", TEXT, fork=Fork(path)) for path in PATHS], "default")
    group_commit.apply([Delete(path) for path in PATHS], "default")
    group_commit.apply([Delete(f"fork-of/{path}") for path in PATHS], "default")
    there = dict(Stream.objects.filter(path__isnull=False).values_list("path", "pk"))
    assert len(there) == len(PATHS)
    return Job(
        number(BAD),
        RemovalTask(place()),
        lambda: {*PATHS} - {*Stream.objects.filter(path__isnull=False).values_list("path", flat=True)},
        lambda pk: refusing("UPDATE", Stream, "id", pk),
    )


def purging(model: type[models.Model], column: str) -> Job:
    make(*PATHS)
    appends = [Append(path, TEXT, b"data") for path in PATHS]
    group_commit.apply(appends, "default")
    numbers = dict(Stream.objects.values_list("path", "pk"))
    Producer.objects.unguarded().bulk_create(
        [Producer(stream_id=pk, producer_id="p", epoch=0, seq=0) for pk in numbers.values()]
    )
    group_commit.apply([Delete(path) for path in PATHS], "default")

    def done() -> set[str]:
        there = {*Stream._base_manager.values_list("pk", flat=True)}
        return {path for path, pk in numbers.items() if pk not in there}

    return Job(numbers[BAD], PurgeTask(place()), done, lambda pk: refusing("DELETE", model, column, pk))


def merging() -> Job:
    make(*PATHS)
    for part in range(20):
        group_commit.apply([Append(path, TEXT, b"%d;" % part) for path in PATHS], "default")
    growth = CompactionTracker(flushes=False)
    growth.request({*Stream.objects.values_list("pk", flat=True)})

    def done() -> set[str]:
        counts = Stream.objects.annotate(number=models.Count("chunks")).values_list("path", "number")
        return {path for path, number in counts if path is not None and number < 10}

    return Job(
        number(BAD), CompactionTask(place(), growth), done, lambda pk: refusing("INSERT", Chunk, "stream_id", pk)
    )


def gathering() -> Job:
    make(*PATHS)
    for part in range(3):
        appends = [Append(path, TEXT, b"%d;" % part) for path in PATHS]
        group_commit.apply(appends, "default", Staging())
    StagedChunk.objects.unguarded().update(created_at=timezone.now() - timedelta(minutes=1))

    def done() -> set[str]:
        waiting = {*StagedChunk.objects.values_list("stream_id", flat=True)}
        return {path for path, pk in Stream.objects.values_list("path", "pk") if pk not in waiting and path is not None}

    growth = CompactionTracker(flushes=True)
    return Job(number(BAD), FlushTask(place(), growth), done, lambda pk: refusing("INSERT", Chunk, "stream_id", pk))


JOBS = {
    "expiry": expiry,
    "removal": collection,
    "purging a chunk": lambda: purging(Chunk, "stream_id"),
    "purging a producer": lambda: purging(Producer, "stream_id"),
    "purging a stream": lambda: purging(Stream, "id"),
    "merging": merging,
}


@pytest.mark.parametrize("name", [*JOBS, pytest.param("gathering", marks=sqlite_only)])
def test_a_row_that_fails_stops_nothing_else(
    name: str, clock: list[float], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = {**JOBS, "gathering": gathering}[name]()
    pk = job.number
    with job.refusal(pk):
        drain(job.duty)
        assert job.done() == {*PATHS} - {BAD}
        (record,) = caplog.records
        message = record.getMessage()
        assert record.levelno == logging.ERROR
        assert (f" {BAD}:" in message) or f"(id {pk})" in message
        assert MESSAGE in message
        assert "trigger" in message
        for _ in range(3):  # later, and once more
            drain(job.duty)
            clock[0] += housekeeping_failures.MAX_DELAY + 1
        assert job.done() == {*PATHS} - {BAD}
        assert len(caplog.records) == 1
    clock[0] += housekeeping_failures.MAX_DELAY + 1
    drain(job.duty)
    assert job.done() == {*PATHS}


@pytest.mark.parametrize("name", [*JOBS, pytest.param("gathering", marks=sqlite_only)])
def test_without_failures_all_work_is_done(name: str, caplog: pytest.LogCaptureFixture) -> None:
    job = {**JOBS, "gathering": gathering}[name]()
    drain(job.duty)
    assert job.done() == {*PATHS}
    assert not caplog.records


@pytest.fixture
def bookmark() -> Iterator[type[models.Model]]:
    """A project's model that refers to streams and does not let them go."""

    class Bookmark(models.Model):
        stream = models.ForeignKey(Stream, on_delete=models.PROTECT, related_name="+")

        class Meta:
            app_label = "auth"

        def __str__(self) -> str:
            return "a bookmark"

    with connection.schema_editor() as editor:
        editor.create_model(Bookmark)
    yield Bookmark
    with connection.schema_editor() as editor:
        editor.delete_model(Bookmark)
    del apps.all_models["auth"]["bookmark"]
    apps.clear_cache()


def test_a_protected_stream_does_not_stop_the_purge(
    bookmark: type[models.Model], clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    make(*PATHS)
    group_commit.apply([Append(path, TEXT, b"data") for path in PATHS], "default")
    protected = {number(BAD), number(PATHS[0]), number(PATHS[-1])}
    bookmark._default_manager.bulk_create([bookmark(stream_id=pk) for pk in protected])
    group_commit.apply([Delete(path) for path in PATHS], "default")
    duty = PurgeTask(place())
    drain(duty)
    assert {*Stream._base_manager.values_list("pk", flat=True)} == protected
    assert not Chunk.objects.exists()
    assert len(caplog.records) == len(protected)
    assert all("auth.Bookmark" in record.getMessage() for record in caplog.records)
    drain(duty)
    bookmark._default_manager.all().delete()
    clock[0] += housekeeping_failures.FIRST_DELAY + 1
    drain(duty)
    assert not Stream._base_manager.exists()
    assert len(caplog.records) == len(protected)


@pytest.mark.slow
def test_many_failures_do_not_fill_the_log(bookmark: type[models.Model], caplog: pytest.LogCaptureFixture) -> None:
    paths = [f"t/{number}" for number in range(30)]
    make(*paths)
    bookmark._default_manager.bulk_create([bookmark(stream=stream) for stream in Stream.objects.all()])
    group_commit.apply([Delete(path) for path in paths], "default")
    drain(PurgeTask(place()))
    assert len(caplog.records) == housekeeping_failures.MAX_LOGGED
    assert "no more are logged" in caplog.records[-1].getMessage()
    assert Stream.objects.count() == 30


def test_a_bug_in_a_projects_own_code_stops_nothing_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = purging(Stream, "id")
    real = related_rows.follow

    def follow(streams: Sequence[models.Model], using: str) -> dict[str, int]:
        if any(stream.pk == job.number for stream in streams):
            raise RuntimeError("a receiver's own")
        return real(streams, using)

    monkeypatch.setattr(related_rows, "refer_to", lambda streams, using: True)
    monkeypatch.setattr(related_rows, "follow", follow)
    drain(job.duty)
    assert job.done() == {*PATHS} - {BAD}
    (record,) = caplog.records
    assert "a receiver's own" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("damage", [{"ends": b"\1\2\3"}, {"ends": b"\7\0\0\0"}, {"data": b"0;1;"}, {"data": b""}])
@pytest.mark.parametrize("job", [merging, pytest.param(gathering, marks=sqlite_only)])
def test_a_chunk_that_contradicts_itself_stops_nothing_else(
    job: Callable[[], Job], damage: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    _, duty, done, _ = job()
    model: type[Chunk] | type[StagedChunk] = Chunk if job is merging else StagedChunk
    before = {path: read(path) for path in PATHS}
    chunk = model._base_manager.filter(stream_id=number(BAD)).order_by("end")[1]
    model.objects.filter(pk=chunk.pk).unguarded().update(**damage)
    drain(duty)
    assert done() >= {*PATHS} - {BAD}
    assert {path: read(path) for path in PATHS if path != BAD} == {p: r for p, r in before.items() if p != BAD}
    (record,) = caplog.records
    assert f" {BAD}: CorruptChunk" in record.getMessage()
    assert "backup" in record.getMessage()


def test_an_outage_of_the_database_is_not_a_failure_of_a_stream(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job = expiry()

    def fail(*args: object, **kwargs: object) -> None:
        raise OperationalError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(removal, "expire", fail)
        assert job.duty.step() is not None  # it looks
        with pytest.raises(OperationalError):
            job.duty.step()
    drain(job.duty)
    assert job.done() == {*PATHS}
    assert not caplog.records


@pytest.mark.skipif(connection.vendor == "sqlite", reason="it has one lock for all")
@pytest.mark.parametrize("name", ["expiry", "removal", "purging a stream"])
def test_rows_that_another_process_has_locked_are_skipped(name: str) -> None:
    job = JOBS[name]()
    taken = [*Stream._base_manager.order_by("pk").values_list("pk", flat=True)[:5]]
    with transaction.atomic():
        assert len(Stream._base_manager.select_for_update().filter(pk__in=taken)) == 5
        in_thread(lambda: drain(job.duty))
        assert job.done() == {*PATHS[5:]}
    drain(job.duty)
    assert job.done() == {*PATHS}


@pytest.mark.skipif(connection.vendor == "sqlite", reason="it has one lock for all")
def test_a_purge_does_not_wait_for_a_compaction() -> None:
    job = purging(Stream, "id")
    chunk = Chunk.objects.order_by("pk").first()
    assert chunk is not None
    with transaction.atomic():
        Chunk.objects.select_for_update().get(pk=chunk.pk)
        in_thread(lambda: drain(job.duty))
        assert len(job.done()) == len(PATHS) - 1
    drain(job.duty)
    assert job.done() == {*PATHS}


def test_steps_are_as_large_as_their_time_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [f"t/{number}" for number in range(300)]
    make(*paths, expires_at=timezone.now() + timedelta(hours=1))
    Stream.objects.unguarded().update(deadline=timezone.now() - timedelta(seconds=1))
    now, sizes = [0.0], []
    monkeypatch.setattr(housekeeping_tasks, "time", SimpleNamespace(monotonic=lambda: now[0]))
    cost = chain([0.0, 0.0, 10.0, 10.0, 10.0], repeat(0.02))

    def expire(using: str, ids: list[int]) -> list[Commit]:
        sizes.append(len(ids))
        now[0] += next(cost)
        return removal_expire(using, ids=ids)

    removal_expire = removal.expire
    monkeypatch.setattr(removal, "expire", expire)
    drain(ExpiryTask(place(), lambda commits: None))
    first = housekeeping_tasks.FIRST_STREAMS
    assert sizes[:5] == [first, 2 * first, 4 * first, 2 * first, min(first, 300 - 9 * first)][:5]
    assert sum(sizes) == 300


def test_a_stream_with_much_data_is_purged_bit_by_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "PURGE_ROWS", 7)
    monkeypatch.setattr(removal, "PURGE_BYTES", 100)
    make("large", "small")
    for size in [*([10] * 30), 500, *([60] * 5)]:
        group_commit.apply([Append("large", TEXT, b"x" * size), Append("small", TEXT, b"y")], "default")
    group_commit.apply([Delete("large"), Delete("small")], "default")
    there = [Chunk.objects.count()]
    duty = PurgeTask(place())
    while duty.step() is not None:
        there.append(Chunk.objects.count())
    assert max(before - after for before, after in pairwise(there)) <= 7
    assert not Stream._base_manager.exists()


def test_a_connection_that_is_lost_during_a_commit_says_nothing_of_the_rows() -> None:
    lost = CommitUncertain()
    lost.__cause__ = OperationalError("server closed the connection unexpectedly")
    assert housekeeping_failures.passes(lost)
    assert not housekeeping_failures.passes(CommitUncertain())
