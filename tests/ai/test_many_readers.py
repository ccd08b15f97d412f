"""Many readers and long chats: shared look-ups, slots, clients that take no data, and bounds of memory."""

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from django.test import override_settings

from django_durable_streams.api.stream_committer import StreamCommitter
from django_durable_streams.api.tail import Page
from django_durable_streams.api.writer_options import WriterSettings
from django_durable_streams.contrib.ai import feeds, lookups
from django_durable_streams.contrib.ai.answers import Chat
from django_durable_streams.contrib.ai.dialects.vercel import VercelTranslator
from django_durable_streams.contrib.ai.events import Start, Text, encode
from django_durable_streams.contrib.ai.history import History
from django_durable_streams.contrib.ai.pace import SAMPLE_SECONDS, STRETCHES, Pace
from django_durable_streams.contrib.ai.permissions import (
    AnonymousChats,
    ChatPermission,
    OwnChats,
    in_memory,
    is_in_memory,
)
from django_durable_streams.contrib.ai.views import event_body
from django_durable_streams.contrib.ai.views.event_body import EventBody, EventResponse
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime.shutdown import stop_readers_of
from django_durable_streams.server.response_memory import PIECE_BYTES, memory
from tests.ai.test_views import body, chunks, client_of, post
from tests.subscriptions.steps import USING

pytestmark = [pytest.mark.usefixtures("engines", "these_urls")]


@pytest.fixture
def these_urls() -> Iterator[None]:
    with override_settings(ROOT_URLCONF="tests.ai.urls"):
        yield


def test_look_ups_of_the_same_moment_share_a_query(monkeypatch: pytest.MonkeyPatch) -> None:
    find_all, asked = lookups.find_all, []

    def find(paths: list[str], using: str) -> Any:
        asked.append(sorted(paths))
        return find_all(paths, using)

    monkeypatch.setattr(lookups, "find_all", find)
    for number in range(2):
        stream = Stream.objects.create(path=f"chats/{number}", content_type="application/json")
        Chat.objects.create(stream=stream)

    async def look() -> list[lookups.ChatAndRun]:
        looked_up = lookups.lookups_of(USING)
        paths = ["chats/0", "chats/1", "chats/0", "chats/2"]
        return [*await asyncio.gather(*map(looked_up.find, paths)), await looked_up.find("chats/1")]

    looked_up = asyncio.run(look())
    assert asked == [["chats/0", "chats/1", "chats/2"], ["chats/1"]]
    assert [one.chat.path if one.chat else None for one in looked_up] == [
        "chats/0",
        "chats/1",
        "chats/0",
        None,
        "chats/1",
    ]


def test_only_a_marked_method_is_called_in_the_event_loop() -> None:
    class Team(OwnChats):
        def allows(self, *args: Any) -> bool:
            return Chat.objects.exists()

    class Pure(ChatPermission):
        @in_memory
        def allows(self, *args: Any) -> bool:
            return True

    permissions = [OwnChats(), AnonymousChats(), Pure(), Team(), ChatPermission()]
    assert [is_in_memory(permission) for permission in permissions] == [True, True, True, False, False]


async def test_the_readers_of_chats_count_among_all_live_readers() -> None:
    client = await client_of("ann")
    limit = engine_for(USING).live_reader_limit
    with override_settings(DURABLE_STREAMS={"MAX_LIVE_READERS": 1}):
        running = await post(client, "/api/chat", body(script={"count": 1000, "seconds": 0.02}))
        refused = [
            await client.get("/api/chat/c1/stream"),
            await post(client, "/api/chat", body("c2")),
            await post(client, "/api/agui", {"threadId": "t", "runId": "r", "messages": [{"id": "m", "role": "user"}]}),
            await client.get("/api/tanstack/c1/stream?offset=-1&live=sse"),
            await client.get("/api/tanstack/c1/stream?offset=-1&live=long-poll"),
            await client.get("/api/tanstack/c9/stream?offset=-1&live=long-poll"),
        ]
        assert {(reply.status_code, reply["Retry-After"]) for reply in refused} == {(503, "5")}
        assert not await sync_to_async(Chat.at)("chats/1/c2")
        await client.post("/api/chat/c1/stop")
        await chunks(running)
        running.close()
        assert not len(limit)
        assert (await client.get("/api/chat/c1/stream")).status_code == 204


async def _texts(*texts: bytes) -> AsyncGenerator[bytes, None]:
    for text in texts:
        yield text


async def test_a_client_that_takes_no_data_ends_its_response() -> None:
    """Each piece has the time, and a long one is counted in the memory of responses."""
    ended: list[str] = []

    async def endless() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"a"
        finally:
            ended.append("source")

    async def send(piece: bytes) -> None:
        await asyncio.Event().wait()

    async def respond(events: AsyncGenerator[bytes, None]) -> None:
        content = EventBody(events)
        try:
            async for piece in content:
                await send(piece)
        finally:
            await content.aclose()

    with override_settings(DURABLE_STREAMS={"SEND_TIMEOUT": 0.2}):
        for events in (endless(), _texts(b"b" * 3 * PIECE_BYTES)):
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(20):
                    await asyncio.create_task(respond(events))
    assert ended == ["source"]
    assert not memory.held


async def _respond(content: EventBody, is_sending: asyncio.Event) -> None:
    """Send to a client that takes no data, as Django does."""
    try:
        async for _ in content:
            is_sending.set()
            await asyncio.Event().wait()
    finally:
        await content.aclose()


@pytest.mark.parametrize("size", [1, 3 * PIECE_BYTES])
async def test_a_client_that_takes_no_data_does_not_keep_its_server_from_ending(size: int) -> None:
    is_sending = asyncio.Event()
    task = asyncio.create_task(_respond(EventBody(_texts(b"a" * size)), is_sending))
    await is_sending.wait()
    stop_readers_of(asyncio.get_running_loop())
    await asyncio.wait([task], timeout=20)  # SEND_TIMEOUT is longer
    assert task.cancelled()
    assert not memory.held


@pytest.mark.parametrize("size", [1, 3 * PIECE_BYTES])
async def test_the_work_for_a_body_ends_with_its_task_inside_of_a_middleware_too(size: int) -> None:
    """The generator of a middleware is closed, and does not close what it iterates."""
    has_ended = asyncio.Event()

    async def events() -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"a" * size
        finally:
            has_ended.set()

    content, is_sending = EventBody(events()), asyncio.Event()

    async def respond() -> None:
        async for _ in content:
            is_sending.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(respond())
    await is_sending.wait()
    task.cancel()
    async with asyncio.timeout(20):
        await has_ended.wait()
    assert not memory.held


async def test_a_long_event_comes_in_pieces() -> None:
    data = bytes(range(256)) * 1024
    pieces = [piece async for piece in EventBody(_texts(b"first", data, b"last"))]
    assert b"".join(pieces) == b"first" + data + b"last"
    assert max(map(len, pieces)) == PIECE_BYTES
    assert not memory.held


async def test_a_middleware_may_wrap_the_events() -> None:
    def response() -> EventResponse:
        return EventResponse(EventBody(_texts(b"a", b"b")), engine_for(USING).live_reader_limit.acquire())

    async def upper(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for piece in pieces:
            yield piece.upper()

    def middleware(request: HttpRequest) -> StreamingHttpResponse:
        wrapped = response()
        wrapped.streaming_content = upper(wrapped.streaming_content)
        return wrapped

    assert [piece async for piece in response()] == [b"a", b"b"]
    assert [piece async for piece in middleware(HttpRequest())] == [b"A", b"B"]


class Long:
    """A stream of a long chat."""

    async def atail(self, offset: str, timeout: float | None = None) -> AsyncIterator[Page]:
        events = [Start("r", "m"), *(Text("a" * 1000) for _ in range(100))]
        yield Page([encode(event) for event in events], "1", up_to_date=True, closed=False)
        await asyncio.Event().wait()


async def drain(reader: feeds.FeedReader) -> None:
    while await reader.next():
        pass


@pytest.mark.parametrize("is_full", [False, True])
async def test_long_feeds_end_where_they_take_too_much_memory(is_full: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "LARGE_FEED_BYTES", 50_000)
    source = feeds.FeedSource(cast("Any", Long()), "-1", "r", VercelTranslator)
    limit = 60_000 if is_full else 10_000_000
    with override_settings(DURABLE_STREAMS={"MAX_RESPONSE_MEMORY": limit}), feeds.opened(is_full, source) as reader:
        if is_full:
            with pytest.raises(ServiceUnavailable):
                await drain(reader)
        else:
            assert await reader.next() is not None


async def test_readers_that_are_slow_keep_no_chunks_of_feeds_that_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them would keep those of a feed of its own, which no limit counts."""
    monkeypatch.setattr(feeds, "LARGE_FEED_BYTES", 50_000)
    source = feeds.FeedSource(cast("Any", Long()), "-1", "r", VercelTranslator)
    seen: list[feeds.Feed] = []
    with override_settings(DURABLE_STREAMS={"MAX_RESPONSE_MEMORY": 60_000}), ExitStack() as slow:
        for _ in range(5):
            reader = slow.enter_context(feeds.opened("key", source))
            seen.append(reader._feed)
            with pytest.raises(ServiceUnavailable):
                await drain(reader)
    assert len({*seen}) == 5
    assert not sum(len(chunk) for feed in seen for chunk in feed._chunks)
    assert not sum(feed.size for feed in seen)


def test_the_history_of_a_long_answer_takes_the_time_of_its_length() -> None:
    """A sum for each piece would copy 100 GB here."""
    history = History()
    history.add(Start("r", "m"))
    began = time.process_time()
    for _ in range(20_000):
        history.add(Text("a" * 500))
    assert len(history.messages[0].text) == 10_000_000
    assert time.process_time() - began < 10


async def test_a_body_that_is_nested_too_deeply_for_the_project_is_a_400() -> None:
    value: Any = []
    for _ in range(500):
        value = [value]
    reply = await post(await client_of("ann"), "/api/chat", {**body(), "script": value})
    assert reply.status_code == 400
    assert "nested" in reply.json()["error"]


def test_answers_of_a_busy_process_commit_less_often_until_it_is_calm() -> None:
    now = used = 0.0

    def interval_after(load: float, seconds: float = SAMPLE_SECONDS) -> float:
        nonlocal now, used
        now, used = now + seconds, used + load * seconds
        return pace.interval(1)

    pace = Pace(lambda: now, lambda: used)
    assert interval_after(0.7) == 0.05
    assert interval_after(0.95, SAMPLE_SECONDS / 2) == 0.05  # a moment is no measure
    assert [interval_after(load) for load in (1.0, 0.95, 1.7)] == [0.05 * stretch for stretch in STRETCHES[1:4]]
    assert interval_after(0.7) == interval_after(0.85) == 0.05 * STRETCHES[3]
    assert [interval_after(load) for load in (0.6, 0.7, 0.2)] == [0.05 * STRETCHES[step] for step in (2, 2, 1)]
    for load, interval in ((1.0, 0.05 * STRETCHES[-1]), (0.1, 0.05)):
        for _ in STRETCHES:
            interval_after(load)
        assert interval_after(load) == interval


def test_commits_of_a_phase_are_at_the_same_moments() -> None:
    """Writers of all others are between them, and none is at once or later than its interval."""
    stream = Stream.objects.create(path="a", content_type="application/json")

    def ticks(phase: float, pace: float | None) -> list[float]:
        core = StreamCommitter(stream, USING, WriterSettings(interval=0.05))
        core.phase, core.pace = phase, None if pace is None else lambda: pace
        return [round(core._next_tick(now), 6) for now in (0.0, 0.049, 0.05, 0.06, 0.08)]

    assert ticks(0.0, None) == [0.05, 0.05, 0.1, 0.1, 0.1]
    assert ticks(0.5, None) == [0.025, 0.075, 0.075, 0.075, 0.125]
    assert ticks(0.25, 0.2) == [0.05, 0.05, 0.25, 0.25, 0.25]


def test_the_watch_of_clients_does_not_keep_an_event_loop_that_has_ended() -> None:
    async def use() -> weakref.ref[asyncio.AbstractEventLoop]:
        event_body._watch()
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use())
    gc.collect()
    assert loop() is None
