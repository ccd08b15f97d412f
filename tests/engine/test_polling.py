"""How often watched streams are polled: with and without messages, and after a missed message."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
from django.utils import timezone

from django_durable_streams.engine import hub as hubs
from django_durable_streams.engine import polling
from django_durable_streams.engine.engine import Engine, engine_for, stop_engines
from django_durable_streams.engine.hub import Hub
from django_durable_streams.engine.polling import MAX_INTERVAL, PollSchedule
from django_durable_streams.engine.snapshot_reader import Snapshot
from django_durable_streams.engine.wakeup.base import Subscriber
from django_durable_streams.engine.watch import Watch
from django_durable_streams.store.stream_info import StreamInfo
from tests.overriding import override_streams
from tests.server.waiting import until

TICK = 0.25


def infos(count: int, **options: Any) -> dict[int, StreamInfo]:
    return {number: StreamInfo(number, f"s/{number}", "text/plain", **options) for number in range(1, count + 1)}


def looks(
    schedule: PollSchedule, watched: dict[int, StreamInfo], seconds: float, start: float, *, receives: bool
) -> list[list[int]]:
    """Return what is looked at in each tick of a time."""
    ticks = round(seconds / TICK)
    return [schedule.due(watched, start + TICK * number, TICK, receives=receives) for number in range(1, ticks + 1)]


def test_without_messages_each_poll_queries_all_streams() -> None:
    watched = infos(50)
    for due in looks(PollSchedule(), watched, 30, 100.0, receives=False):
        assert sorted(due) == sorted(watched)


@pytest.mark.parametrize("count", [1, 7, 1000, 20_000])
def test_while_messages_arrive_polls_are_small_and_reach_each_stream_within_seconds(count: int) -> None:
    schedule, watched = PollSchedule(), infos(count)
    looks(schedule, watched, 40, 100.0, receives=True)
    polls = looks(schedule, watched, 20, 140.0, receives=True)
    assert max(map(len, polls)) <= count * TICK / MAX_INTERVAL + 1
    within = round(MAX_INTERVAL / TICK) + 1
    for first in range(0, len(polls) - within, 7):
        assert set().union(*polls[first : first + within]) == set(watched)


def test_when_messages_stop_the_next_poll_queries_all_streams() -> None:
    schedule, watched = PollSchedule(), infos(100)
    looks(schedule, watched, 40, 100.0, receives=True)
    assert sorted(schedule.due(watched, 140.25, TICK, receives=False)) == sorted(watched)
    polls = looks(schedule, watched, 0.5, 140.25, receives=True)  # it does not trust at once again
    assert sorted(polls[0]) == sorted(watched)


def test_a_missed_message_brings_the_full_rate_back_for_a_while() -> None:
    schedule, watched = PollSchedule(), infos(100)
    looks(schedule, watched, 40, 100.0, receives=True)
    schedule.missed(140.0)
    for due in looks(schedule, watched, polling.HOLD_SECONDS - 1, 140.0, receives=True):
        assert sorted(due) == sorted(watched)
    polls = looks(schedule, watched, 60, 200.0, receives=True)
    assert len(polls[-1]) < 10


def test_a_longer_interval_of_the_settings_stays_as_it_is() -> None:
    schedule, watched = PollSchedule(), infos(10)
    for number in range(1, 20):
        assert len(schedule.due(watched, 100.0 + 30 * number, 30.0, receives=True)) == 10


def test_streams_that_expire_soon_are_in_each_poll() -> None:
    schedule = PollSchedule()
    watched = infos(100)
    watched[7] = watched[7]._replace(ttl=2, deadline=timezone.now() + timedelta(seconds=2))
    looks(schedule, watched, 40, 100.0, receives=True)
    for due in looks(schedule, watched, 10, 140.0, receives=True):
        assert 7 in due
        assert len(due) < 10
    schedule.seen(watched[7]._replace(ttl=None, deadline=None))
    schedule.seen(watched[9]._replace(deadline=timezone.now() + timedelta(hours=1)))
    assert sum(7 in due or 9 in due for due in looks(schedule, watched, 10, 150.0, receives=True)) < 8


def test_a_query_that_outlasts_the_watch_of_a_stream_does_not_bring_it_back() -> None:
    schedule, watched = PollSchedule(), infos(10)
    looks(schedule, watched, 40, 100.0, receives=True)
    ended = watched.pop(7)._replace(ttl=2, deadline=timezone.now() + timedelta(seconds=2))
    looks(schedule, watched, TICK, 140.0, receives=True)
    schedule.seen(ended)
    for due in looks(schedule, watched, 10, 141.0, receives=True):
        assert 7 not in due


def test_new_and_ended_watches_change_the_schedule() -> None:
    schedule, watched = PollSchedule(), infos(100)
    looks(schedule, watched, 40, 100.0, receives=True)
    fewer = {number: watched[number] for number in range(1, 11)} | {500: infos(500)[500]}
    polls = looks(schedule, fewer, 12, 140.0, receives=True)
    assert set().union(*polls) == set(fewer)
    assert len(schedule._polled_at) == len(fewer)


class Hearing(Subscriber):
    """A subscriber of which a test says whether it hears."""

    is_fine = True

    @property
    def is_receiving(self) -> bool:
        return self.is_fine

    async def subscribe(self, stream_id: int) -> None:
        pass

    def unsubscribe(self, stream_id: int) -> None:
        pass

    def close(self) -> None:
        pass


class Log:
    """What an engine would find in the database."""

    def __init__(self, count: int) -> None:
        self.infos = infos(count)
        self.looked_at: list[tuple[int, ...]] = []

    async def query_status(self, stream_ids: tuple[int, ...]) -> dict[int, StreamInfo]:
        self.looked_at.append(stream_ids)
        return {stream_id: self.infos[stream_id] for stream_id in stream_ids}

    async def follow(self, stream: Any, position: int | None = None) -> Snapshot:
        info = self.infos[stream if isinstance(stream, int) else stream.id]
        return Snapshot(info, position or 0, None, info.tail, info.closed)

    def append(self, stream_id: int) -> None:
        info = self.infos[stream_id]
        self.infos[stream_id] = info._replace(tail=info.tail + 1)


class Reader:
    """A listener that counts its ticks, or fails."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.ticks = 0
        self.told = asyncio.Event()
        self.ticked = asyncio.Event()

    def notify(self) -> None:
        self.told.set()

    def stop(self) -> None:
        pass

    def tick(self, now: float) -> None:
        self.ticks += 1
        if self.ticks >= 3:
            self.ticked.set()
        if self.fails:
            raise RuntimeError("a reader of its own")


@asynccontextmanager
async def watching(log: Log, *readers: Reader, subscriber: Subscriber | None = None) -> AsyncIterator[Hub]:
    """A hub whose ticks come quickly, with a reader on each stream."""
    with override_streams(POLL_INTERVAL=0.01):
        hub = Hub(cast(Engine, log))
        hub.subscriber = subscriber
        joined: list[tuple[Watch, Reader]] = []
        for number, info in enumerate(list(log.infos.values())):
            reader = readers[number % len(readers)]
            joined.append((await hub.join(info, reader), reader))
        try:
            yield hub
        finally:
            for watch, reader in joined:
                hub.leave(watch, reader)
            if hub._ticker is not None:
                hub._ticker.cancel()


async def test_a_reader_that_fails_does_not_stop_the_ticks_of_others(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(3)
    readers = [Reader(fails=True), Reader(), Reader(fails=True)]
    async with watching(log, *readers) as hub:
        async with asyncio.timeout(20):
            for reader in readers:
                await reader.ticked.wait()
        log.append(2)  # and it goes on to look
        async with asyncio.timeout(20):
            await readers[1].told.wait()
        assert hub._ticker is not None
        assert not hub._ticker.done()
    assert "a reader of its own" in caplog.text


async def test_a_schedule_that_fails_does_not_stop_the_ticks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any, **options: Any) -> list[int]:
        raise KeyError("a stream of its own")

    monkeypatch.setattr(PollSchedule, "due", fail)
    reader = Reader()
    async with watching(Log(1), reader):
        await asyncio.wait_for(reader.ticked.wait(), 20)
    assert "a stream of its own" in caplog.text


async def test_a_poll_finds_a_commit_without_a_message_and_returns_to_the_full_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(polling, "MAX_INTERVAL", 0.2)
    monkeypatch.setattr(hubs, "MESSAGE_GRACE_SECONDS", 0.02)
    log, reader = Log(40), Reader()
    async with watching(log, reader, subscriber=Hearing()) as hub:
        await until(lambda: bool(log.looked_at) and len(log.looked_at[-1]) <= 4)  # it relies on news
        log.append(17)
        await asyncio.wait_for(reader.told.wait(), 20)
        assert hub._watches[17].tail == 1
        await until(lambda: len(log.looked_at[-1]) == 40)


async def test_a_message_that_is_on_its_way_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    missed = []
    monkeypatch.setattr(PollSchedule, "missed", lambda self, now: missed.append(now))
    log, reader = Log(1), Reader()
    async with watching(log, reader, subscriber=Hearing()) as hub:
        log.append(1)
        seen = len(log.looked_at)
        await until(lambda: len(log.looked_at) > seen)
        hub._watches[1].feed(0, None, 1, closed=False)
        await until(lambda: len(log.looked_at) > seen + 1)
    assert not missed


async def test_many_streams_are_polled_with_several_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "MAX_POLLED", 7)
    log, reader = Log(20), Reader()
    async with watching(log, reader) as hub:
        log.looked_at.clear()
        hub.poll_all()
        await until(lambda: {*range(1, 21)} <= {number for some in log.looked_at for number in some})
        assert max(map(len, log.looked_at)) == 7


def test_the_schedule_itself_takes_little_time() -> None:
    schedule, watched = PollSchedule(), infos(20_000)
    began = time.process_time()
    polls = looks(schedule, watched, 60, 100.0, receives=True)
    assert time.process_time() - began < 0.1 * 60
    assert sum(map(len, polls)) < 0.25 * 240 * 20_000


class BrokenOnce(Log):
    """A database whose first query fails in a way that nobody expects."""

    is_broken = True

    async def follow(self, stream: Any, position: int | None = None) -> Snapshot:
        if self.is_broken:
            self.is_broken = False
            raise MemoryError
        return await super().follow(stream, position)


async def test_a_reader_whose_first_query_fails_spoils_the_stream_for_no_other() -> None:
    log, reader = BrokenOnce(1), Reader()
    with override_streams(POLL_INTERVAL=3600):
        hub = Hub(cast(Engine, log))
        with pytest.raises(MemoryError):
            await hub.join(log.infos[1], reader)
        watch = await hub.join(log.infos[1], reader)
        assert watch.listeners == {reader}
        hub.leave(watch, reader)
        assert hub._ticker is not None
        hub._ticker.cancel()


@pytest.mark.usefixtures("engines")
async def test_an_engine_that_stops_leaves_no_subscriber_behind() -> None:
    closed = asyncio.Event()

    class Closing(Hearing):
        def close(self) -> None:
            closed.set()

    hub = engine_for().hub()
    hub.subscriber = Closing()
    await asyncio.to_thread(stop_engines)
    await asyncio.wait_for(closed.wait(), 20)
    assert hub.subscriber is None
