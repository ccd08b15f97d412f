"""Live readers who are slow, far behind, or told by nobody; and more than one event loop."""

import asyncio
from threading import Event, Thread

import pytest
from django.db import connections
from django.utils import timezone

from django_durable_streams.engine import engine_for
from django_durable_streams.engine import hub as hubs
from django_durable_streams.models import Stream
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.sse_reader import SseReader
from django_durable_streams.store.operations import Append, Create, Delete
from tests.asgi_client import AsgiClient
from tests.event_stream import Parsed, parse
from tests.overriding import override_streams
from tests.server.waiting import announced, elsewhere, until, watched

TEXT = "text/plain"
LOOKS_NEVER = override_streams(POLL_INTERVAL=3600)
LOOKS_OFTEN = override_streams(POLL_INTERVAL=0.01)


async def reader(path: str) -> SseReader:
    engine = engine_for()
    return SseReader(engine, await engine.read(path, Sentinel.START), None, engine.live_reader_limit.acquire())


async def drain(sse_reader: SseReader, end: str) -> Parsed:
    """Take chunks up to the one that leads to an offset."""
    raw = b""
    while end not in [control["streamNextOffset"] for control in parse(raw).controls]:
        raw += await sse_reader.next_chunk()
    return parse(raw)


async def last_offset(client: AsgiClient, path: str) -> str:
    return (await client.request("HEAD", path)).offset


@LOOKS_NEVER
@pytest.mark.parametrize("ring_bytes", [1, 25, 10_000])
async def test_a_slow_reader_gets_everything_whatever_is_still_at_hand(
    direct: AsgiClient, monkeypatch: pytest.MonkeyPatch, ring_bytes: int
) -> None:
    monkeypatch.setattr("django_durable_streams.engine.watch.RING_BYTES", ring_bytes)
    await direct.create("a", b"first,")
    slow, quick = await reader("a"), await reader("a")
    async with slow, quick:
        await slow.next_chunk()
        await quick.next_chunk()
        for number in range(12):
            await direct.append("a", b"%d-----," % number)
            if number % 3 == 2:
                await drain(quick, await last_offset(direct, "a"))
        events = await drain(slow, await last_offset(direct, "a"))
    assert "first," + "".join(events.data) == (await direct.get("a")).body.decode()
    assert [event.kind for event in events.events] == ["data", "control"] * len(events.data)


@override_streams(POLL_INTERVAL=3600, PAGE_BYTES=10)
async def test_a_reader_that_finds_more_than_the_others_know_reads_on_and_wakes_them(direct: AsgiClient) -> None:
    await direct.create("a", b"first,")
    earlier = await reader("a")
    async with earlier:
        await earlier.next_chunk()
        await elsewhere(*(Append("a", TEXT, b"%d-------," % number) for number in range(5)))
        end = await last_offset(direct, "a")
        later = await reader("a")
        async with later:
            expected = "first," + "".join(f"{number}-------," for number in range(5))
            for sse_reader, read in ((later, ""), (earlier, "first,")):
                assert read + "".join((await drain(sse_reader, end)).data) == expected


@LOOKS_NEVER
async def test_what_is_written_between_a_readers_look_and_its_wait_is_not_lost(direct: AsgiClient) -> None:
    await direct.create("a", b"abc")
    engine = engine_for()
    view = await engine.read("a", Sentinel.NOW)
    await elsewhere(Append("a", TEXT, b"def"))
    async with SseReader(engine, view, None, engine.live_reader_limit.acquire()) as late_reader:
        assert (await drain(late_reader, await last_offset(direct, "a"))).data == ["def"]


@LOOKS_NEVER
async def test_what_was_kept_of_a_stream_goes_with_it(direct: AsgiClient) -> None:
    await direct.create("a", b"abc")
    await direct.get("a")
    engine = engine_for()
    kept = list(engine.cache._entries)
    assert len(kept) == 1
    await direct.request("DELETE", "a")
    await announced()
    assert not engine.cache._entries


@LOOKS_NEVER
async def test_a_reader_holds_no_queue_and_gets_what_it_missed_as_one_event(direct: AsgiClient) -> None:
    await direct.create("a")
    slow_reader = await reader("a")
    async with slow_reader:
        await slow_reader.next_chunk()
        for number in range(5):
            await direct.append("a", b"%d" % number)
        await announced()
        assert (await drain(slow_reader, await last_offset(direct, "a"))).data == ["01234"]


@LOOKS_NEVER
async def test_memory_for_a_watched_stream_is_bounded(direct: AsgiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_durable_streams.engine.watch.RING_BYTES", 1000)
    await direct.create("a")
    slow_reader = await reader("a")
    async with slow_reader:
        for _ in range(50):
            await direct.append("a", b"x" * 300)
        watch = slow_reader.watch
        assert watch._ring_bytes == sum(len(segment.data) for segment in watch._ring) <= 1000


@LOOKS_OFTEN
async def test_readers_find_by_themselves_what_other_processes_do(client: AsgiClient) -> None:
    await client.create("a", b"0")
    await client.create("b", b"0")
    async with client.follow("a") as one, client.follow("b") as other:
        for live in (one, other):
            await live.chunk()
        await until(lambda: watched() == 2)
        for number in (b"1", b"2"):
            await elsewhere(Append("a", TEXT, number), Append("b", TEXT, number))
            for live in (one, other):
                assert parse(await live.chunk() or b"").data == [number.decode()]
        await elsewhere(Append("a", TEXT, b"end", close=True), Delete("b"))
        events = parse((await one.reply()).body)
        assert (events.data, events.controls[-1]["streamClosed"]) == (["end"], True)
        assert parse((await other.reply()).body).data == []


@LOOKS_OFTEN
async def test_what_several_processes_write_comes_in_order_without_gaps(client: AsgiClient) -> None:
    await client.create("a")
    async with client.follow("a") as live:
        await live.chunk()
        for number in range(30):
            if number % 3:
                await client.append("a", b"%d," % number)
            else:
                await elsewhere(Append("a", TEXT, b"%d," % number))
        await client.close("a")
        events = parse((await live.reply()).body)
    assert "".join(events.data) == "".join(f"{number}," for number in range(30))


@LOOKS_OFTEN
async def test_more_than_a_page_written_elsewhere_is_read_page_by_page(client: AsgiClient) -> None:
    with override_streams(POLL_INTERVAL=0.01, PAGE_BYTES=50):
        await client.create("a")
        async with client.follow("a") as live:
            await live.chunk()
            await elsewhere(*(Append("a", TEXT, b"%02d" % number * 10) for number in range(20)))
            await elsewhere(Append("a", None, b"", close=True))
            events = parse((await live.reply()).body)
    assert "".join(events.data) == "".join(f"{number:02d}" * 10 for number in range(20))
    assert max(len(data) for data in events.data) <= 50


@LOOKS_OFTEN
async def test_a_stream_deleted_and_made_again_elsewhere_is_not_the_readers(client: AsgiClient) -> None:
    await client.create("a", b"old")
    async with client.follow("a") as live:
        await live.chunk()
        await elsewhere(Delete("a"), Create("a", TEXT, data=b"newer"))
        assert parse((await live.reply()).body).data == []


@LOOKS_OFTEN
async def test_an_expiry_ends_the_response(client: AsgiClient) -> None:
    await client.create("a", b"abc", stream_ttl="60")

    def expire() -> None:
        Stream.objects.filter(path="a").unguarded().update(deadline=timezone.now())
        connections.close_all()

    async with client.follow("a") as live:
        await live.chunk()
        await asyncio.to_thread(expire)
        assert parse((await live.reply()).body).data == []


@LOOKS_OFTEN
async def test_a_watched_stream_is_forgotten_after_its_last_reader(
    client: AsgiClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "LINGER_SECONDS", 0.0)
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        await live.chunk()
    hub = engine_for().hub()
    await until(lambda: not hub._watches)
    async with client.follow("a") as live:
        await live.chunk()
        await client.append("a", b"again")
        assert parse(await live.chunk() or b"").data == ["again"]


@LOOKS_NEVER
def test_two_event_loops_of_a_process_hear_of_each_other(engines: None) -> None:
    reading, parsed = Event(), []

    async def read() -> None:
        client = AsgiClient(DurableStreams())
        async with client.follow("a") as live:
            await live.chunk()
            reading.set()
            parsed.append(parse((await live.reply()).body))

    async def write() -> None:
        client = AsgiClient(DurableStreams())
        await client.create("a", b"first")
        thread = Thread(target=lambda: asyncio.run(asyncio.wait_for(read(), 20)))
        thread.start()
        await asyncio.to_thread(reading.wait, 20)
        await client.append("a", b"second")
        await client.append("a", b"third", stream_closed="true")
        await asyncio.to_thread(thread.join, 20)

    asyncio.run(write())
    assert "".join(parsed[0].data) == "secondthird"


async def test_five_hundred_requests_at_once_are_answered(direct: AsgiClient) -> None:
    await direct.create("a")
    count = 500
    replies = await asyncio.gather(*(direct.append("a" if number % 5 else "nowhere", b"x") for number in range(count)))
    assert [reply.status for reply in replies] == [204 if number % 5 else 404 for number in range(count)]
    assert (await direct.get("a")).body == b"x" * (count - count // 5)
