"""Group commit: what happens to the others when one of them makes the database fail."""

import asyncio
from collections.abc import Sequence
from threading import Event, Thread
from typing import Any
from unittest.mock import ANY

import pytest
from django.db import DataError, Error, IntegrityError, InternalError, OperationalError, connections

from django_durable_streams.api import transactions
from django_durable_streams.engine import Engine, engine_for
from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.runtime.results import Reply
from django_durable_streams.runtime.write_lock import WriteLock
from django_durable_streams.store.operations import Append, Appended, Create, Operation
from django_durable_streams.store.write import group_commit

TEXT = "text/plain"
real_apply = group_commit.apply


@pytest.fixture
def engine(engines: None) -> Engine:
    return engine_for()


def break_database(monkeypatch: pytest.MonkeyPatch, error: Error, path: str | None = None) -> list[int]:
    """Make batches fail that have a path among theirs, or all; return the sizes of all that are tried."""
    sizes: list[int] = []

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        sizes.append(len(operations))
        if path is None or any(operation.path == path for operation in operations):
            raise error
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    return sizes


async def outcomes_of(engine: Engine, *operations: Operation) -> list[Any]:
    return await asyncio.gather(*(engine.write(operation) for operation in operations), return_exceptions=True)


async def content_of(engine: Engine, path: str) -> bytes:
    view = await engine.look(path, Sentinel.START)
    return view.segment.data if view.segment is not None else b""


async def test_what_waits_is_committed_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.write(Create("a", TEXT))
    sizes = break_database(monkeypatch, DataError(), "nowhere")
    await outcomes_of(engine, *(Append("a", TEXT, b"%d," % number) for number in range(200)))
    assert sizes == [200]
    assert await content_of(engine, "a") == b"".join(b"%d," % number for number in range(200))


async def test_an_answer_does_not_wait_for_what_the_next_batch_waits_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcomes_of(engine, Create("a", TEXT), Create("b", TEXT))
    begun, queued, may_go_on = Event(), Event(), Event()

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if operations[0].path == "a":
            begun.set()
            assert queued.wait(30)
        else:
            options["context"].before_wait()
            assert may_go_on.wait(30)
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    first = asyncio.ensure_future(engine.write(Append("a", TEXT, b"x")))
    await asyncio.to_thread(begun.wait, 30)
    second = asyncio.ensure_future(engine.write(Append("b", TEXT, b"x")))
    await asyncio.sleep(0)  # until it is handed over
    await asyncio.sleep(0)
    queued.set()
    assert (await asyncio.wait_for(first, 30)) == Appended(1, False, generation=ANY)
    assert not second.done()
    may_go_on.set()
    assert (await asyncio.wait_for(second, 30)) == Appended(1, False, generation=ANY)


def test_who_waits_for_a_turn_is_told_before() -> None:
    write_lock, told = WriteLock(is_one=True), Event()

    def take() -> None:
        with write_lock.hold(told.set):
            pass

    with write_lock.hold(told.set):
        assert not told.is_set()
        waiting = Thread(target=take)
        waiting.start()
        assert told.wait(30)
        assert waiting.is_alive()
    waiting.join(30)
    assert not waiting.is_alive()


async def test_others_may_write_to_the_same_streams(engine: Engine) -> None:
    def write_elsewhere(path: str, data: bytes) -> None:
        transactions.apply(Append(path, TEXT, data), "default")
        connections["default"].close()

    await outcomes_of(engine, Create("a", TEXT), Create("b", TEXT))
    expected = {"a": b"", "b": b""}
    for number in range(30):
        data = b"%d," % number
        if number % 3 == 2:
            await asyncio.to_thread(write_elsewhere, "a", data)
            expected["a"] += data
        written = await outcomes_of(engine, *(Append(path, TEXT, data) for path in "aba"))
        assert all(isinstance(outcome, Appended) for outcome in written), written
        expected["a"] += 2 * data
        expected["b"] += data
    assert {path: await content_of(engine, path) for path in expected} == expected
    # The lane itself has done them all: the lock wait queue is for rows that somebody holds.
    assert not engine._writers[0]._lock_waits._threads


async def test_a_poisoned_operation_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await outcomes_of(engine, Create("good", TEXT), Create("poison", TEXT))
    break_database(monkeypatch, DataError("no"), "poison")
    found = await outcomes_of(engine, *(Append(path, TEXT, b"x") for path in ("good", "poison", "good")))
    assert isinstance(found[1], DurableStreamsError)
    assert found[1].status == 400
    assert [found[0].tail, found[2].tail] == [1, 2]
    monkeypatch.undo()
    assert (await content_of(engine, "good"), await content_of(engine, "poison")) == (b"xx", b"")


async def test_a_failing_database_is_asked_a_few_times_and_not_once_for_each(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.write(Create("a", TEXT))
    sizes = break_database(monkeypatch, OperationalError("gone"))
    found = await outcomes_of(engine, *(Append(f"a{number}", TEXT, b"x") for number in range(100)))
    assert {outcome.status for outcome in found} == {503}
    assert all((b"retry-after", b"1") in outcome.headers for outcome in found)
    assert sizes == [100, 100, 1, 1, 1]
    monkeypatch.undo()
    assert await content_of(engine, "a") == b""
    assert (await engine.write(Append("a", TEXT, b"y"))).tail == 1  # type: ignore[union-attr]


async def test_a_commit_without_an_answer_is_not_tried_again(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.write(Create("a", TEXT))
    calls = []

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        calls.append(len(operations))
        real_apply(operations, using, **options)
        raise group_commit.CommitUncertain

    monkeypatch.setattr(group_commit, "apply", apply)
    (found,) = await outcomes_of(engine, Append("a", TEXT, b"x"))
    assert (found.status, calls) == (503, [1])
    monkeypatch.undo()
    assert await content_of(engine, "a") == b"x"


async def test_a_bug_does_not_end_the_lane(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def apply(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(group_commit, "apply", apply)
    (found,) = await outcomes_of(engine, Create("a", TEXT))
    assert found.status == 503
    assert "a bug" in caplog.text
    monkeypatch.undo()
    assert (await engine.write(Create("a", TEXT))).created  # type: ignore[union-attr]


async def test_a_request_that_is_given_up_is_done_all_the_same(engine: Engine) -> None:
    await engine.write(Create("a", TEXT))
    given_up = asyncio.ensure_future(engine.write(Append("a", TEXT, b"x")))
    after = engine.write(Append("a", TEXT, b"y"))
    given_up.cancel()
    assert (await after).tail == 2  # type: ignore[union-attr]


async def test_a_commit_that_the_database_refuses_is_no_uncertain_one(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcomes_of(engine, Create("good", TEXT), Create("poison", TEXT))

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if any(operation.path == "poison" for operation in operations):
            raise group_commit.CommitUncertain from IntegrityError("a constraint that is checked at the end")
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    good, poison = await outcomes_of(engine, Append("good", TEXT, b"x"), Append("poison", TEXT, b"x"))
    assert (good.tail, poison.status) == (1, 400)


async def test_a_row_that_somebody_else_has_just_made_is_found_the_next_time(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [IntegrityError("there is one"), IntegrityError("and another one")]

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    assert (await engine.write(Create("a", TEXT))).created  # type: ignore[union-attr]


@pytest.mark.parametrize("error", [InternalError("read-only"), OperationalError("no space left")])
async def test_a_state_of_the_database_is_not_held_against_the_request(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Error
) -> None:
    break_database(monkeypatch, error)
    (found,) = await outcomes_of(engine, Create("a", TEXT))
    assert found.status == 503
    assert (b"retry-after", b"1") in found.headers


async def test_what_is_tried_one_by_one_keeps_the_order_of_its_stream(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.write(Create("a", TEXT))
    busy = OperationalError(1213, "deadlock")
    errors = iter([busy, busy])

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if (error := next(errors, None)) is not None:
            raise error
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    # As if the database had locks for rows: SQLite itself is locked as a whole.
    monkeypatch.setattr(connections["default"].features.__class__, "has_select_for_update", True)
    found = await outcomes_of(engine, *(Append("a", TEXT, b"%d" % number) for number in range(3)))
    assert [outcome.tail for outcome in found] == [1, 2, 3]
    assert await content_of(engine, "a") == b"012"


async def test_what_an_answer_sets_off_may_fail_and_the_others_have_theirs(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(reply: Reply) -> None:
        raise RuntimeError("a bug")

    first, second = engine.write(Create("a", TEXT)), engine.write(Create("b", TEXT))
    assert isinstance(first, Reply)
    first.then = fail
    assert (await second).created  # type: ignore[union-attr]
    assert "a bug" in caplog.text
