"""Feeds: the chunks of a run or a chat for all readers of one event loop, translated once.

A reader is a position in the feed's list, not a queue, and reads from the beginning whenever it comes. The feed follows
the chat's stream while it has readers. Knows no request and no format of a response.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from ...models import Stream
from ...runtime.results import copy_of
from .dialects.base import REPLACED, Chunk, Translator
from .events import decode, ends

LINGER_SECONDS = 5.0
"""For how long a feed waits for the next reader. A long-poll leaves it with each response, and comes again at once."""

MAX_SHARED = 16
"""Portions that readers at the same position share. Each reader of the newest chunks is at the same one."""

PORTION_BYTES = 64 * 1024
"""Bytes of chunks from which a portion for a reader is large enough."""


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
    _events: bytes | None = None

    def as_events(self, end: bytes) -> bytes:
        """Return the chunks as Server-Sent Events without names, and an end after the last chunk of all."""
        if self._events is None:
            self._events = b"".join([b"data: %b\n\n" % chunk for chunk in self.chunks])
        return self._events + end if self.is_complete else self._events


class FeedSource(NamedTuple):
    """What a feed reads: a run of a chat, or with an empty `run` the whole chat."""

    stream: Stream
    offset: str
    run: str
    translator: Callable[[], Translator]


class Feed:
    """The chunks of one source. `open_feed` returns it."""

    def __init__(self, source: FeedSource) -> None:
        self._source = source
        self._chunks: list[bytes] = []
        """Empty: a snapshot that a later one has replaced. Readers do without it, and keep their positions."""
        self._snapshot: int | None = None
        """The number of the last snapshot."""
        self._news: dict[int, News] = {}
        """By position, until the next change."""
        self._is_up_to_date = False
        self._is_complete = False
        self._is_broken = False
        self._error: BaseException | None = None
        self._changed = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None
        self.reader_count = 0
        self._leaving: asyncio.TimerHandle | None = None

    def join(self) -> None:
        """Count one more reader."""
        self.reader_count += 1
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def leave(self, drop: Callable[[Feed], None]) -> None:
        """Count one reader less, and have the feed dropped if no other one comes."""
        self.reader_count -= 1
        if not self.reader_count:
            self._leaving = asyncio.get_running_loop().call_later(LINGER_SECONDS, drop, self)

    async def follow(self, position: int = 0, timeout: float | None = None) -> AsyncGenerator[News, None]:
        """Yield existing events from a position on, then new ones, until the feed is complete.

        It also ends, without news that says so, when the process is asked to end.

        Args:
            position: number of chunks that the reader has already.
            timeout: seconds after which the reader gets news without chunks, again and again. None: none.

        Raises:
            DurableStreamsError: the chat is gone, or the database does not answer.
        """
        if self._pump is None:
            self._pump = asyncio.get_running_loop().create_task(self._read(), context=Context())
        is_told = False
        ends = _after(timeout)
        while True:
            changed = self._changed
            has_more = len(self._chunks) > position
            if has_more or self._is_complete or (self._is_up_to_date and not is_told):
                news = self._news_after(position)
                position, is_told = news.position, news.up_to_date
                yield news
                if news.is_complete:
                    return
                ends = _after(timeout)
                continue
            if self._is_broken:
                if self._error is not None:
                    raise copy_of(self._error)
                return
            try:
                async with asyncio.timeout_at(ends):  # events without chunks give no more time
                    await changed.wait()
            except TimeoutError:
                yield News([], position, self._is_up_to_date, False)
                ends = _after(timeout)

    def _news_after(self, position: int) -> News:
        """Return the next portion for readers at a position. Late readers take no copies of the whole."""
        news = self._news.get(position)
        if news is None:
            size, end = 0, position
            while end < len(self._chunks) and size < PORTION_BYTES:
                size += len(self._chunks[end])
                end += 1
            is_last = end >= len(self._chunks)
            chunks = [chunk for chunk in self._chunks[position:end] if chunk]
            news = News(chunks, end, is_last and self._is_up_to_date, is_last and self._is_complete)
            if len(self._news) >= MAX_SHARED:
                self._news.clear()
            self._news[position] = news
        return news

    @property
    def is_broken(self) -> bool:
        """Whether the feed has ended before its source, so that it is of no use to a new reader."""
        return self._is_broken

    def close(self) -> None:
        """End the work of the feed."""
        if self._pump is not None:
            self._pump.cancel()

    async def _read(self) -> None:
        translator, offset = self._source.translator(), self._source.offset
        try:
            # Existing events come first, without a wait: an empty chat has no page, and its readers are up to date.
            offset = await self._read_pages(offset, translator, timeout=0)
            self._tell(up_to_date=True)
            if not self._is_complete:
                await self._read_pages(offset, translator, timeout=None)
        except Exception as error:
            self._error = error
        finally:
            self._is_broken = not self._is_complete
            self._tell(up_to_date=self._is_up_to_date)

    async def _read_pages(self, offset: str, translator: Translator, timeout: float | None) -> str:
        async with aclosing(self._source.stream.atail(offset, timeout=timeout)) as pages:  # type: ignore[type-var]
            async for page in pages:
                offset = page.next_offset
                self._is_complete = self._take(page.messages, translator) or page.closed
                self._tell(up_to_date=page.up_to_date or self._is_complete)
                if self._is_complete:
                    break
        return offset

    def _take(self, values: list[Any], translator: Translator) -> bool:
        """Translate the next events of the stream, and return whether the run has ended with them."""
        run = self._source.run
        events = [decode(value) for value in values]
        for event, chunks in zip(events, translator.translate_page(events), strict=False):
            for chunk in chunks:
                self._add(chunk, is_snapshot=chunk.get("type") == translator.snapshot)
            if run and ends(event, run):
                return True
        return False

    def _add(self, chunk: Chunk, *, is_snapshot: bool) -> None:
        if is_snapshot:
            if self._snapshot is not None:
                self._chunks[self._snapshot] = b""
            self._snapshot = len(self._chunks)
        self._chunks.append(b"" if chunk is REPLACED else msgspec.json.encode(chunk))

    def _tell(self, *, up_to_date: bool) -> None:
        self._is_up_to_date = up_to_date
        self._news = {}
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _after(seconds: float | None) -> float | None:
    """Return the time of the event loop after some seconds."""
    return None if seconds is None else asyncio.get_running_loop().time() + seconds


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Hashable, Feed]] = WeakKeyDictionary()


async def follow(
    key: Hashable, source: FeedSource, position: int = 0, timeout: float | None = None
) -> AsyncGenerator[News, None]:
    """Follow the feed of a source in the running event loop. Readers with the same key share it.

    Args:
        key: names the run or chat and the dialect.
        source: what to read.
        position, timeout: see `Feed.follow`.

    Raises:
        The errors of `Feed.follow`.
    """
    feeds = _feeds.setdefault(asyncio.get_running_loop(), {})
    feed = feeds.get(key)
    if feed is None or feed.is_broken:
        feed = feeds[key] = Feed(source)
    feed.join()
    try:
        async with aclosing(feed.follow(position, timeout)) as news:
            async for item in news:
                yield item
    finally:
        feed.leave(partial(_drop, feeds, key))


def _drop(feeds: dict[Hashable, Feed], key: Hashable, feed: Feed) -> None:
    feed.close()
    if feeds.get(key) is feed:
        del feeds[key]
