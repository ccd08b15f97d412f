"""Feeds: what many readers of an answer take from one translation."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import ExitStack
from typing import Any, cast

import pytest

from django_durable_streams.api.tail import Page
from django_durable_streams.contrib.ai import feeds
from django_durable_streams.contrib.ai.dialects.agui import TanStackTranslator
from django_durable_streams.contrib.ai.dialects.vercel import VercelTranslator
from django_durable_streams.contrib.ai.events import (
    AnyEvent,
    Finish,
    Message,
    Rewind,
    Start,
    Text,
    TextPart,
    decode,
    encode,
)
from django_durable_streams.protocol.errors import ServiceUnavailable

COUNT = 1000


class Stream:
    """A stream with one answer. The first reads may fail."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.reads = 0

    async def atail(self, offset: str, timeout: float | None = None) -> AsyncIterator[Page]:
        self.reads += 1
        events = [Start("r", "m"), *(Text("a" * 500) for _ in range(COUNT)), Finish("r")]
        yield Page([encode(event) for event in events[:10]], "1", up_to_date=False, closed=False)
        if self.failures:
            self.failures -= 1
            raise ServiceUnavailable("The database does not answer.")
        yield Page([encode(event) for event in events[10:]], "2", up_to_date=True, closed=False)


async def follow(
    key: str, source: feeds.FeedSource, position: int = 0, timeout: float | None = None
) -> AsyncGenerator[feeds.News, None]:
    with feeds.opened(key, source, position, timeout) as reader:
        while (news := await reader.next()) is not None:
            yield news


def source(stream: Stream) -> feeds.FeedSource:
    return feeds.FeedSource(cast("Any", stream), "-1", "r", VercelTranslator)


async def test_a_late_reader_takes_portions() -> None:
    stream = Stream()
    whole = [news async for news in follow("key", source(stream))]
    first = follow("key", source(stream))
    await anext(first)
    late = [news async for news in follow("key", source(stream))]
    await first.aclose()
    assert [chunk for news in late for chunk in news.chunks] == [chunk for news in whole for chunk in news.chunks]
    assert max(sum(map(len, news.chunks)) for news in late) < feeds.PORTION_BYTES + 1000
    assert [news.is_complete for news in late] == [False] * (len(late) - 1) + [True]
    assert [news.up_to_date for news in late] == [False] * (len(late) - 1) + [True]
    assert late[-1].position == sum(len(news.chunks) for news in late)


async def test_a_new_reader_does_not_get_a_feed_that_has_failed() -> None:
    """A reader whose connection is slow may keep it for a long time."""
    stream = Stream(failures=1)
    slow = follow("key", source(stream))
    await anext(slow)
    news = [news async for news in follow("key", source(stream))]
    assert news[-1].is_complete
    with pytest.raises(ServiceUnavailable):
        async for _ in slow:
            pass


async def test_a_feed_waits_a_moment_for_its_next_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers by long-poll come and go with each page. Each of them would translate the whole chat anew."""
    stream = Stream()
    for _ in range(3):
        async for news in follow("key", source(stream)):
            assert news.chunks
    assert stream.reads == 1
    drop, dropped = feeds._drop, asyncio.Event()

    def drop_and_tell(*args: Any) -> None:
        drop(*args)
        dropped.set()

    monkeypatch.setattr(feeds, "_drop", drop_and_tell)
    monkeypatch.setattr(feeds, "LINGER_SECONDS", 0.0)
    async for _ in follow("key", source(stream)):
        pass
    await asyncio.wait_for(dropped.wait(), 5)
    assert not feeds._feeds[asyncio.get_running_loop()]


class Quiet(Stream):
    """A stream that grows all the time by messages that no client gets."""

    async def atail(self, offset: str, timeout: float | None = None) -> AsyncIterator[Page]:
        if timeout == 0:
            return
        while True:
            yield Page([{"type": "unknown"}], "1", up_to_date=True, closed=False)
            await asyncio.sleep(0.001)


async def test_messages_that_no_client_gets_give_a_reader_no_more_time() -> None:
    with feeds.opened("quiet", source(Quiet()), timeout=0.1) as reader:
        news = await reader.next()
        assert news is not None
        assert news.up_to_date
        async with asyncio.timeout(20):
            news = await reader.next()
        assert news is not None
        assert news.chunks == []


async def test_all_readers_of_many_are_woken() -> None:
    """More of them than one turn of the event loop wakes."""
    count = 3 * feeds.MAX_WOKEN + 1
    stream = Gated()
    with ExitStack() as stack:
        readers = [stack.enter_context(feeds.opened("many", source(stream))) for _ in range(count)]
        assert {(await reader.next()).position for reader in readers} == {0}  # type: ignore[union-attr]
        waiting = [asyncio.create_task(reader.next()) for reader in readers]
        await asyncio.sleep(0)
        stream.gate.set()
        async with asyncio.timeout(20):
            portions = await asyncio.gather(*waiting)
    assert len({id(news) for news in portions}) == 1
    assert portions[0] is not None
    assert portions[0].chunks


class Gated(Stream):
    """A stream that is empty until its gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def atail(self, offset: str, timeout: float | None = None) -> AsyncIterator[Page]:
        if timeout == 0:
            return
        await self.gate.wait()
        yield Page([encode(Start("r", "m"))], "1", up_to_date=True, closed=False)
        await asyncio.Event().wait()


class Edited(Stream):
    """A chat with a long message. The message after it is edited again and again."""

    def __init__(self, edits: int, events_per_page: int) -> None:
        super().__init__()
        self.events: list[Any] = [encode(said("long", "a" * SIZE)), encode(said("short", "0"))]
        for number in range(edits):
            edit = [Rewind(after="short"), said("short", str(number)), Start(f"r{number}", f"a{number}"), Text("b")]
            self.events += [encode(event) for event in [*edit, Finish(f"r{number}")]]
        self.events_per_page = events_per_page

    async def atail(self, offset: str, timeout: float | None = None) -> AsyncIterator[Page]:
        if timeout == 0:
            for first in range(0, len(self.events), self.events_per_page):
                yield Page(self.events[first : first + self.events_per_page], "1", up_to_date=False, closed=False)


SIZE = 100_000


def said(id: str, text: str) -> Message:
    return Message(id, "user", [TextPart(text)])


@pytest.mark.parametrize("events_per_page", [1, 7, 1000])
async def test_edits_of_a_message_do_not_multiply_the_chat(events_per_page: int) -> None:
    """Each edit is a snapshot of all messages. Hundreds of them took gigabytes, and the event loop for seconds."""
    stream = Edited(200, events_per_page)
    source = feeds.FeedSource(cast("Any", stream), "-1", "", lambda: TanStackTranslator("c"))
    chunks: list[bytes] = []
    async for news in follow(f"edited {events_per_page}", source):
        chunks += news.chunks
        if news.up_to_date:
            break
    assert sum(map(len, chunks)) < 3 * SIZE
    snapshots = [chunk for chunk in chunks if b"MESSAGES_SNAPSHOT" in chunk]
    assert len(snapshots) == 1
    assert snapshots[0].endswith(b'"content":"199"}]}]}')
    # What follows the snapshot is there, and all processes count the same chunks, however they read the stream.
    assert len(chunks) - chunks.index(snapshots[0]) == 6
    alone = TanStackTranslator("c")
    assert news.position == sum(len(alone.translate(event)) for value in stream.events if (event := decode(value)))


def test_a_page_leaves_out_the_snapshots_that_it_replaces() -> None:
    events: list[AnyEvent | None] = [
        said("1", "a"),
        said("2", "b"),
        Rewind(before="2"),
        said("2", "new"),  # no snapshot: it does not count any more
        None,
        said("1", "edited"),
        said("3", "c"),
        Rewind(after="none"),
        said("3", "edited"),
        Start("r", "4"),
        Finish("r"),
        said("4", "edited"),
        said("5", "d"),
    ]
    one_by_one, whole = TanStackTranslator("c"), TanStackTranslator("c")
    expected = [chunks for event in events for chunks in one_by_one.translate_page([event])]
    made = [*whole.translate_page(events)]
    assert [len(chunks) for chunks in made] == [len(chunks) for chunks in expected]
    snapshots = [number for number, chunks in enumerate(expected) if chunks and chunks[0]["type"] == whole.snapshot]
    assert snapshots == [2, 5, 7, 8, 11]
    assert [number for number, chunks in enumerate(made) if {} in chunks] == snapshots[:-1]
    assert made[11:] == expected[11:]
