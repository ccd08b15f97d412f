"""The housekeeping thread: every task gets its steps, however busy other tasks are and however they fail."""

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import timedelta
from threading import Event, Semaphore
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, ProgrammingError
from django.utils import timezone

from django_durable_streams.engine import Engine, compaction_tracker, engine_for, housekeeping, housekeeping_tasks
from django_durable_streams.engine.housekeeping import _Schedule
from django_durable_streams.engine.housekeeping_tasks import (
    CompactionTask,
    ExpiryTask,
    FlushTask,
    HousekeepingTask,
    PurgeTask,
    RemovalTask,
)
from django_durable_streams.engine.numbers import TaskNumbers
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.runtime import configuration_errors
from django_durable_streams.signals import stream_expired
from django_durable_streams.store.operations import Append, Create, Delete
from django_durable_streams.store.upkeep import removal

TEXT = "text/plain"


class Heard:
    """What signals tell of streams that have expired."""

    def __init__(self) -> None:
        self.paths: set[str] = set()
        self.event = Event()

    def __call__(self, path: str, **kwargs: object) -> None:
        self.paths.add(path)
        self.event.set()


@pytest.fixture
def engine(engines: None, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(compaction_tracker, "COMPACT_AFTER_CHUNKS", 60)
    return engine_for()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so in the database, which tells nobody."""

    def wait() -> None:
        while not condition():
            time.sleep(0.02)

    await sync_to_async(wait)()


async def everything_goes_on(engine: Engine) -> None:
    """See that streams expire, are merged and, but for what is to be purged, come to their ends."""
    heard = Heard()
    stream_expired.connect(heard)
    try:
        await engine.write(Create("ends", TEXT, expires_at=timezone.now() + timedelta(seconds=0.1)))
        await engine.write(Create("many chunks", TEXT))
        for _ in range(70):
            await engine.write(Append("many chunks", TEXT, b"x"))
        assert await asyncio.to_thread(heard.event.wait, 20)
        await until(lambda: Chunk.objects.filter(stream__path="many chunks").count() < 40)
    finally:
        stream_expired.disconnect(heard)


async def test_a_long_purge_delays_no_other_task(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = []

    def purge(using: str, ids: object) -> bool:
        turns.append(ids)
        return True  # there is more

    monkeypatch.setattr(removal, "purge_data", purge)
    await engine.write(Create("removed", TEXT))
    await engine.write(Delete("removed"))
    await until(lambda: bool(turns))
    await everything_goes_on(engine)
    before = len(turns)
    await until(lambda: len(turns) > before)


DUTIES = (ExpiryTask, RemovalTask, FlushTask, CompactionTask, PurgeTask)


@pytest.mark.parametrize("failing", [RemovalTask, FlushTask, PurgeTask])
@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, asyncio.CancelledError])
async def test_a_task_that_fails_stops_no_other_task(
    failing: type[HousekeepingTask],
    kind: type[BaseException],
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def step(self: HousekeepingTask) -> None:
        raise kind("all of it")

    monkeypatch.setattr(housekeeping, "INTERVAL", 0.05)
    monkeypatch.setattr(failing, "step", step)
    await everything_goes_on(engine)

    def warnings() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]

    await until(lambda: bool(warnings()))  # a purge may begin later than the rest
    (message,) = warnings()
    assert failing.name in message


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (OperationalError("no such table: durable_streams_stream"), configuration_errors.MIGRATIONS),
        (ProgrammingError(1146, "Table 'x.durable_streams_stream' doesn't exist"), configuration_errors.MIGRATIONS),
        (OperationalError(1290, "The server runs with --read-only"), configuration_errors.READ_ONLY),
    ],
)
async def test_a_task_says_once_what_an_operator_has_to_set_right(
    error: Exception,
    problem: configuration_errors.ConfigurationProblem,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The start may not have checked it: its time is limited, and tables may go later."""
    steps = Semaphore(0)

    def step(self: HousekeepingTask) -> None:
        steps.release()
        raise error

    monkeypatch.setattr(housekeeping, "INTERVAL", 0.05)
    for task in (RemovalTask, PurgeTask):
        monkeypatch.setattr(task, "step", step)
    engine._housekeeper.wake()
    for _ in range(6):
        assert await asyncio.to_thread(steps.acquire, timeout=20)
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert problem.remedy in record.getMessage()
    assert record.exc_info is None


async def test_a_database_that_does_not_answer_is_asked_again(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(housekeeping, "INTERVAL", 0.05)
    failed = Event()
    real = removal.expired

    def expired(*args: object, **kwargs: object) -> object:
        if not failed.is_set():
            failed.set()
            raise OperationalError("database is locked")
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(removal, "expired", expired)
    engine._housekeeper.wake()
    assert await asyncio.to_thread(failed.wait, 20)
    await everything_goes_on(engine)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_thousand_removed_streams_go_in_a_few_steps(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    real = removal.purge_streams

    def purge_streams(using: str, ids: list[int]) -> int:
        steps.append(len(ids))
        return real(using, ids)

    monkeypatch.setattr(removal, "purge_streams", purge_streams)
    # A step adapts to the time that it takes, so on a busy machine there would be more of them.
    monkeypatch.setattr(housekeeping_tasks, "time", SimpleNamespace(monotonic=lambda: 0.0))
    paths = [f"s/{number}" for number in range(1000)]
    for work in (lambda path: Create(path, TEXT), lambda path: Append(path, TEXT, b"x"), Delete):
        await asyncio.gather(*(engine.write(work(path)) for path in paths))
    await until(lambda: not Stream._base_manager.exists())
    assert sum(steps) >= 1000
    assert len(steps) < 200


def test_a_task_rests_in_proportion_and_waits_longer_after_each_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(housekeeping, "time", SimpleNamespace(monotonic=lambda: now[0]))
    schedule = _Schedule(SimpleNamespace(done=0, woken_interval=0.1), TaskNumbers())  # type: ignore[arg-type]
    assert schedule.due_at == now[0]
    now[0] += 0.5
    schedule.done(100.0, 3.0)
    assert schedule.due_at == pytest.approx(now[0] + 1.5)
    schedule.wake()  # it rests
    assert schedule.due_at == pytest.approx(now[0] + 1.5)
    schedule.done(now[0], None)
    assert schedule.due_at == now[0] + housekeeping.INTERVAL
    schedule.wake()
    assert schedule.due_at == now[0] + 0.1
    delays = []
    for number in range(12):
        assert schedule.failed() == (number == 0)
        schedule.wake()
        delays.append(schedule.due_at - now[0])
    assert delays[:3] == [2.0, 4.0, 8.0]
    assert max(delays) == delays[-1] == housekeeping.MAX_DELAY
    schedule.done(now[0], None)
    assert schedule.failed()


async def test_a_removal_wakes_only_the_tasks_that_follow_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each woken task queries the database, beside the next requests of a client that deletes."""
    woken: set[type] = set()
    monkeypatch.setattr(_Schedule, "wake", lambda schedule: woken.add(type(schedule.task)))
    await engine.write(Create("a", TEXT))
    await engine.write(Delete("a"))
    await until(lambda: len(woken) > 1)
    assert woken == {RemovalTask, PurgeTask}
    engine._housekeeper.wake()
    await until(lambda: woken == {type(schedule.task) for schedule in engine._housekeeper._schedules})


async def test_the_thread_does_not_run_for_each_of_many_wakes(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = 0
    wake = _Schedule.wake

    def count(schedule: _Schedule) -> None:
        nonlocal rounds
        rounds += isinstance(schedule.task, ExpiryTask)
        wake(schedule)

    monkeypatch.setattr(_Schedule, "wake", count)
    began = time.monotonic()
    for _ in range(500):
        engine._housekeeper.wake()
        await asyncio.sleep(0.001)
    # Each of the five tasks may run once in the interval, and the thread looks for a wake before each.
    assert 0 < rounds <= 2 + 10 * (time.monotonic() - began) / HousekeepingTask.woken_interval
