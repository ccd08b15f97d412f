"""Group commit, and the isolation of an operation that makes the database fail."""

import asyncio
from collections.abc import Sequence
from threading import Event, Thread
from typing import Any
from unittest.mock import ANY

import pytest
from django.db import DataError, Error, IntegrityError, InternalError, OperationalError, connections

from django_durable_streams.api import transactions
from django_durable_streams.engine import Engine, committer_context, engine_for
from django_durable_streams.engine.live_reader import LiveReader
from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.runtime import results
from django_durable_streams.runtime.batch_worker import PREPARE_FROM_TASKS
from django_durable_streams.runtime.results import Reply
from django_durable_streams.runtime.write_lock import WriteLock
from django_durable_streams.store.operations import Append, Appended, Commit, Create, Operation
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
    view = await engine.read(path, Sentinel.START)
    return view.segment.data if view.segment is not None else b""


async def test_waiting_operations_are_committed_together(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await engine.write(Create("a", TEXT))
    sizes = break_database(monkeypatch, DataError(), "nowhere")
    await outcomes_of(engine, *(Append("a", TEXT, b"%d," % number) for number in range(200)))
    assert sizes == [200]
    assert await content_of(engine, "a") == b"".join(b"%d," % number for number in range(200))


async def test_a_result_does_not_wait_for_the_locks_of_the_next_batch(
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


async def all_told(engine: Engine) -> None:
    """Wait until nothing of earlier commits is left to announce, which is told behind their answers."""
    await asyncio.to_thread(engine._writers[0].wait_for_announcements)


class Noted:
    """A callback that notes its call, in the committer's thread."""

    def __init__(self, order: list[str], text: str) -> None:
        self._order, self._text = order, text
        self.is_called = Event()

    def prepare(self, value: object) -> None: ...

    def resolve(self, value: object) -> None:
        self._order.append(self._text)
        self.is_called.set()


async def test_news_come_behind_the_answers_while_more_operations_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcomes_of(engine, Create("a", TEXT), Create("b", TEXT))
    await all_told(engine)
    begun, queued, are_told = Event(), Event(), Event()
    order: list[str] = []

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if operations[0].path == "a":
            begun.set()
            assert queued.wait(30)
        return real_apply(operations, using, **options)

    def announce(commits: list[Commit]) -> None:
        order.append(f"news of {commits[0].path}")
        if commits[0].path == "b":
            are_told.set()

    monkeypatch.setattr(group_commit, "apply", apply)
    monkeypatch.setattr(engine._writers[0]._held_commits, "_on_commit", announce)
    engine._put(Append("a", TEXT, b"x"), Noted(order, "answer a"))
    assert await asyncio.to_thread(begun.wait, 30)
    engine._put(Append("b", TEXT, b"x"), Noted(order, "answer b"))
    queued.set()
    assert await asyncio.to_thread(are_told.wait, 30)
    assert order == ["answer a", "news of a", "answer b", "news of b"]


async def test_the_end_of_a_process_waits_for_news_of_answered_operations(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.write(Create("a", TEXT))
    await all_told(engine)
    order: list[str] = []
    ending = Event()
    held_commits = engine._writers[0]._held_commits
    real_wait = held_commits.wait

    def wait(seconds: float) -> None:
        ending.set()
        real_wait(30)

    def announce(commits: list[Commit]) -> None:
        assert ending.wait(30)
        order.append("news")

    monkeypatch.setattr(held_commits, "wait", wait)
    monkeypatch.setattr(held_commits, "_on_commit", announce)
    monkeypatch.setattr(engine._signals, "stop", lambda: order.append("end"))
    answer = Noted(order, "answer")
    engine._put(Append("a", TEXT, b"x"), answer)
    assert await asyncio.to_thread(answer.is_called.wait, 30)
    await asyncio.to_thread(engine.send_pending)
    monkeypatch.undo()
    assert order == ["answer", "news", "end"]


def test_results_are_delivered_before_a_wait_for_the_write_lock() -> None:
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


async def test_other_connections_may_write_to_the_same_streams(engine: Engine) -> None:
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
    # The committer itself has applied them all: the lock wait queue is for locked rows only.
    assert not engine._writers[0]._lock_waits._threads


async def test_a_poisoned_operation_fails_alone(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await outcomes_of(engine, Create("good", TEXT), Create("poison", TEXT))
    break_database(monkeypatch, DataError("no"), "poison")
    outcomes = await outcomes_of(engine, *(Append(path, TEXT, b"x") for path in ("good", "poison", "good")))
    assert isinstance(outcomes[1], DurableStreamsError)
    assert outcomes[1].status == 400
    assert [outcomes[0].tail, outcomes[2].tail] == [1, 2]
    monkeypatch.undo()
    assert (await content_of(engine, "good"), await content_of(engine, "poison")) == (b"xx", b"")


async def test_a_failing_database_is_tried_a_few_times_for_a_batch(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.write(Create("a", TEXT))
    sizes = break_database(monkeypatch, OperationalError("gone"))
    outcomes = await outcomes_of(engine, *(Append(f"a{number}", TEXT, b"x") for number in range(100)))
    assert {outcome.status for outcome in outcomes} == {503}
    assert all((b"retry-after", b"1") in outcome.headers for outcome in outcomes)
    assert sizes == [100, 100, 1, 1, 1]
    monkeypatch.undo()
    assert await content_of(engine, "a") == b""
    assert (await engine.write(Append("a", TEXT, b"y"))).tail == 1  # type: ignore[union-attr]


async def test_a_commit_with_an_unknown_outcome_is_not_tried_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await engine.write(Create("a", TEXT))
    calls = []

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        calls.append(len(operations))
        real_apply(operations, using, **options)
        raise group_commit.CommitUncertain

    monkeypatch.setattr(group_commit, "apply", apply)
    (outcome,) = await outcomes_of(engine, Append("a", TEXT, b"x"))
    assert (outcome.status, calls) == (503, [1])
    monkeypatch.undo()
    assert await content_of(engine, "a") == b"x"


async def test_a_bug_does_not_end_the_committer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def apply(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("a bug")

    monkeypatch.setattr(group_commit, "apply", apply)
    (outcome,) = await outcomes_of(engine, Create("a", TEXT))
    assert outcome.status == 503
    assert "a bug" in caplog.text
    monkeypatch.undo()
    assert (await engine.write(Create("a", TEXT))).created  # type: ignore[union-attr]


async def test_an_operation_is_applied_although_its_caller_has_left(engine: Engine) -> None:
    await engine.write(Create("a", TEXT))
    given_up = asyncio.ensure_future(engine.write(Append("a", TEXT, b"x")))
    after = engine.write(Append("a", TEXT, b"y"))
    given_up.cancel()
    assert (await after).tail == 2  # type: ignore[union-attr]


async def test_the_outcome_of_a_refused_commit_is_not_unknown(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    await outcomes_of(engine, Create("good", TEXT), Create("poison", TEXT))

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if any(operation.path == "poison" for operation in operations):
            raise group_commit.CommitUncertain from IntegrityError("a constraint that is checked at the end")
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    good, poison = await outcomes_of(engine, Append("good", TEXT, b"x"), Append("poison", TEXT, b"x"))
    assert (good.tail, poison.status) == (1, 400)


async def test_a_row_that_another_process_has_just_created_is_read_in_the_next_attempt(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = [IntegrityError("there is one"), IntegrityError("and another one")]

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        if errors:
            raise errors.pop()
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    assert (await engine.write(Create("a", TEXT))).created  # type: ignore[union-attr]


async def test_a_batch_with_such_a_row_is_not_taken_apart(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its operations would have a commit of its own, as often as others create the same streams."""
    errors = [IntegrityError("there is one")]
    sizes: list[int] = []

    def apply(operations: Sequence[Operation], using: str, **options: Any) -> Any:
        sizes.append(len(operations))
        if errors:
            raise errors.pop()
        return real_apply(operations, using, **options)

    monkeypatch.setattr(group_commit, "apply", apply)
    outcomes = await outcomes_of(engine, Create("a", TEXT), *(Append("a", TEXT, b"x") for _ in range(49)))
    assert [outcome.tail for outcome in outcomes] == [*range(50)]
    assert sizes == [50, 50]


@pytest.mark.parametrize("error", [InternalError("read-only"), OperationalError("no space left")])
async def test_a_failure_of_the_database_is_a_503_and_not_a_400(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Error
) -> None:
    break_database(monkeypatch, error)
    (outcome,) = await outcomes_of(engine, Create("a", TEXT))
    assert outcome.status == 503
    assert (b"retry-after", b"1") in outcome.headers


async def test_operations_that_are_applied_one_by_one_keep_the_order_of_their_stream(
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
    outcomes = await outcomes_of(engine, *(Append("a", TEXT, b"%d" % number) for number in range(3)))
    assert [outcome.tail for outcome in outcomes] == [1, 2, 3]
    assert await content_of(engine, "a") == b"012"


async def test_a_callback_that_fails_takes_no_result_from_others(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(reply: Reply) -> None:
        raise RuntimeError("a bug")

    first, second = engine.write(Create("a", TEXT)), engine.write(Create("b", TEXT))
    assert isinstance(first, Reply)
    first.then = fail
    assert (await second).created  # type: ignore[union-attr]
    assert "a bug" in caplog.text


async def order_of(engine: Engine, monkeypatch: pytest.MonkeyPatch, appends: int) -> list[str]:
    """Append to the stream "a". Return the order of the answers, of the turn that is waited for, and of the news."""
    order: list[str] = []
    is_told = Event()

    def wait_for_turn(loop: asyncio.AbstractEventLoop, seconds: float) -> bool:
        assert results.wait_for_turn(loop, 30)
        order.append("turn")
        return True

    def announce(commits: list[Commit]) -> None:
        order.append("news")
        is_told.set()

    await all_told(engine)
    monkeypatch.setattr(committer_context, "wait_for_turn", wait_for_turn)
    monkeypatch.setattr(engine._writers[0]._held_commits, "_on_commit", announce)
    for _ in range(appends):
        engine.post(Append("a", TEXT, b"x"), Noted(order, "answer"))
    assert await asyncio.to_thread(is_told.wait, 30)
    return order


async def test_news_for_readers_come_behind_the_turn_that_answers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await outcomes_of(engine, Create("a", TEXT))
    monkeypatch.setattr(engine._writers[0].context, "is_watched", lambda stream_id, by: True)
    assert await order_of(engine, monkeypatch, 1) == ["answer", "turn", "news"]


@pytest.mark.parametrize(("appends", "is_watched"), [(1, False), (PREPARE_FROM_TASKS, True)])
async def test_the_committer_waits_for_no_turn_without_readers_or_for_many_answers(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, appends: int, is_watched: bool
) -> None:
    await outcomes_of(engine, Create("a", TEXT))
    monkeypatch.setattr(engine._writers[0].context, "is_watched", lambda stream_id, by: is_watched)
    order = await order_of(engine, monkeypatch, appends)
    assert "turn" not in order
    assert order.count("news") == 1


async def test_the_engine_says_which_streams_have_readers(engine: Engine) -> None:
    await outcomes_of(engine, Create("a", TEXT))
    is_watched = engine._writers[0].context.is_watched
    info = (await engine.read("a", Sentinel.NOW)).info
    hub = engine.hub()
    readers = [LiveReader(hub) for _ in range(3)]
    for count, reader in enumerate(readers):
        assert not is_watched(info.id, count + 1)
        watch = await hub.join(info, reader)
        assert is_watched(info.id, count + 1)
    assert not is_watched(info.id + 1, 1)
    for reader in readers:
        hub.leave(watch, reader)
