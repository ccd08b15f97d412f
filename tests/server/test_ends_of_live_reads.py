"""The last thing that a live reader is sent: it arrives whole, once, and is waited for only for so long."""

import asyncio
from typing import Any

import pytest

from django_durable_streams.engine import engine_for, fan_out
from django_durable_streams.protocol.errors import StreamNotFound
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.server import asgi_sending, slow_clients, sse_reader
from django_durable_streams.server.asgi_sending import Sender
from django_durable_streams.server.long_poll import LongPoll
from django_durable_streams.server.sse_reader import SseReader
from django_durable_streams.store.operations import Create, Delete
from tests.asgi_client import AsgiClient, Exchange
from tests.event_stream import parse
from tests.overriding import override_streams
from tests.server.test_fast_path import connected, send
from tests.server.waiting import elsewhere, until, watched

TEXT = "text/plain"
POLLS_NEVER = override_streams(POLL_INTERVAL=3600, LONG_POLL_TIMEOUT=3600)


class SentAtOnce(Exchange):
    """An exchange through a server whose sends may be started by the hub, as uvicorn's may."""

    __module__ = "uvicorn.tests"


@POLLS_NEVER
@pytest.mark.parametrize("size", [10, 100_000, 400_000, 2_000_000])
async def test_an_append_that_closes_the_stream_reaches_a_waiting_reader(direct: AsgiClient, size: int) -> None:
    await direct.create("a", b"first")
    live = direct.follow("a")
    live.__class__ = SentAtOnce
    async with live:
        await live.chunk()
        await until(lambda: watched() == 1)
        await direct.append("a", b"x" * size, stream_closed="true")
        events = parse((await live.reply()).body)
    assert "".join(events.data) == "x" * size
    assert events.controls[-1]["streamClosed"] is True


class SlowlyTaken(SentAtOnce):
    """An exchange with a server that makes a send wait while the client takes nothing."""

    __module__ = "uvicorn.tests"

    takes: asyncio.Event
    is_waiting = False

    async def _send(self, message: Any) -> None:
        self.is_waiting = not self.takes.is_set()
        await self.takes.wait()
        await super()._send(message)


@POLLS_NEVER
async def test_an_append_that_closes_the_stream_waits_for_a_slow_reader(direct: AsgiClient) -> None:
    await direct.create("a", b"first")
    live = direct.follow("a")
    live.__class__ = SlowlyTaken
    assert isinstance(live, SlowlyTaken)
    live.takes = asyncio.Event()
    live.takes.set()
    async with live:
        await live.chunk()
        await until(lambda: watched() == 1)
        live.takes.clear()
        await direct.append("a", b"last", stream_closed="true")
        await until(lambda: live.is_waiting)
        live.takes.set()
        events = parse((await live.reply()).body)
    assert (events.data, events.controls[-1]["streamClosed"]) == (["last"], True)


@pytest.mark.usefixtures("engines")
@POLLS_NEVER
async def test_a_long_poll_with_a_response_does_not_query_a_stream_that_was_deleted_since() -> None:
    engine = engine_for()
    await engine.write(Create("a", TEXT))
    poll = LongPoll(engine, await engine.read("a", Sentinel.NOW), lambda *_: True)
    waiting = asyncio.create_task(poll.wait())
    await until(lambda: watched() == 1)
    await elsewhere(Delete("a"))
    poll.watch.feed(0, Segment(0, b"abc", [3]), 3, closed=False)
    poll.watch.end()
    await asyncio.wait_for(waiting, 20)
    assert poll.delivered


@pytest.mark.usefixtures("engines")
@POLLS_NEVER
async def test_a_request_has_one_response_where_the_stream_is_deleted_right_after_an_append(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await engine_for().write(Create("a", TEXT))
    clients = [connected() for _ in range(3)]
    for protocol, _ in clients:
        send(protocol, "GET", "a?offset=now&live=long-poll")
    await until(lambda: watched() == len(clients))
    (watch,) = engine_for().hub()._watches.values()
    await elsewhere(Delete("a"))
    monkeypatch.setattr(fan_out, "TURN_SECONDS", 0)  # one reader in each turn, as if there were thousands
    watch.feed(0, Segment(0, b"abc", [3]), 3, closed=False)
    watch.end()
    await until(lambda: watched() == 0)
    with pytest.raises(StreamNotFound):
        await engine_for().read("a")  # so the reads before it have ended, too
    responses = [[connection.sent.get_nowait() for _ in range(connection.sent.qsize())] for _, connection in clients]
    assert [len(parts) for parts in responses] == [1] * len(clients)


async def test_a_server_that_ends_waits_for_a_client_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_sending, "ENDING_SECONDS", 30.0)
    never = asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        await never

    sender = Sender(send)
    sending = asyncio.create_task(sender.send({"type": "http.response.body"}))
    await until(lambda: sender._timeout is not None)
    assert sender._timeout is not None
    sender.hurry()
    deadline = sender._timeout.when()
    await asyncio.sleep(0.01)
    sender.hurry()  # the server is asked whether it ends twice a second
    assert sender._timeout.when() == deadline
    sender.cut_off()
    with pytest.raises(BrokenPipeError):
        await asyncio.wait_for(sending, 20)


async def test_a_server_that_ends_waits_for_a_client_of_the_urls_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "ENDING_SECONDS", 30.0)
    client = slow_clients.SlowClientGuard()
    client.begin_piece()
    client.hurry()
    timer = client._timer
    await asyncio.sleep(0.01)
    client.hurry()
    assert client._timer is timer
    client.end_piece()


class Withdrawn:
    """The permission of a live read that has ended."""

    seconds_left = 0.0

    def holds(self, now: float) -> bool:
        return False

    def check(self) -> None: ...


async def reader_in_large_event(grant: Withdrawn | None = None) -> SseReader:
    engine = engine_for()
    await engine.write(Create("a", "application/octet-stream", data=bytes(2_000_000)))
    snapshot = await engine.read("a", Sentinel.START)
    return SseReader(engine, snapshot, None, engine.live_reader_limit.acquire(), grant)


@pytest.mark.usefixtures("engines")
async def test_a_large_event_ends_with_its_permission() -> None:
    async with await reader_in_large_event(Withdrawn()) as reader:
        assert await reader.next_chunk()
        reader.tick(0.0)
        assert (await reader.next_chunk(), reader.finished, reader.is_cut_off) == (b"", True, True)


@pytest.mark.usefixtures("engines")
async def test_a_server_that_ends_waits_a_moment_for_the_rest_of_a_large_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse_reader, "ENDING_SECONDS", 0.01)
    async with await reader_in_large_event() as reader:
        assert await reader.next_chunk()
        for _ in range(2):
            reader.stop()
        await until(lambda: reader.is_cut_off)


@POLLS_NEVER
async def test_a_response_that_ends_within_an_event_does_not_look_complete(client: AsgiClient) -> None:
    await client.create("a", bytes(2_000_000), "application/octet-stream")
    async with client.follow("a") as live:
        assert await live.chunk()
        (watch,) = engine_for().hub()._watches.values()
        (reader,) = watch.listeners
        assert isinstance(reader, SseReader)
        reader.cut_off()
        messages = []
        while (message := await live._get()) is not None:
            messages.append(message)
    assert all(message["more_body"] for message in messages)
    assert watched() == 0
