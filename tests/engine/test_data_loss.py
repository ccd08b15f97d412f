"""A database that has lost its last commits, as after a failover or a restore: readers get no lost data."""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from django_durable_streams.engine import Engine, engine_for
from django_durable_streams.engine.wakeup.base import WakeUpMessage
from django_durable_streams.engine.watch import Watch
from django_durable_streams.models import Chunk, StagedChunk, Stream
from django_durable_streams.protocol.errors import OffsetGone, StreamNotFound
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.runtime import batch_worker
from django_durable_streams.runtime.results import call_in
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Append, Commit, Create
from django_durable_streams.store.stream_info import StreamInfo
from tests.asgi_client import AsgiClient
from tests.event_stream import parse
from tests.server.waiting import elsewhere, until, watched

TEXT = "text/plain"
REAL, LOST = b"0123456789", b"LOST!"


@pytest.fixture
def client(engines: None, settings: Any) -> AsgiClient:
    """A client of a server whose own looks at the database do not help: they are minutes apart."""
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "POLL_INTERVAL": 300}
    return AsgiClient(DurableStreams())


async def begun(client: AsgiClient) -> Stream:
    await client.create("a", REAL)
    return await Stream.objects.aget()


async def go_back(tail: int = len(REAL), **changed: Any) -> None:
    """Let the database be as it was when the stream was so long. Nobody who has it open is told."""

    def work() -> None:
        try:
            for table in (Chunk, StagedChunk):
                table.objects.filter(end__gt=tail).unguarded().delete()
            Stream.objects.unguarded().update(tail_position=tail, **changed)
        finally:
            connections.close_all()

    await asyncio.to_thread(work)


async def pages_of(stream: Stream, offset: str, got: list[Any]) -> None:
    """Follow a stream from Python, and note what comes, and how it ends."""
    try:
        async for page in stream.atail(offset):
            got.extend(page.messages)
    except OffsetGone as error:
        got.append(type(error))


async def surveyed() -> None:
    """Let every hub look at all it watches, as it does now and then."""
    for hub in engine_for()._hubs.values():
        await hub._poll(list(hub._watches))


def went_back(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the paths of streams that have lost data."""
    paths: list[str] = []
    original = Engine.report_data_loss

    def report(self: Engine, info: StreamInfo) -> None:
        paths.append(info.path)
        original(self, info)

    monkeypatch.setattr(Engine, "report_data_loss", report)
    return paths


async def test_readers_that_wait_at_lost_data_get_an_error(client: AsgiClient) -> None:
    stream = await begun(client)
    lost = (await client.append("a", LOST)).offset
    got: list[Any] = []
    following = asyncio.create_task(pages_of(stream, lost, got))
    async with client.follow("a", lost) as live, client.follow("a", lost, "long-poll") as poll:
        await live.chunk()
        await until(lambda: watched() == 3)
        await go_back()
        await surveyed()
        assert await live.chunk() is None  # it ends, without a word of an end of the stream
        assert (await poll.reply()).status == 410
    await following
    assert got == [OffsetGone]
    for kind in ("", "&live=sse", "&live=long-poll"):
        assert (await client.get(f"a?offset={lost}{kind}")).status == 410


@pytest.mark.parametrize("mode", ["sse", "long-poll", "tail"])
async def test_a_new_reader_gets_the_data_of_the_database_and_then_new_data(client: AsgiClient, mode: str) -> None:
    stream = await begun(client)
    end = stream.next_offset
    async with client.follow("a", end) as keeps_watch:
        await keeps_watch.chunk()
        await client.append("a", LOST)
        assert LOST in (await keeps_watch.chunk() or b"")
        await go_back()
        got: list[Any] = []
        if mode == "tail":
            following = asyncio.create_task(pages_of(stream, end, got))
            await until(lambda: watched() == 1)
            await client.append("a", b"REAL1")
            await until(lambda: got == ["REAL1"])
            following.cancel()
        else:
            async with client.follow("a", end, mode) as live:
                if mode == "sse":
                    assert b"event: data" not in (await live.chunk() or b"")
                await until(lambda: watched() == 1)
                await client.append("a", b"REAL1")
                came = await live.chunk() or b""
            assert b"REAL1" in came
            assert LOST not in came
        assert await keeps_watch.chunk() is None


@pytest.mark.parametrize("anew", [b"REAL1", b"longer than what was lost", b"x"])
async def test_an_append_at_the_place_of_lost_data_ends_the_watch(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch, anew: bytes
) -> None:
    """Nobody has looked meanwhile, and the stream may be longer again than it ever was."""
    await begun(client)
    lost_paths = went_back(monkeypatch)
    async with client.follow("a") as one:
        await one.chunk()
        await until(lambda: watched() == 1)
        await client.append("a", LOST)
        assert LOST in (await one.chunk() or b"")
        await go_back()
        after = (await client.append("a", anew)).offset
        assert await one.chunk() is None
    assert lost_paths == ["a"]
    async with client.follow("a") as again:
        events = parse(await again.chunk() or b"")
        assert ("".join(events.data).encode(), events.controls[-1]["streamNextOffset"]) == (REAL + anew, after)


@pytest.mark.parametrize("mode", ["sse", "long-poll", "tail"])
async def test_a_reader_without_data_does_not_query_again_and_again(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """The watch has begun with its end beyond, so that it has nothing at hand that would be wrong."""
    stream = await begun(client)
    end = stream.next_offset
    await client.append("a", LOST)
    looks = 0
    lost_paths = went_back(monkeypatch)
    async with client.follow("a", "now") as keeps_watch:
        await keeps_watch.chunk()
        await until(lambda: watched() == 1)
        # As if the look of the next reader had been just before.
        monkeypatch.setattr(Watch, "is_ahead_of", joined_blindly(Watch.is_ahead_of))
        await go_back()
        reader = engine_for()._reader
        look = reader._read

        def counted(tasks: Any) -> Any:
            nonlocal looks
            looks += len(tasks)
            return look(tasks)

        monkeypatch.setattr(reader, "_read", counted)
        got: list[Any] = []
        if mode == "tail":
            following = asyncio.create_task(pages_of(stream, end, got))
            await until(lambda: lost_paths == ["a"] and watched() == 1)
            await client.append("a", b"REAL1")
            await until(lambda: got == ["REAL1"])
            following.cancel()
        else:
            async with client.follow("a", end, mode) as live:
                while await live.chunk():
                    pass
        assert await keeps_watch.chunk() is None
    assert looks < 10


def joined_blindly(is_ahead_of: Callable[..., bool]) -> Callable[..., bool]:
    numbers = iter([False])
    return lambda watch, info, seen_at: next(numbers, None) is None and is_ahead_of(watch, info, seen_at)


async def test_a_lost_close_ends_the_watch(client: AsgiClient) -> None:
    await begun(client)
    async with client.follow("a", "now") as live:
        await live.chunk()
        await until(lambda: watched() == 1)
        await client.close("a")
        assert b"streamClosed" in (await live.chunk() or b"")
    await go_back(closed=False)
    async with client.follow("a", "now") as live:
        assert b"streamClosed" not in (await live.chunk() or b"")
        await until(lambda: watched() == 1)
        await client.append("a", b"on")
        assert b"on" in (await live.chunk() or b"")


async def test_another_stream_with_the_same_id_is_another_stream(client: AsgiClient) -> None:
    stream = await begun(client)
    offset = stream.next_offset
    async with client.follow("a", offset) as live:
        await live.chunk()
        await until(lambda: watched() == 1)
        await go_back(generation=stream.generation + 1)
        await surveyed()
        assert await live.chunk() is None
    assert (await client.get(f"a?offset={offset}")).status == 410
    assert (await client.get("a")).body == REAL


async def test_cached_data_is_dropped(client: AsgiClient) -> None:
    await begun(client)
    await client.append("a", LOST)
    for _ in range(2):
        assert (await client.get("a")).body == REAL + LOST
    await go_back()
    assert (await client.get("a")).body == REAL
    await client.append("a", b"REAL1")
    assert (await client.get("a")).body == REAL + b"REAL1"
    assert (await client.get("a")).body == REAL + b"REAL1"


async def test_a_new_connection_drops_cached_data(client: AsgiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody read, the database may have gone back and grown as long again."""
    monkeypatch.setattr(batch_worker, "IDLE_SECONDS", 0.05)
    await begun(client)
    await client.append("a", LOST)
    assert (await client.get("a")).body == REAL + LOST
    connection = engine_for()._reader._connection
    await until(lambda: connection._opened is None)
    await go_back()
    await client.append("a", b"REAL1")
    assert (await client.get("a")).body == REAL + b"REAL1"


async def test_lost_data_is_logged_once_in_a_while(client: AsgiClient, caplog: pytest.LogCaptureFixture) -> None:
    await begun(client)
    for _ in range(3):
        async with client.follow("a", "now") as live:
            await live.chunk()
            await until(lambda: watched() == 1)
            await client.append("a", LOST)
            await live.chunk()
            await go_back()
            await surveyed()
            assert await live.chunk() is None
    assert caplog.text.count("The database has lost data that it had committed") == 1


class TestWatch:
    def watch(self, tail: int = 10) -> Watch:
        return Watch(StreamInfo(1, "a", TEXT, 7, tail=tail))

    def test_only_a_query_that_began_later_contradicts_a_watch(self) -> None:
        watch = self.watch()
        shorter = watch.info._replace(tail=9)
        assert not watch.is_ahead_of(shorter, watch.moved_at)
        assert watch.is_ahead_of(shorter, watch.moved_at + 1)
        assert not watch.is_ahead_of(watch.info, watch.moved_at + 1)
        assert watch.is_ahead_of(watch.info._replace(generation=8), 0.0)
        watch.feed(10, None, 10, closed=True)
        assert watch.is_ahead_of(watch.info, watch.moved_at + 1)

    @pytest.mark.parametrize(
        ("start", "data", "closed", "agrees"),
        [
            (10, b"abcde", False, True),  # known
            (12, b"cd", False, True),  # a part of what is known: several commits may have been read as one
            (15, b"f", False, True),  # new
            (20, b"f", False, True),
            (10, b"ABCDE", False, False),
            (12, b"CD", False, False),
            (10, b"abcdef", False, False),  # across where it ended
            (10, b"abc", True, False),  # closed before it ended
            (5, b"x", False, None),
            (5, b"xxxxxxx", False, None),
        ],
    )
    def test_a_commit_agrees_with_the_known_data_or_not(
        self, start: int, data: bytes, closed: bool, agrees: bool | None
    ) -> None:
        watch = self.watch()
        watch.feed(10, Segment(10, b"abcde", [15]), 15, closed=False)
        segment = Segment(start, data, [start + len(data)])
        assert watch.agrees(start, segment, segment.end, closed=closed) is agrees


async def test_no_watch_ends_while_the_database_has_all_data(
    engines: None, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    """Appends by committers, by Python threads and by other processes; messages that are late, doubled or unordered."""
    settings.DURABLE_STREAMS = {**settings.DURABLE_STREAMS, "POLL_INTERVAL": 0.002}
    lost_paths = went_back(monkeypatch)
    engine = engine_for()
    await elsewhere(Create("a", TEXT))
    stream = await Stream.objects.aget()
    client = AsgiClient(DurableStreams())
    hub = engine.hub()
    chance = random.Random(7)

    def echo(commits: list[Commit]) -> None:
        call_in(hub.loop, lambda: [deliver(commit) for commit in commits])

    def deliver(commit: Commit) -> None:
        along = chance.random() < 0.7
        data, ends = (commit.data(), [*commit.ends]) if along else (None, [])
        news = WakeUpMessage(commit.generation, commit.start, commit.tail, commit.closed, commit.removed, data, ends)
        for _ in range(chance.randint(0, 2)):
            hub.loop.call_later(chance.choice([0, 0, 0.001, 0.02]), hub.receive, commit.stream_id, news)

    monkeypatch.setattr(engine.wakeup, "publish", echo)

    def in_python(number: int) -> None:
        try:
            for _ in range(30):
                stream.append(f"{number}\n")
        finally:
            connections.close_all()

    async def by_committer(number: int) -> None:
        for _ in range(60):
            await engine.write(Append("a", TEXT, b"%d\n" % number))

    async def by_others(number: int) -> None:
        for _ in range(20):
            await elsewhere(Append("a", TEXT, b"%d\n" % number))

    async def read(mode: str) -> bytes:
        got, offset, over = b"", "-1", False
        while not over:
            if mode == "sse":
                async with client.follow("a", offset) as live:
                    for _ in range(chance.randint(1, 5)):
                        chunk = await live.chunk()
                        if chunk is None:
                            break
                        events = parse(chunk)
                        got += "".join(events.data).encode()
                        if events.controls:
                            offset = events.controls[-1]["streamNextOffset"]
                            over = "streamClosed" in events.controls[-1]
            else:
                reply = await client.get(f"a?offset={offset}")
                got, offset, over = got + reply.body, reply.offset, "stream-closed" in reply.headers
        return got

    readers = [asyncio.create_task(read(mode)) for mode in ("sse", "sse", "page", "sse")]
    await asyncio.gather(
        *[asyncio.to_thread(in_python, number) for number in range(3)],
        *[by_committer(number) for number in range(3, 7)],
        *[by_others(number) for number in range(7, 9)],
    )
    await elsewhere(Append("a", TEXT, b"end\n", close=True))
    content = "".join([message async for message in stream.aread()]).encode()
    assert await asyncio.gather(*readers) == [content] * 4
    assert lost_paths == []


async def test_a_reader_is_shown_nothing_of_a_stream_that_has_got_the_id(client: AsgiClient) -> None:
    """Such as after `manage.py flush`, or a failover to a standby that has missed the creation of a stream."""
    await client.create("a")
    info = (await engine_for().read("a")).info
    await client.append("a", b"secret")
    renamed = Stream.objects.unguarded().filter(pk=info.id)
    await sync_to_async(renamed.update)(path="secret", generation=info.generation + 1)
    with pytest.raises(StreamNotFound):
        await engine_for().follow(info, 0)
    assert (await client.get("secret?offset=-1")).body == b"secret"
