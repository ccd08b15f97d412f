"""Feeds: the chunks of a run or a chat for all readers of one event loop, translated once.

A reader is a position in the feed's list, not a queue, and reads from the beginning whenever it comes. The feed follows
the chat's stream while it has readers. Readers at the same position get the same portion, which is encoded once. A
reader that waits is woken by the feed alone: it has no timer of its own, and polls nothing. Knows no request and no
format of a response.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ...conf import config
from ...models import Stream
from ...protocol.errors import ServiceUnavailable
from ...runtime.results import copy_of
from ...runtime.timeouts import shared_timeouts
from .dialects.base import REPLACED, Chunk, Translator, json_bytes
from .events import decode, ends

LINGER_SECONDS = 5.0
"""For how long a feed waits for the next reader. A long-poll leaves it with each response, and comes again at once."""

MAX_SHARED = 16
"""Portions that readers at the same position share. Each reader of the newest chunks is at the same one."""

PORTION_BYTES = 64 * 1024
"""Bytes of chunks from which a portion for a reader is large enough."""

LARGE_FEED_BYTES = 16 * 1024 * 1024
"""Bytes of chunks from which a feed ends if all feeds of its event loop have more than MAX_RESPONSE_MEMORY. A chat may
have many times the bytes of its stream: each answer that is made again repeats the messages for some clients."""

MAX_WOKEN = 50
"""Readers to wake in one turn of the event loop, which may delay all of their writes until it ends."""


@dataclass(slots=True)
class News:
    """What a reader gets at once. Readers at the same position share it.

    Attributes:
        chunks: further chunks, each as JSON.
        position: the number of chunks up to here.
        up_to_date: whether the feed has all chunks of the moment.
        is_complete: whether no chunk will follow.
    """

    chunks: list[bytes]
    position: int
    up_to_date: bool
    is_complete: bool
    _encoded: dict[Callable[[list[bytes]], bytes], bytes] = field(default_factory=dict)

    def encoded(self, encode: Callable[[list[bytes]], bytes]) -> bytes:
        """Return the chunks in a format: what a function makes of them, called once for all readers."""
        data = self._encoded.get(encode)
        if data is None:
            data = self._encoded[encode] = encode(self.chunks)
        return data

    def as_events(self, end: bytes) -> bytes:
        """Return the chunks as Server-Sent Events without names, and an end after the last chunk of all."""
        data = self.encoded(_events)
        return data + end if self.is_complete else data


def _events(chunks: list[bytes]) -> bytes:
    return b"".join([b"data: %b\n\n" % chunk for chunk in chunks])


class FeedSource(NamedTuple):
    """What a feed reads: a run of a chat, or with an empty `run` the whole chat. A translator may need an await."""

    stream: Stream
    offset: str
    run: str
    translator: Callable[[], Translator | Awaitable[Translator]]


class Feed:
    """The chunks of one source. `opened` has it for its readers.

    Attributes:
        up_to_date: whether the feed has all chunks of the moment.
        is_complete: whether no chunk will follow.
        is_broken: whether the feed has ended before its source, so that it is of no use to a new reader.
        error: why it has ended so. None: the process is asked to end.
    """

    def __init__(self, source: FeedSource) -> None:
        self._source = source
        self._chunks: list[bytes] = []
        """Empty: a snapshot that a later one has replaced. Readers do without it, and keep their positions."""
        self._snapshot: int | None = None
        """The number of the last snapshot."""
        self._news: dict[int, News] = {}
        """By position, until the next change."""
        self.size = 0
        """Bytes of the chunks."""
        self.up_to_date = self.is_complete = self.is_broken = False
        self.error: BaseException | None = None
        self.timeouts = shared_timeouts()  # own ones would set a timer anew with each chunk
        """Wakes readers whose time is over."""
        self._waiting: dict[FeedReader, None] = {}
        self._pump: asyncio.Task[None] | None = None
        self.reader_count = 0
        self._leaving: asyncio.TimerHandle | None = None

    def join(self) -> None:
        """Count one more reader. The first one begins the work."""
        self.reader_count += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._read(), context=Context())

    def leave(self, drop: Callable[[Feed], None]) -> None:
        """Count one reader less, and have the feed dropped if no other one comes."""
        self.reader_count -= 1
        if not self.reader_count:
            self._leaving = asyncio.get_running_loop().call_later(LINGER_SECONDS, drop, self)

    def wait(self, reader: FeedReader) -> None:
        """Wake a reader at the next change."""
        self._waiting[reader] = None

    def stop_waiting(self, reader: FeedReader) -> None:
        """Do not wake a reader, which may have been woken already."""
        self._waiting.pop(reader, None)

    def news_after(self, position: int, *, is_told: bool) -> News | None:
        """Return the next portion for readers at a position, which is no copy of the whole. None: there is none.

        Args:
            position: the number of chunks that the readers have.
            is_told: whether they know that these were all chunks of the moment. Otherwise that is news.
        """
        news = self._news.get(position)
        if news is None:
            if len(self._chunks) <= position and not self.is_complete and not self.up_to_date:
                return None
            news = self._news_after(position)
        return None if is_told and not news.chunks and not news.is_complete else news

    def _news_after(self, position: int) -> News:
        size, end = 0, position
        while end < len(self._chunks) and size < PORTION_BYTES:
            size += len(self._chunks[end])
            end += 1
        is_last = end >= len(self._chunks)
        chunks = [chunk for chunk in self._chunks[position:end] if chunk]
        news = News(chunks, end, is_last and self.up_to_date, is_last and self.is_complete)
        if len(self._news) >= MAX_SHARED:
            self._news.clear()
        self._news[position] = news
        return news

    def close(self) -> None:
        """End the work of the feed."""
        if self._pump is not None:
            self._pump.cancel()

    async def _read(self) -> None:
        made, offset = self._source.translator(), self._source.offset
        try:
            translator = made if isinstance(made, Translator) else await made
            # Existing events come first, without a wait: an empty chat has no page, and its readers are up to date.
            offset = await self._read_pages(offset, translator, timeout=0)
            self._tell(up_to_date=True)
            if not self.is_complete:
                await self._read_pages(offset, translator, timeout=None)
        except Exception as error:
            self.error = error
        finally:
            self.is_broken = not self.is_complete
            self._tell(up_to_date=self.up_to_date)

    async def _read_pages(self, offset: str, translator: Translator, timeout: float | None) -> str:
        async with aclosing(self._source.stream.atail(offset, timeout=timeout)) as pages:  # type: ignore[type-var]
            async for page in pages:
                offset = page.next_offset
                self.is_complete = self._take(page.messages, translator) or page.closed
                self._tell(up_to_date=page.up_to_date or self.is_complete)
                if self.is_complete:
                    break
        return offset

    def _take(self, values: list[Any], translator: Translator) -> bool:
        """Translate the next events of the stream, and return whether the run has ended with them."""
        run = self._source.run
        events = [decode(value) for value in values]
        for event, chunks in zip(events, translator.translate_page(events), strict=False):
            for chunk in chunks:
                self._add(chunk, is_snapshot=chunk.get("type") == translator.snapshot)
            self._check_size()
            if run and ends(event, run):
                return True
        return False

    def _add(self, chunk: Chunk, *, is_snapshot: bool) -> None:
        if is_snapshot:
            if self._snapshot is not None:
                self.size -= len(self._chunks[self._snapshot])
                self._chunks[self._snapshot] = b""
            self._snapshot = len(self._chunks)
        encoded = b"" if chunk is REPLACED else json_bytes(chunk)
        self._chunks.append(encoded)
        self.size += len(encoded)

    def _check_size(self) -> None:
        if self.size > LARGE_FEED_BYTES:
            held = sum(feed.size for feed in _feeds.get(asyncio.get_running_loop(), {}).values())
            if held > config().max_response_memory:
                # Slow readers keep a feed that has ended, and each new reader begins another one.
                self._chunks, self._news, self.size, self.up_to_date = [], {}, 0, False
                raise ServiceUnavailable("Too many long chats are being read. Try again.")

    def _tell(self, *, up_to_date: bool) -> None:
        self.up_to_date = up_to_date
        self._news = {}
        readers, self._waiting = self._waiting, {}
        _wake(iter(readers))


def _wake(readers: Iterator[FeedReader]) -> None:
    """Wake some readers now, and the others in the next turns of the event loop."""
    for _ in range(MAX_WOKEN):
        reader = next(readers, None)
        if reader is None:
            return
        reader.wake_for_news()
    asyncio.get_running_loop().call_soon(_wake, readers)


class FeedReader:
    """A reader: a position in a feed, which moves on with each portion.

    Args:
        feed: the feed, which the reader has joined.
        position: number of chunks that the reader has already.
        timeout: seconds after which the reader gets news without chunks, again and again. None: none.
    """

    __slots__ = ("_feed", "_has_ended", "_is_due", "_is_told", "_timeout", "_wait", "position")

    def __init__(self, feed: Feed, position: int, timeout: float | None) -> None:
        self.position = position
        self._feed = feed
        self._timeout = timeout
        self._is_told = self._has_ended = self._is_due = False
        self._wait: asyncio.Future[None] | None = None

    async def next(self) -> News | None:
        """Return the next news: existing events, then new ones as they come. None: the feed is complete.

        It is also None, after no news that say so, when the process is asked to end.

        Raises:
            DurableStreamsError: the chat is gone, or the database does not answer.
        """
        if self._has_ended:
            return None
        news = self._take()
        if news is not None or self._has_ended:
            return news
        if self._timeout is not None:
            self._feed.timeouts.add(self, self._timeout)
        try:
            return await self._next()
        finally:
            if self._timeout is not None:
                self._feed.timeouts.remove(self, self._timeout)
                self._is_due = False

    async def _next(self) -> News | None:
        """Wait for news. Events without chunks give no more time."""
        while not self._is_due:
            self._wait = asyncio.get_running_loop().create_future()
            self._feed.wait(self)
            try:
                await self._wait
            finally:
                self._wait = None
                self._feed.stop_waiting(self)
            news = self._take()
            if news is not None or self._has_ended:
                return news
        return News([], self.position, self._feed.up_to_date, False)

    def _take(self) -> News | None:
        """Return the news that are at hand. None: there are none, or the feed has ended."""
        feed = self._feed
        news = feed.news_after(self.position, is_told=self._is_told)
        if news is not None:
            self.position, self._is_told, self._has_ended = news.position, news.up_to_date, news.is_complete
        elif feed.is_broken:
            if feed.error is not None:
                raise copy_of(feed.error)
            self._has_ended = True
        return news

    def wake(self) -> None:
        """End the wait: its time is over."""
        self._is_due = True
        self.wake_for_news()

    def wake_for_news(self) -> None:
        """End the wait: the feed has changed."""
        if self._wait is not None and not self._wait.done():
            self._wait.set_result(None)


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Feed]] = WeakKeyDictionary()


@contextmanager
def opened(key: Hashable, source: FeedSource, position: int = 0, timeout: float | None = None) -> Iterator[FeedReader]:
    """Read the feed of a source in the running event loop, inside the block. Readers with the same key share the feed.

    Args:
        key: names the run or chat and the dialect.
        source: what to read.
        position, timeout: see `FeedReader`.
    """
    feeds = _feeds.setdefault(asyncio.get_running_loop(), {})
    feed = feeds.get(key)
    if feed is None or feed.is_broken:
        feed = feeds[key] = Feed(source)
    feed.join()
    try:
        yield FeedReader(feed, position, timeout)
    finally:
        feed.leave(partial(_drop, feeds, key))


def _drop(feeds: dict[Hashable, Feed], key: Hashable, feed: Feed) -> None:
    feed.close()
    if feeds.get(key) is feed:
        del feeds[key]
