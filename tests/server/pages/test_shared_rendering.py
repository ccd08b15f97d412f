"""A message is rendered once for all readers of a page, within bounds, and without blocking anything."""

import asyncio
import gc
from collections import Counter
from contextlib import AsyncExitStack
from contextvars import copy_context
from weakref import ref

import pytest
from asgiref.sync import sync_to_async
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.engine import Engine, engine_for
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.server.event_stream_reader import Step
from django_durable_streams.server.pages import feed, rendered_events, rendering
from django_durable_streams.server.pages.options import EventSourceSettings
from django_durable_streams.server.pages.reader import PageReader
from django_durable_streams.server.pages.rendered_events import RenderedEvents
from django_durable_streams.server.pages.rendering import RenderedEvent
from django_durable_streams.store.operations import Append, Create
from tests.event_stream import Event, events_of
from tests.overriding import override_streams
from tests.server.pages import renderers
from tests.server.pages.conftest import PageClient
from tests.server.waiting import until, watched
from tests.tokens import token

JSON = "application/json"
READERS = 1000
QUICK = override_streams(POLL_INTERVAL=0.02, SSE_KEEP_ALIVE=0.05, SSE_DURATION=3600)
LOOKS_NEVER = override_streams(POLL_INTERVAL=3600, SSE_DURATION=3600)

COUNTED = EventSourceSettings(render=renderers.counted)


async def collect(engine: Engine, settings: EventSourceSettings) -> list[Event]:
    """Follow the stream `a` to its end."""
    snapshot = await engine.read("a", Sentinel.START)
    reader = PageReader(engine, snapshot, settings, None, engine.live_reader_limit.acquire())
    raw = b"".join([chunk async for chunk in reader.chunks()])
    return events_of(raw).events


async def append(engine: Engine, *messages: str, close: bool = False) -> None:
    data = "".join(f'"{message}"\n' for message in messages).encode()
    await engine.write(Append("a", JSON, data, close))


@LOOKS_NEVER
async def test_a_thousand_readers_share_each_rendered_message(pages: PageClient) -> None:
    engine = engine_for()
    await engine.write(Create("a", JSON, data=b'"first"\n"second"\n'))
    readers = [asyncio.create_task(collect(engine, COUNTED)) for _ in range(READERS)]
    await until(lambda: watched() == READERS)
    for number in range(10):
        await append(engine, f"one {number}", f"other {number}")
    await append(engine, "last", close=True)
    received = await asyncio.gather(*readers)
    assert len(received[0]) == 24
    assert received[0][2].data.startswith("<li>one 0</li>")
    assert all(events == received[0] for events in received)
    assert {*renderers.calls.values()} == {1}
    assert len(renderers.calls) == 23
    # A reader who comes later gets them as they are.
    assert await collect(engine, COUNTED) == received[0]
    assert {*renderers.calls.values()} == {1}
    assert all(name.startswith("durable-streams-render") for name in renderers.threads)


@LOOKS_NEVER
async def test_portions_and_chunks_change_nothing(pages: PageClient, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_for()
    await engine.write(Create("a", JSON, data=b"".join(b'"%d"\n' % number for number in range(100))))
    await append(engine, "last", close=True)
    whole = await collect(engine, EventSourceSettings())
    monkeypatch.setattr(rendering, "PORTION_MESSAGES", 7)
    monkeypatch.setattr(rendered_events, "CHUNK_BYTES", 100)
    readers = [collect(engine, COUNTED) for _ in range(20)]
    received = await asyncio.gather(*readers)
    assert [event.last_id for event in received[0]] == [event.last_id for event in whole]
    assert all(events == received[0] for events in received)
    assert {*renderers.calls.values()} == {1}


@QUICK
async def test_a_slow_renderer_delays_no_other_page_and_no_keep_alive(pages: PageClient) -> None:
    await pages.create("a", b'"x"', JSON)
    async with pages.source("slow/a") as slow:
        assert b"retry" in (await slow.next_chunk() or b"")
        while not slow.events().keep_alives:
            await slow.next_chunk()
        assert slow.events().events == []
        async with pages.source("plain/a") as quick:
            assert await quick.until(1) == ['"x"']
        renderers.may_go_on.set()
        assert await slow.until(1) == ["x"]


@QUICK
async def test_the_end_of_the_server_does_not_wait_for_a_renderer(pages: PageClient) -> None:
    await pages.create("a", b'"x"', JSON)
    async with pages.source("slow/a") as slow:
        await slow.next_chunk()
        for engine in running_engines():
            engine.end_live_reads()
        assert (await slow.rest()).events == []
    renderers.may_go_on.set()
    async with pages.source("plain/a") as source:
        assert await source.until(1) == ['"x"']


@QUICK
async def test_a_reader_that_leaves_is_forgotten_while_its_events_are_rendered(pages: PageClient) -> None:
    await pages.create("a", b'["x","y"]', JSON)
    async with AsyncExitStack() as stack:
        sources = [await stack.enter_async_context(pages.source("slow/a")) for _ in range(5)]
        for source in sources:
            await source.next_chunk()
    await until(lambda: watched() == 0)
    (engine,) = running_engines()
    assert len(engine.live_reader_limit) == 0
    renderers.may_go_on.set()


@QUICK
async def test_a_database_that_is_away_for_a_moment_ends_no_response(
    pages: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "RETRY_SECONDS", 0.01)
    await pages.create("a", b'"x"', JSON)
    engine = engine_for()
    failures = Counter[str]()
    fetch = engine.hub().fetch

    async def fail_twice(*args: object) -> object:
        failures["fetch"] += 1
        if failures["fetch"] <= 2:
            raise ServiceUnavailable
        return await fetch(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(engine.hub(), "fetch", fail_twice)
    async with pages.source("plain/a") as source:
        assert await source.until(1) == ['"x"']
    assert failures["fetch"] >= 3  # the next one may have begun


@QUICK
async def test_messages_without_events_still_move_the_id(pages: PageClient) -> None:
    await pages.create("a", b"[2,1,3,5]", JSON)
    async with pages.source("filtered/a") as source:
        while b"id:" + token(8).encode() not in source.raw:
            await source.next_chunk()
        assert [event.data for event in source.events().events] == ["2"]
    async with pages.source("filtered/a", token(8)) as source:
        await pages.append("a", b"[7,8]", JSON)
        assert await source.until(1) == ["8"]


async def test_a_language_that_a_renderer_activates_stays_with_it(pages: PageClient) -> None:
    languages = []

    def render(message: str) -> str:
        languages.append(translation.get_language())
        translation.activate("de")
        return message

    engine = engine_for()
    await engine.write(Create("a", JSON, data=b'"x"\n'))
    await append(engine, "y", close=True)
    with translation.override("fr"):
        for _ in range(3):
            await collect(engine, EventSourceSettings(render=lambda message: render(message)))
    assert languages[::2] == ["en-us"] * 3


async def test_a_page_for_each_reader_keeps_the_language_of_its_request(pages: PageClient) -> None:
    def follow(language: str, segment: Segment) -> list[str]:
        with translation.override(language):
            renderer = rendering.Renderer(
                EventSourceSettings(render=lambda message: f"{message} {translation.get_language()}"),
                context=copy_context(),
            )
        work = rendering.Work(info, segment, 0, True, "default")
        return [event.data.decode() for _, event in renderer.render(work).events]

    engine = engine_for()
    await engine.write(Create("a", JSON, data=b'"x"\n'))
    snapshot = await engine.read("a", Sentinel.START)
    info = snapshot.info
    assert snapshot.segment is not None
    assert "x fr" in (await sync_to_async(follow)("fr", snapshot.segment))[0]


def event(size: int, end: int) -> RenderedEvent:
    return RenderedEvent(bytes(size), end, str(end))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20), st.integers(0, 3000), st.booleans()), max_size=60),
    st.integers(0, 20_000),
)
def test_the_memory_of_rendered_events_is_bounded(steps: list[tuple[int, int, int, bool]], limit: int) -> None:
    memory = RenderedEvents(limit)
    for number, position, size, forgets in steps:
        if forgets:
            memory.forget(number)
        portion = [(position, event(size, position + 1)), (position + 1, event(size, position + 2))]
        memory.put(number, portion)
        assert memory.get(number, position) is not None
        assert memory.get(number, position + 1) is not None
        assert memory._size == sum(700 + len(one.data) + 33 for one in memory._order.values())
        assert memory._size <= limit or len(memory) <= 2
        assert {(feed, one) for feed, positions in memory._positions.items() for one in positions} == {*memory._order}


def test_joined_chunks_of_all_feeds_share_a_bounded_memory() -> None:
    memory = RenderedEvents()
    for number in range(3 * rendered_events.MAX_JOINED):
        memory.put(number, [(0, event(200, 1)), (1, event(50_000, 2)), (2, event(50_000, 3))])
        chunk = memory.chunk(number, 0)
        assert chunk is not None
        assert (len(chunk.data), chunk.end, chunk.has_id) == (50_200, 2, True)
        assert len(memory._joined) <= rendered_events.MAX_JOINED
        assert memory.chunk(number, 0) is chunk
    # Joined to others, a large event would be copied for each reader.
    large = event(400_000, 2)
    memory.put(number + 1, [(0, event(200, 1)), (1, large)])
    assert [len(chunk.data) for chunk in (memory.chunk(number + 1, 0),) if chunk is not None] == [200]
    assert [chunk.data is large.data for chunk in (memory.chunk(number + 1, 1),) if chunk is not None] == [True]


@LOOKS_NEVER
async def test_a_reader_with_events_of_its_own_keeps_none_that_it_has_taken(pages: PageClient) -> None:
    engine = engine_for()
    data = b"".join(b'"%d %b"\n' % (number, b"x" * 1000) for number in range(1000))
    await engine.write(Create("a", JSON, data=data))
    settings = EventSourceSettings(per_request=True)
    snapshot = await engine.read("a", Sentinel.START)
    renderer = rendering.Renderer(settings, context=copy_context())
    reader = PageReader(engine, snapshot, settings, renderer, engine.live_reader_limit.acquire())
    raw = b""
    async with reader:
        while raw.count(b"data:") < 1000:
            raw += await reader.next_chunk()
        assert reader.take() is Step.WAIT
        assert isinstance(reader._feed, feed.OwnFeed)
        assert len(reader._feed._events) == 0
    assert [one.data.split()[0] for one in events_of(raw).events] == [f'"{number}' for number in range(1000)]


async def test_the_events_of_a_stream_that_nobody_follows_are_dropped(
    pages: PageClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_for()
    await engine.write(Create("a", JSON, data=b'"x"\n'))
    await append(engine, "y", close=True)
    memory = RenderedEvents()
    monkeypatch.setattr(feed, "rendered_events", memory)
    await collect(engine, COUNTED)
    assert len(memory) == 2
    hub = engine.hub()
    hub._forget(next(iter(hub._watches.values())))
    await until(lambda: gc.collect() == 0)
    await collect(engine, COUNTED)
    assert len(memory) == 2


@LOOKS_NEVER
async def test_functions_that_a_view_makes_for_each_request_do_not_add_up(pages: PageClient) -> None:
    engine = engine_for()
    await engine.write(Create("a", JSON, data=b'"x"\n'))

    async def follow(settings: EventSourceSettings) -> PageReader:
        snapshot = await engine.read("a", Sentinel.START)
        reader = PageReader(engine, snapshot, settings, None, engine.live_reader_limit.acquire())
        async with reader:
            assert await reader.next_chunk()
        return reader

    functions = []
    for _ in range(3 * feed.MAX_FEEDS):

        def render(message: str) -> str:
            return message

        functions.append(ref(render))
        await follow(EventSourceSettings(render=render))
        await follow(COUNTED)
    del render
    (watch,) = engine.hub()._watches.values()
    assert len(watch.companions) == feed.MAX_FEEDS
    assert COUNTED.key in watch.companions
    await until(lambda: gc.collect() == 0)
    assert sum(function() is not None for function in functions) < feed.MAX_FEEDS
