"""Compaction: which streams need it, and few chunks in the database afterwards."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from threading import Event, current_thread

import pytest
from django.db import OperationalError, connection

from django_durable_streams.engine import Engine, compaction_tracker, engine_for, housekeeping_tasks
from django_durable_streams.engine.compaction_tracker import CompactionTracker
from django_durable_streams.engine.engine import stop_engines
from django_durable_streams.models import Chunk, StagedChunk, Stream
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.runtime.exclusive_job import ExclusiveJob
from django_durable_streams.store.operations import Append, Commit, Create, Delete
from django_durable_streams.store.read.segment_cache import SegmentCache
from django_durable_streams.store.upkeep import compaction, removal, staged_chunks

TEXT = "text/plain"


def commit(stream_id: int, start: int, *appends: bytes, **options: bool) -> Commit:
    ends = [start + len(b"".join(appends[: number + 1])) for number in range(len(appends))]
    return Commit(
        stream_id, f"s/{stream_id}", TEXT, start, ends[-1], appends=appends, ends=ends, **({"closed": False} | options)
    )


@pytest.fixture
def log() -> CompactionTracker:
    return CompactionTracker(flushes=False)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is."""
    now = [1000.0]
    monkeypatch.setattr(compaction_tracker.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    return now


def test_a_stream_needs_compaction_once_after_many_commits(log: CompactionTracker) -> None:
    due = [log.count([commit(1, number, b"x"), commit(2, number, b"x")][: 1 + number % 2]) for number in range(256)]
    assert due == [False] * 255 + [True]
    assert log.take_due() == {1}
    assert log.take_due() == set()
    assert not log.count([commit(1, 256, b"x")])


def test_a_stream_that_waits_for_compaction_wakes_nothing_again(log: CompactionTracker) -> None:
    wakes = [log.count([commit(1, number, b"x")]) for number in range(2 * compaction_tracker.COMPACT_AFTER_CHUNKS)]
    assert wakes.count(True) == 1
    assert log.take_due() == {1}


def test_closed_and_quiet_streams_need_compaction_after_fewer_commits(
    log: CompactionTracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        assert not log.count([commit(1, number, b"x"), commit(2, number, b"x")])
    assert not log.count([commit(3, 0, b"x", closed=True)])
    assert log.count([commit(1, 20, b"x", closed=True)])
    assert log.take_due() == {1}
    monkeypatch.setattr(compaction_tracker, "QUIET_SECONDS", 0.0)
    assert log.take_due() == {2}


def test_a_read_may_request_compaction_and_removed_streams_need_none(log: CompactionTracker) -> None:
    log.request({5})
    for number in range(30):
        log.count([commit(1, number, b"x")])
    log.count([Commit(1, "s/1", TEXT, 30, 30, False, removed=True)])
    assert log.take_due() == {5}


def test_many_streams_at_once_do_not_fill_the_memory(log: CompactionTracker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_tracker, "MAX_COUNTED_STREAMS", 10)
    log.count([commit(number, 0, b"x") for number in range(50)])
    assert sorted(log._streams) == list(range(40, 50))


def test_a_process_is_busy_while_it_appends_much(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_tracker, "STAGE_FROM_CHUNKS_PER_SECOND", 20)
    log = CompactionTracker(flushes=True)
    sizes = []
    for number in range(8):
        log.count([commit(stream, number, b"x") for stream in range(5)])
        sizes.append(log.is_busy())
        clock[0] += 0.2
    assert sizes == [False] * 3 + [True] * 5
    clock[0] += 0.4  # and the second second had 15 only
    log.count([commit(1, 8, b"x")])
    assert not log.is_busy()


def test_a_process_is_never_busy_if_it_stages_no_chunks(log: CompactionTracker) -> None:
    for number in range(compaction_tracker.STAGE_FROM_CHUNKS_PER_SECOND + 1):
        log.count([commit(number, 0, b"x")])
    assert not log.is_busy()


def busy(monkeypatch: pytest.MonkeyPatch) -> CompactionTracker:
    monkeypatch.setattr(compaction_tracker, "STAGE_FROM_CHUNKS_PER_SECOND", 0)
    log = CompactionTracker(flushes=True)
    log.count([])
    assert log.is_busy()
    return log


def test_staged_chunks_are_counted_when_they_are_flushed(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_tracker, "COMPACT_AFTER_CHUNKS", 3)
    log = busy(monkeypatch)
    assert not any(log.count([commit(stream, number, b"x") for stream in range(5)]) for number in range(6))
    assert log.take_due() == set()
    for stream_ids in ({1, 2}, {1}, {1, 3}):
        log.flushed(stream_ids)
    assert log.take_due() == {1}


def test_chunks_that_are_too_large_to_be_staged_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction_tracker, "COMPACT_AFTER_CHUNKS", 3)
    log = busy(monkeypatch)
    large = b"x" * (StagedChunk.MAX_BYTES + 1)
    due = [log.count([commit(1, number * len(large), large), commit(2, number, b"x")]) for number in range(3)]
    assert due == [False, False, True]
    assert log.take_due() == {1}


@pytest.fixture
def engine(engines: None, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(compaction_tracker, "COMPACT_AFTER_CHUNKS", 60)
    return engine_for()


@pytest.fixture
def tidied(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Set whenever the housekeeper has merged or deleted something."""
    event = Event()

    def telling(work: Callable[..., object]) -> Callable[..., object]:
        def tell(*args: object) -> object:
            try:
                return work(*args)
            finally:
                event.set()

        return tell

    for module, name in ((staged_chunks, "flush"), (compaction, "merge"), (removal, "purge_streams")):
        monkeypatch.setattr(module, name, telling(getattr(module, name)))
    return event


async def until_there_are(count: int, tidied: Event) -> None:
    """Wait until there are no more chunks than that, and none is recent."""
    while True:
        tidied.clear()
        if await Chunk.objects.acount() <= count and not await StagedChunk.objects.aexists():
            return
        assert await asyncio.to_thread(tidied.wait, 30)


@pytest.fixture(params=[compaction_tracker.STAGE_FROM_CHUNKS_PER_SECOND, 0], ids=["not busy", "busy"])
def pace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the process is busy from its first append on, as it can be on SQLite."""
    monkeypatch.setattr(compaction_tracker, "STAGE_FROM_CHUNKS_PER_SECOND", request.param)
    return request.param == 0 and connection.vendor == "sqlite"


async def test_streams_that_grow_together_are_few_chunks_soon(
    engine: Engine, tidied: Event, pace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction_tracker, "QUIET_SECONDS", 0.5)
    monkeypatch.setattr(staged_chunks, "FLUSH_ALL_AFTER", timedelta(seconds=0.5))
    paths = [f"s/{number}" for number in range(20)]
    await asyncio.gather(*(engine.write(Create(path, TEXT)) for path in paths))
    for number in range(50):
        await asyncio.gather(*(engine.write(Append(path, TEXT, b"%d;" % number)) for path in paths))
    assert await StagedChunk.objects.aexists() == pace
    expected = b"".join(b"%d;" % number for number in range(50))
    for _ in range(2):
        for path in paths:
            view = await engine.read(path, Sentinel.START)
            assert view.segment is not None
            assert view.segment.data == expected
            assert len(view.segment.ends) == 50
        await until_there_are(20 * 20, tidied)
        engine.cache = engine._reader._cache = SegmentCache(0)


async def test_a_busy_stream_alone_is_few_chunks_soon(engine: Engine, tidied: Event) -> None:
    await engine.write(Create("busy", TEXT))
    for _ in range(130):
        await engine.write(Append("busy", TEXT, b"x" * 10))
    await until_there_are(30, tidied)
    view = await engine.read("busy", Sentinel.START)
    assert view.segment is not None
    assert list(view.segment.ends) == list(range(10, 1310, 10))


async def test_the_end_does_not_wait_for_a_rest(engine: Engine, tidied: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(housekeeping_tasks, "COMPACTION_REST", 20_000)  # half a minute and more
    await engine.write(Create("busy", TEXT))
    for _ in range(61):
        await engine.write(Append("busy", TEXT, b"x"))
    assert await asyncio.to_thread(tidied.wait, 30)
    async with asyncio.timeout(10):
        await asyncio.to_thread(stop_engines)


async def test_compaction_and_removal_do_not_collide(
    engine: Engine, tidied: Event, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(12):
        path = f"s/{number}"
        await engine.write(Create(path, TEXT))
        await asyncio.gather(*(engine.write(Append(path, TEXT, b"x")) for _ in range(5)))
        for _ in range(10):
            await engine.write(Append(path, TEXT, b"y"))
        await engine.write(Delete(path))
    await until_there_are(0, tidied)
    assert not caplog.records


@pytest.mark.skipif(connection.vendor != "sqlite", reason="there is one writer on SQLite only")
async def test_on_sqlite_compaction_leaves_the_row_cache_as_it_is(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    done = Event()
    real = compaction.merge

    def merge(*args: object) -> int:
        threads.add(current_thread())
        done.set()
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(compaction, "merge", merge)
    await engine.write(Create("busy", TEXT))
    for _ in range(61):
        await engine.write(Append("busy", TEXT, b"x"))
    assert await asyncio.to_thread(done.wait, 30)
    await engine.write(Append("busy", TEXT, b"x"))
    assert threads == {engine._writers[0]._thread}
    row_cache = engine._writers[0]._applier._row_cache
    assert row_cache is not None
    assert not row_cache.others_write


async def test_a_committer_does_other_work_between_two_batches(engine: Engine) -> None:
    committer = engine._writers[0]
    held, go_on, tails = Event(), Event(), []

    def hold() -> str:
        held.set()
        assert go_on.wait(30)
        return "held"

    def fail() -> None:
        tails.append(Stream.objects.get(path="a").tail_position)
        raise OperationalError("not now")

    await engine.write(Create("a", TEXT))
    first = asyncio.ensure_future(asyncio.to_thread(committer.between, hold))
    await asyncio.to_thread(held.wait, 30)
    before = engine.write(Append("a", TEXT, b"1"))
    await asyncio.sleep(0)  # it is handed over within a turn of the loop
    failing = ExclusiveJob(fail)
    committer._queue.put(failing)
    after = engine.write(Append("a", TEXT, b"2"))
    await asyncio.sleep(0)
    go_on.set()
    assert await first == "held"
    assert (await before).tail == 1  # type: ignore[union-attr]
    assert (await after).tail == 2  # type: ignore[union-attr]
    with pytest.raises(OperationalError, match="not now"):
        failing.result()
    assert tails == [1]
