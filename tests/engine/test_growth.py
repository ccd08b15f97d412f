"""Which chunks are merged when: counted, remembered, and in the end few in the database."""

import asyncio
from collections.abc import Callable
from threading import Event, current_thread

import pytest
from django.db import OperationalError, connection
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.engine import Engine, engine_for, growth
from django_durable_streams.engine.growth import GrowthLog
from django_durable_streams.engine.lane import Errand
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.store import compaction, removal
from django_durable_streams.store.operations import Append, Commit, Create, Delete

TEXT = "text/plain"


def commit(stream_id: int, start: int, *appends: bytes, **options: bool) -> Commit:
    ends = [start + len(b"".join(appends[: number + 1])) for number in range(len(appends))]
    return Commit(
        stream_id, f"s/{stream_id}", TEXT, start, ends[-1], appends=appends, ends=ends, **({"closed": False} | options)
    )


@pytest.fixture(params=[True, False], ids=["remembers", "counts"])
def log(request: pytest.FixtureRequest) -> GrowthLog:
    return GrowthLog(remembers=request.param)


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> GrowthLog:
    """One that has become busy, and is so with few commits."""
    monkeypatch.setattr(growth, "TOGETHER", 20)
    return busy_log()


def busy_log() -> GrowthLog:
    log = GrowthLog(remembers=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(growth, "BACKLOG", 0)
        log.count([])
    return log


def test_a_stream_is_merged_after_many_commits_and_once(log: GrowthLog) -> None:
    due = [log.count([commit(1, number, b"x"), commit(2, number, b"x")][: 1 + number % 2]) for number in range(256)]
    assert due == [False] * 255 + [True]
    assert log.take_runs() == []
    assert log.take_crowded() == {1}
    assert log.take_crowded() == set()
    assert not log.count([commit(1, 256, b"x")])


def test_a_closed_stream_and_a_quiet_one_are_merged_after_several(
    log: GrowthLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        assert not log.count([commit(1, number, b"x"), commit(2, number, b"x")])
    assert not log.count([commit(3, 0, b"x", closed=True)])
    assert log.count([commit(1, 20, b"x", closed=True)])
    assert log.take_crowded() == {1}
    monkeypatch.setattr(growth, "QUIET_SECONDS", 0.0)
    assert log.take_crowded() == {2}


def test_what_a_read_has_found_is_merged_and_what_was_removed_is_not(log: GrowthLog) -> None:
    log.note({5})
    for number in range(30):
        log.count([commit(1, number, b"x")])
    log.count([Commit(1, "s/1", TEXT, 30, 30, False, removed=True)])
    assert log.take_crowded() == {5}


def test_only_a_busy_process_remembers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "BACKLOG", 100)
    monkeypatch.setattr(growth, "TOGETHER", 20)
    log = GrowthLog(remembers=True)
    for number in range(25):
        assert not log.count([commit(stream, number, b"x") for stream in range(4)])
    assert log._bytes == 0
    for number in range(25, 30):
        due = log.count([commit(stream, number, b"x") for stream in range(4)])
    assert due
    assert [(run.start, run.end) for run in log.take_runs()] == [(25, 30)] * 4
    log.count([commit(stream, 30, b"x") for stream in range(4)])
    assert log._bytes > 0
    monkeypatch.setattr(growth, "QUIET_SECONDS", 0.0)
    assert log.take_runs() == []
    assert log._bytes == 0
    assert log.take_crowded() == set(range(4))
    assert not log.count([commit(stream, 31, b"x") for stream in range(4)])
    assert log._bytes == 0


def test_many_streams_at_once_do_not_fill_the_memory(log: GrowthLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MAX_COUNTED", 10)
    log.count([commit(number, 0, b"x") for number in range(50)])
    assert sorted(log._streams) == list(range(40, 50))
    assert log._bytes == sum(growth._memory(one.run.start, one.run.ends) for one in log._streams.values() if one.run)


def test_what_many_streams_get_is_put_together_from_memory(remembering: GrowthLog) -> None:
    for number in range(5):
        due = remembering.count([commit(stream, 2 * number, b"a", b"b") for stream in (4, 3, 2, 1)])
    assert due
    runs = remembering.take_runs()
    assert [run.stream_id for run in runs] == [1, 2, 3, 4]
    assert (runs[0].start, runs[0].end, runs[0].chunks) == (0, 10, 5)
    assert b"".join(runs[0].appends) == b"ab" * 5
    assert runs[0].ends == list(range(1, 11))
    assert remembering.take_runs() == []
    remembering.put_together(runs)
    assert not remembering.count([commit(1, 10, b"a")])
    assert remembering._streams[1].chunks == 2


def test_what_was_put_together_often_is_merged_in_turn(remembering: GrowthLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MANY_RUNS", 3)
    for number in range(60):
        if remembering.count([commit(1, number, b"a")]):
            remembering.put_together(remembering.take_runs())
    assert remembering.take_crowded() == {1}


def test_a_run_ends_where_somebody_else_has_appended_and_where_a_commit_is_large(remembering: GrowthLog) -> None:
    remembering.count([commit(1, number, b"x") for number in range(6)])
    remembering.count([commit(1, number, b"x") for number in range(7, 12)])  # another process has written the seventh
    remembering.count([commit(1, 12, b"x" * (growth.SMALL_BYTES + 1))])
    remembering.count([commit(1, 13 + growth.SMALL_BYTES + number, b"x") for number in range(3)])
    remembering.count([commit(2, number, b"x") for number in range(6)])
    # What is older is left to be read, and three chunks are too few.
    assert [(run.stream_id, run.start) for run in remembering.take_runs()] == [(2, 0)]


def test_what_is_remembered_has_a_limit(remembering: GrowthLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "MAX_BYTES", 4000)
    monkeypatch.setattr(growth, "TOGETHER", 10**9)
    assert remembering.count([commit(number, 0, b"x" * 100) for number in range(30)])
    assert 2000 <= remembering._bytes <= 4000 + 100 + growth.APPEND_BYTES
    # Streams with one commit each are not worth it.
    assert remembering.take_runs() == []
    assert remembering._bytes == 0
    assert not remembering.count([commit(1, 100, b"x" * 100)])


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 30, growth.SMALL_BYTES + 1]), st.booleans())),
        max_size=30,
    )
)
def test_runs_are_what_was_committed(batches: list[list[tuple[int, int, bool]]]) -> None:
    log = busy_log()
    committed = dict.fromkeys(range(1, 5), b"")
    for batch in batches:
        commits = []
        for stream_id, size, others in batch:
            if others:
                committed[stream_id] += b"?" * 3
            start = len(committed[stream_id])
            data = bytes([start % 251]) * size
            commits.append(commit(stream_id, start, data))
            committed[stream_id] += data
        log.count(commits)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(growth, "TOGETHER", 9)
            for run in log.take_runs():
                assert b"".join(run.appends) == committed[run.stream_id][run.start : run.end]
                assert run.ends[-1] == run.end
                assert len(run.ends) == len(run.appends) == run.chunks >= growth.FEW
    assert log._bytes == sum(growth._memory(one.run.start, one.run.ends) for one in log._streams.values() if one.run)


@pytest.fixture
def engine(engines: None, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(growth, "BACKLOG", 40)
    monkeypatch.setattr(growth, "TOGETHER", 100)
    monkeypatch.setattr(growth, "MANY", 60)
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

    for module, name in ((compaction, "replace"), (compaction, "merge"), (removal, "purge")):
        monkeypatch.setattr(module, name, telling(getattr(module, name)))
    return event


async def until_there_are(count: int, tidied: Event) -> None:
    """Wait until there are no more chunks than that."""
    while True:
        tidied.clear()
        if await Chunk.objects.acount() <= count:
            return
        assert await asyncio.to_thread(tidied.wait, 30)


async def test_streams_that_grow_together_are_few_chunks_soon(engine: Engine, tidied: Event) -> None:
    paths = [f"s/{number}" for number in range(20)]
    await asyncio.gather(*(engine.write(Create(path, TEXT)) for path in paths))
    for number in range(50):
        await asyncio.gather(*(engine.write(Append(path, TEXT, b"%d;" % number)) for path in paths))
    expected = b"".join(b"%d;" % number for number in range(50))
    await until_there_are(20 * 20, tidied)
    for path in paths:
        view = await engine.look(path, Sentinel.START)
        assert view.segment is not None
        assert view.segment.data == expected
        assert len(view.segment.ends) == 50


async def test_a_busy_stream_alone_is_few_chunks_soon(engine: Engine, tidied: Event) -> None:
    await engine.write(Create("busy", TEXT))
    for _ in range(130):
        await engine.write(Append("busy", TEXT, b"x" * 10))
    await until_there_are(30, tidied)
    view = await engine.look("busy", Sentinel.START)
    assert view.segment is not None
    assert list(view.segment.ends) == list(range(10, 1310, 10))


async def test_merging_and_removing_do_not_meet(
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
async def test_on_sqlite_merging_leaves_the_lane_what_it_knows(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert engine._writers[0]._applier._known.is_alone


async def test_a_lane_does_something_else_between_two_batches(engine: Engine) -> None:
    lane = engine._writers[0]
    held, go_on, tails = Event(), Event(), []

    def hold() -> str:
        held.set()
        assert go_on.wait(30)
        return "held"

    def errand() -> None:
        tails.append(Stream.objects.get(path="a").tail_position)
        raise OperationalError("not now")

    await engine.write(Create("a", TEXT))
    first = asyncio.ensure_future(asyncio.to_thread(lane.between, hold))
    await asyncio.to_thread(held.wait, 30)
    before = engine.write(Append("a", TEXT, b"1"))
    await asyncio.sleep(0)  # it is handed over within a turn of the loop
    failing = Errand(errand)
    lane._queue.put(failing)
    after = engine.write(Append("a", TEXT, b"2"))
    await asyncio.sleep(0)
    go_on.set()
    assert await first == "held"
    assert (await before).tail == 1  # type: ignore[union-attr]
    assert (await after).tail == 2  # type: ignore[union-attr]
    with pytest.raises(OperationalError, match="not now"):
        failing.result()
    assert tails == [1]
