"""A stream's operations are applied in the order in which they arrive, and the number of waiting ones is bounded."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from threading import Event, Thread
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction

from django_durable_streams.engine import Engine, committer, engine_for, lock_waits
from django_durable_streams.engine.engine import stop_engines
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import DurableStreamsError, ServiceUnavailable
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.runtime.connection import DedicatedConnection
from django_durable_streams.store.operations import Append, Appended, Create, Created, Delete, Done, Fork, Operation
from django_durable_streams.store.sql import sqlite_busy
from django_durable_streams.store.write import group_commit
from tests.engine.held import Holder, holder
from tests.overriding import override_streams

TEXT = "text/plain"
real_apply = group_commit.apply

in_rows = pytest.mark.skipif(connection.vendor == "sqlite", reason="its one lock is for all streams")


@pytest.fixture
def engine(engines: None) -> Engine:
    return engine_for()


@pytest.fixture
def other() -> Iterator[Holder]:
    with holder() as one:
        yield one


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite is found locked after milliseconds instead of a second."""
    monkeypatch.setattr(sqlite_busy, "RETRY_SECONDS", 0.02)


async def content_of(engine: Engine, path: str) -> bytes:
    view = await engine.read(path, Sentinel.START)
    return view.segment.data if view.segment is not None else b""


async def outcomes_of(engine: Engine, *operations: Operation) -> list[Any]:
    return await outcomes_when_done(*(engine.write(operation) for operation in operations))


async def outcomes_when_done(*waiting: Awaitable[Any]) -> list[Any]:
    """Return what becomes of operations, whatever the generations of their streams."""
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    return [replace(outcome, generation=0) if isinstance(outcome, Appended) else outcome for outcome in outcomes]


def numbered(number: int) -> Append:
    return Append("a", TEXT, b"%d" % number, producer=ProducerClaim("p", 0, number))


def in_sequence(number: int) -> Append:
    return Append("a", TEXT, b"%d" % number, seq=f"{number:03d}")


@pytest.mark.parametrize("make", [numbered, in_sequence], ids=["a producer's", "with a Stream-Seq"])
@pytest.mark.parametrize("apart", [0.0, 0.01, 0.05], ids=["at once", "soon", "later"])
async def test_operations_that_arrive_while_a_stream_is_locked_keep_their_order(
    engine: Engine, other: Holder, impatient: None, make: Any, apart: float
) -> None:
    await outcomes_of(engine, Create("a", TEXT), make(0))
    other.hold("a")
    waiting: list[Awaitable[Any]] = []
    for number in range(1, 9):
        waiting.append(engine.write(make(number)))
        await asyncio.sleep(apart)  # the time between them is what is tested
    other.release()
    outcomes = await asyncio.wait_for(outcomes_when_done(*waiting), 20)
    assert [getattr(outcome, "tail", outcome) for outcome in outcomes] == list(range(2, 10))
    assert await content_of(engine, "a") == b"012345678"


async def test_an_operation_that_arrives_as_the_lock_ends_comes_last(
    engine: Engine, other: Holder, impatient: None
) -> None:
    await outcomes_of(engine, Create("a", TEXT))
    expected = b""
    for write_lock in range(10):
        other.hold("a")
        first = engine.write(Append("a", TEXT, b"%d<" % write_lock))
        await asyncio.sleep(0.004 * write_lock)
        release = asyncio.create_task(asyncio.to_thread(other.release))
        second = engine.write(Append("a", TEXT, b">"))
        await asyncio.wait_for(asyncio.gather(first, second, release), 20)
        expected += b"%d<>" % write_lock
    assert await content_of(engine, "a") == expected


async def test_different_operations_of_a_held_stream_keep_their_order(
    engine: Engine, other: Holder, impatient: None
) -> None:
    await outcomes_of(engine, Create("a", TEXT), Append("a", TEXT, b"old"))
    other.hold("a")
    waiting = [
        engine.write(Append("a", TEXT, b"!", close=True)),
        engine.write(Append("a", TEXT, b"late")),
        engine.write(Delete("a")),
        engine.write(Create("a", TEXT, data=b"new")),
        engine.write(Append("a", TEXT, b"er")),
    ]
    done, _ = await asyncio.wait([asyncio.ensure_future(one) for one in waiting], timeout=0.2)
    assert not done
    other.release()
    closed, late, deleted, made, last = await asyncio.wait_for(outcomes_when_done(*waiting), 20)
    assert (closed, deleted, last) == (Appended(4, True), Done(), Appended(5, False))
    assert isinstance(late, DurableStreamsError)
    assert late.status == 409
    assert isinstance(made, Created)
    assert await content_of(engine, "a") == b"newer"


async def test_what_follows_the_fork_of_a_held_stream_waits_behind_it(
    engine: Engine, other: Holder, impatient: None
) -> None:
    await outcomes_of(engine, Create("a", TEXT, data=b"old"))
    other.hold("a")
    waiting = [engine.write(Create("b", None, fork=Fork("a"))), engine.write(Append("b", TEXT, b"own"))]
    done, _ = await asyncio.wait([asyncio.ensure_future(one) for one in waiting], timeout=0.2)
    assert not done
    other.release()
    fork, own = await asyncio.wait_for(outcomes_when_done(*waiting), 20)
    assert isinstance(fork, Created)
    assert own == Appended(6, False)
    assert await content_of(engine, "b") == b"oldown"


@in_rows
async def test_other_streams_go_on_while_some_are_held(engine: Engine, other: Holder) -> None:
    paths = [f"held{number}" for number in range(2 * lock_waits.PLACE_THREADS + 3)]
    await outcomes_of(engine, Create("free", TEXT), *(Create(path, TEXT) for path in paths))
    other.hold(*paths)
    waiting = [asyncio.ensure_future(engine.write(Append(path, TEXT, b"x"))) for path in paths for _ in range(3)]
    for number in range(20):
        assert (await asyncio.wait_for(outcomes_of(engine, Append("free", TEXT, b"x")), 5)) == [
            Appended(number + 1, False)
        ]
    assert not any(one.done() for one in waiting)
    other.release()
    outcomes = await asyncio.wait_for(outcomes_when_done(*waiting), 20)
    assert [outcome.tail for outcome in outcomes if isinstance(outcome, Appended)] == [1, 2, 3] * len(paths)


@in_rows
async def test_operations_behind_a_refused_operation_are_refused(
    engine: Engine, other: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcomes_of(engine, Create("a", TEXT))
    monkeypatch.setattr(lock_waits, "MAX_WAIT", 0.3)
    other.hold("a")
    first = asyncio.ensure_future(engine.write(Append("a", TEXT, b"1")))
    await asyncio.sleep(0.2)
    second = asyncio.ensure_future(engine.write(Append("a", TEXT, b"2")))
    outcomes = await asyncio.wait_for(asyncio.gather(first, second, return_exceptions=True), 10)
    assert [type(outcome) for outcome in outcomes] == [ServiceUnavailable] * 2
    other.release()
    assert await content_of(engine, "a") == b""
    assert (await outcomes_of(engine, Append("a", TEXT, b"3"))) == [Appended(1, False)]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the others have a lock for each stream")
async def test_a_database_that_stays_locked_is_given_up(
    engine: Engine, other: Holder, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcomes_of(engine, Create("a", TEXT))
    monkeypatch.setattr(committer, "MAX_DATABASE_LOCK_SECONDS", 0.1)
    other.hold()
    outcomes = await asyncio.wait_for(outcomes_of(engine, numbered(0), numbered(1)), 10)
    assert [type(outcome) for outcome in outcomes] == [ServiceUnavailable] * 2
    other.release()
    assert (await outcomes_of(engine, numbered(0))) == [Appended(1, False, False, 0, 0)]


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("error", [OperationalError("gone"), OperationalError(2013, "lost")])
async def test_operations_behind_a_failed_append_are_not_applied(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, number: int, error: Exception
) -> None:
    await outcomes_of(engine, Create("a", TEXT), Create("b", TEXT))

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if any(isinstance(operation, Append) and operation.data == b"poison" for operation in operations):
            raise error
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    appends = [Append("a", TEXT, b"poison" if place == number else b"%d" % place) for place in range(4)]
    *outcomes, other = await outcomes_of(engine, *appends, Append("b", TEXT, b"x"))
    assert [type(outcome) for outcome in outcomes] == [Appended] * number + [ServiceUnavailable] * (4 - number)
    assert other == Appended(1, False)
    assert await content_of(engine, "a") == b"0123"[:number]


@pytest.mark.parametrize("kind", ["bytes", "number"])
async def test_the_backlog_counts_operations_wherever_they_wait(
    engines: None, other: Holder, impatient: None, kind: str
) -> None:
    limits = {"QUEUE_BYTES": 1_000_000} if kind == "bytes" else {"QUEUE_SIZE": 10}
    with override_streams(**limits):
        engine = engine_for()
        await outcomes_of(engine, Create("a", TEXT))
        other.hold("a")
        waiting: list[asyncio.Future[Any]] = []
        refused = 0
        for _ in range(5):
            for _ in range(8):
                try:
                    waiting.append(asyncio.ensure_future(engine.write(Append("a", TEXT, b"x" * 100_000))))
                except ServiceUnavailable:
                    refused += 1
            await asyncio.sleep(0.05)  # until they wait for the row
        assert (len(waiting), refused) == (10, 30)
        other.release()
        outcomes = await asyncio.wait_for(outcomes_when_done(*waiting), 20)
        assert [outcome.tail for outcome in outcomes] == [100_000 * number for number in range(1, 11)]
        backlog = engine._writers[0]._backlog
        assert (backlog.tasks, backlog.bytes) == (0, 0)
        assert (await outcomes_of(engine, Append("a", TEXT, b"x"))) == [Appended(1_000_001, False)]


async def test_one_append_may_be_larger_than_the_backlog(engines: None) -> None:
    with override_streams(QUEUE_BYTES=10):
        engine = engine_for()
        await outcomes_of(engine, Create("a", TEXT))
        assert (await outcomes_of(engine, Append("a", TEXT, b"x" * 100))) == [Appended(100, False)]
        first, second = engine.write(Append("a", TEXT, b"x" * 100)), None
        with pytest.raises(ServiceUnavailable):
            second = engine.write(Append("a", TEXT, b"x"))
        assert second is None
        assert (await outcomes_when_done(first)) == [Appended(200, False)]


@pytest.mark.parametrize("fails", [RuntimeError("a bug"), OperationalError("gone")])
async def test_failed_operations_do_not_count_as_waiting(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, fails: Exception
) -> None:
    def apply(*arguments: Any, **options: Any) -> Any:
        raise fails

    monkeypatch.setattr(group_commit, "apply", apply)
    await outcomes_of(engine, *(Create(f"a{number}", TEXT, data=b"x") for number in range(5)))
    backlog = engine._writers[0]._backlog
    assert (backlog.tasks, backlog.bytes) == (0, 0)


@pytest.fixture
def stream(transactional_db: None) -> Stream:
    return Stream.objects.create(path="a", content_type=TEXT)


@in_rows
async def test_two_transactions_that_alternate_leave_a_place_to_appends(stream: Stream, engine: Engine) -> None:
    held_seconds = 0.1
    stop = Event()

    def work() -> None:
        try:
            while not stop.is_set():
                with transaction.atomic():
                    stream.append("work")
                    time.sleep(held_seconds)  # a transaction that works
        finally:
            connection.close()

    workers = [Thread(target=work) for _ in range(2)]
    for worker in workers:
        worker.start()
    took = []
    try:
        for _ in range(20):
            began = time.monotonic()
            await asyncio.wait_for(engine.write(Append("a", TEXT, b"x")), 20)
            took.append(time.monotonic() - began)
    finally:
        stop.set()
        for worker in workers:
            await asyncio.to_thread(worker.join)
    # Fair is a turn after each of the two; on a busy machine it may be some more.
    assert statistics.median(took) < 4 * held_seconds
    assert max(took) < 20 * held_seconds


@in_rows
async def test_the_end_does_not_wait_for_a_row_that_a_thread_is_about_to_wait_for(
    engine: Engine, other: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is made while the engine ends, so it cannot be cut yet."""
    await outcomes_of(engine, Create("a", TEXT))
    waits = engine._writer(numbered(0))._lock_waits
    connects, ends = Event(), Event()
    open_connection = DedicatedConnection.open

    def open_late(self: DedicatedConnection) -> bool:
        if self in [applier.connection for applier in waits._appliers]:
            connects.set()
            assert ends.wait(30)
        return open_connection(self)

    def cut(self: DedicatedConnection) -> None:
        cut_connection(self)
        if self in [applier.connection for applier in waits._appliers]:
            ends.set()

    cut_connection = DedicatedConnection.cut
    monkeypatch.setattr(DedicatedConnection, "open", open_late)
    monkeypatch.setattr(DedicatedConnection, "cut", cut)
    other.hold("a")
    waiting = engine.write(numbered(0))
    assert await asyncio.to_thread(connects.wait, 30)
    await asyncio.wait_for(asyncio.to_thread(stop_engines), 15)
    assert isinstance((await outcomes_when_done(waiting))[0], ServiceUnavailable)
    other.release()


@in_rows
async def test_without_a_thread_that_can_wait_operations_are_refused(
    engine: Engine, other: Holder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    await outcomes_of(engine, Create("a", TEXT), Create("b", TEXT))
    other.hold("a")
    with monkeypatch.context() as patch:
        patch.setattr(Thread, "start", refuse)
        outcomes = await asyncio.wait_for(outcomes_of(engine, numbered(0), Append("b", TEXT, b"x")), 10)
    assert isinstance(outcomes[0], ServiceUnavailable)
    assert outcomes[1] == Appended(1, False)
    other.release()
    assert (await asyncio.wait_for(outcomes_of(engine, numbered(0)), 10)) == [Appended(1, False, False, 0, 0)]
