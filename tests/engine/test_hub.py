"""What a reader gets that joins a watch: one that is new, one that is behind, and one that could not start."""

import asyncio
from typing import Any
from unittest import mock

import pytest

from django_durable_streams.engine.hub import Hub
from django_durable_streams.engine.snapshot_reader import Snapshot
from django_durable_streams.engine.wakeup.base import Subscriber
from django_durable_streams.engine.watch import Watch
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store.operations import Commit
from django_durable_streams.store.stream_info import StreamInfo
from tests.overriding import override_streams


class Database:
    """A stream as the database has it, with a letter for each append. The poll never comes in the time of a test."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.answers = True
        self.queries = 0

    @property
    def info(self) -> StreamInfo:
        return StreamInfo(1, "a", "text/plain", tail=len(self.data))

    def commit(self, data: bytes) -> Commit:
        """Commit data, as another process does, and return the commit."""
        start = len(self.data)
        self.data += data
        ends = range(start + 1, len(self.data) + 1)
        return Commit(1, "a", "text/plain", start, len(self.data), False, appends=[data], ends=ends)

    def segment(self, position: int) -> Segment:
        return Segment(position, self.data[position:], range(position + 1, len(self.data) + 1))

    async def follow(self, info: StreamInfo, position: int) -> Snapshot:
        self.queries += 1
        if not self.answers:
            raise ServiceUnavailable("The database does not answer.")
        segment = self.segment(position) if position < len(self.data) else None
        return Snapshot(self.info, position, segment, len(self.data), False)

    async def query_status(self, stream_ids: tuple[int, ...]) -> dict[int, StreamInfo]:
        raise AssertionError("a poll")

    def renew(self, info: StreamInfo) -> None:
        raise AssertionError("a poll")

    def report_data_loss(self, info: StreamInfo) -> None:
        raise AssertionError("no data was lost")


class Reader:
    """A listener that knows when it was notified."""

    def __init__(self) -> None:
        self.notified = asyncio.Event()

    def notify(self) -> None:
        self.notified.set()

    def tick(self, now: float) -> None: ...

    def stop(self) -> None: ...


@pytest.fixture(autouse=True)
def without_polls() -> Any:
    with override_streams(POLL_INTERVAL=60):
        yield


async def data_after(hub: Hub, watch: Watch, position: int) -> bytes:
    """Return what a reader gets at a position, as live readers do: from the watch, or else from the database."""
    snapshot = watch.snapshot(position) or await hub.fetch(watch, position)
    return snapshot.segment.data if snapshot.segment is not None else b""


async def test_a_reader_that_joins_a_watch_which_is_behind_has_it_query_at_once() -> None:
    database = Database(b"abc")
    hub, first, second = Hub(database), Reader(), Reader()
    watch = await hub.join(database.info, first)
    database.commit(b"def")
    database.commit(b"g")
    assert await hub.join(database.info, second) is watch
    async with asyncio.timeout(10):
        await first.notified.wait()
    assert watch.tail == 7
    assert [await data_after(hub, watch, position) for position in (3, 5, 7)] == [b"defg", b"fg", b""]


@pytest.mark.parametrize("missed", [0, 1, 2])
async def test_a_reader_ahead_of_its_watch_misses_no_commit_and_gets_none_twice(missed: int) -> None:
    database = Database(b"abc")
    hub = Hub(database)
    watch = await hub.join(database.info, Reader())
    for _ in range(missed):
        database.commit(b"de")
    database.answers = False  # so the watch stays behind
    position = database.info.tail
    reader = Reader()
    assert await hub.join(database.info, reader) is watch
    assert watch.tail == 3
    database.answers = True
    assert await data_after(hub, watch, position) == b""
    received = b""
    for data in (b"f", b"gh", b"i"):
        hub.feed([database.commit(data)])
        received += await data_after(hub, watch, position + len(received))
    assert received == b"fghi"
    await asyncio.wait_for(reader.notified.wait(), 10)
    assert await data_after(hub, watch, 0) == database.data


async def test_readers_of_a_new_watch_miss_nothing_while_the_database_does_not_answer() -> None:
    """Their first query fails, no message tells of the commit before it, and the schedule leaves the stream out."""
    database = Database(b"abc")
    hub, readers = Hub(database), [Reader(), Reader()]
    ticks: asyncio.Queue[None] = asyncio.Queue()
    seen = database.info
    database.commit(b"def")
    database.answers = False
    polls = mock.patch.object(hub._polls, "due", side_effect=lambda *_, **__: ticks.put_nowait(None) or [])
    with override_streams(POLL_INTERVAL=0.01), polls:
        watches = await asyncio.wait_for(asyncio.gather(*(hub.join(seen, reader) for reader in readers)), 10)
        assert watches[0] is watches[1]
        assert watches[0].tail == 3
        async with asyncio.timeout(10):
            for _ in range(4):
                await ticks.get()
            assert database.queries >= 3  # each tick repeats it until it succeeds
            database.answers = True
            for reader in readers:
                await reader.notified.wait()
            queries = database.queries
            for _ in range(4):
                await ticks.get()
    assert database.queries == queries
    assert await data_after(hub, watches[0], 3) == b"def"


async def test_the_query_of_a_new_watch_begins_after_its_registration() -> None:
    database = Database(b"abc")
    seen = database.info
    database.commit(b"def")
    watch = await Hub(database).join(seen, Reader())
    assert (watch.tail, database.queries) == (6, 1)


class FailingSubscriber(Subscriber):
    """Fails at the first subscription."""

    def __init__(self) -> None:
        self.subscribed: list[int] = []

    async def subscribe(self, stream_id: int) -> None:
        self.subscribed.append(stream_id)
        if len(self.subscribed) == 1:
            await asyncio.sleep(0)  # so that several readers wait for it
            raise RuntimeError("a bug")

    def unsubscribe(self, stream_id: int) -> None: ...

    def close(self) -> None: ...


async def test_readers_join_again_after_a_watch_could_not_start() -> None:
    database = Database(b"abc")
    hub = Hub(database)
    hub.subscriber = FailingSubscriber()
    failed = await asyncio.gather(*(hub.join(database.info, Reader()) for _ in range(3)), return_exceptions=True)
    assert [str(error) for error in failed] == ["a bug"] * 3
    assert not hub.is_watched(1)
    watch = await hub.join(database.info, reader := Reader())
    hub.feed([database.commit(b"d")])
    await asyncio.wait_for(reader.notified.wait(), 10)
    assert await data_after(hub, watch, 3) == b"d"


async def test_a_commit_to_another_stream_that_has_got_the_id_ends_the_watch() -> None:
    # Such as after `manage.py flush`, or a failover to a standby that has missed the creation of a stream.
    engine = mock.Mock()
    hub = Hub(engine)
    watch = Watch(StreamInfo(1, "a", "text/plain", generation=5))
    hub._watches[1] = watch
    secret = Commit(1, "secret", "text/plain", 0, 1, False, appends=[b"x"], ends=[1], generation=6)
    hub.feed([secret])
    assert watch.ended
    assert watch.segment_after(0) is None
    assert not hub.is_watched(1)
    engine.report_data_loss.assert_called_once_with(watch.info)
