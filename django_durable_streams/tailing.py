"""Following a stream from Python: what is there, then what comes, page by page.

A reader who waits is an object in the engine's hub, as the readers by HTTP are: it holds no thread and no connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import dataclass

from django.utils import timezone

from .conf import config
from .engine import Engine, background, engine_for
from .engine.hub import Hub, Watch
from .engine.read_lane import View
from .protocol import offsets, values
from .protocol.errors import StreamNotFound
from .protocol.values import Data
from .server.shutdown import watch_signals
from .store import calls, lifetime


@dataclass(frozen=True, slots=True)
class Page:
    """Messages of a stream that follow one another, and where to go on. Iterates over its messages."""

    messages: list[Data]
    next_offset: str
    """The offset behind the last message: whoever reads on from here misses nothing and gets nothing twice."""
    up_to_date: bool
    """Nothing more was in the stream."""
    closed: bool
    """Nothing more will ever be."""

    def __iter__(self) -> Iterator[Data]:
        return iter(self.messages)

    def __len__(self) -> int:
        return len(self.messages)


async def follow(path: str, offset: str, using: str, timeout: float | None) -> AsyncGenerator[Page, None]:
    """Yield pages for as long as there are any, and then as they come.

    Args:
        timeout: seconds to wait for the next page before giving up; None waits for ever, 0 not at all.

    Raises:
        InvalidOffset, OffsetGone, StreamNotFound, StreamGone, ServiceUnavailable.
    """
    engine = engine_for(using)
    view = await engine.look(path, offsets.decode(offset))
    if lifetime.needs_touch(view.info.ttl, view.info.deadline, timezone.now()):
        await engine.touch(path)
    async with aclosing(_pages(engine, view, timeout)) as pages:
        async for page in pages:
            yield page


def follow_in_thread(path: str, offset: str, using: str, timeout: float | None) -> Iterator[Page]:
    """The same for synchronous code. What is there is read in the caller's transaction, and only then is waited."""
    found = calls.find(path, using)
    start = found.locate(offsets.decode(offset))
    view = View(found, start, None, found.tail, found.closed)
    for info, segment in calls.segments(path, found.offset(start), using, config().page_bytes):
        view = View(info, view.end, segment, info.tail, info.closed)
        yield _page(view)
    if view.segment is None and view.at_end:
        yield _page(view)
    if view.at_end or (timeout is not None and timeout <= 0):
        return
    # Whatever has come meanwhile is found by the first look of the one who waits.
    seen = View(view.info, view.end, None, view.end, False)
    yield from background.iterate(_pages(engine_for(using), seen, timeout))


async def _pages(engine: Engine, view: View, timeout: float | None) -> AsyncGenerator[Page, None]:
    info = view.info
    reader = _Reader(engine.hub())
    watch_signals()
    try:
        while True:
            if view.segment is not None or view.at_end:
                yield _page(view)
            if view.at_end:
                return
            if not view.up_to_date:
                view = await engine.follow(info, view.end)
                continue
            watch = await reader.wait(view, timeout)
            if watch is None:
                return
            at_hand = None if watch.removed else watch.view(view.end)
            view = at_hand or await reader.hub.fetch(watch, view.end)
    except StreamNotFound:
        return  # deleted meanwhile, or expired
    finally:
        reader.leave()


def _page(view: View) -> Page:
    kind = view.info.content_type
    messages = list(values.messages(kind, view.segment)) if view.segment is not None else []
    return Page(messages, view.info.token(view.end), view.up_to_date, view.at_end)


class _Reader:
    """A listener in the hub, from the first wait on."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self._watch: Watch | None = None
        self._woken = asyncio.Event()

    def notify(self) -> None:
        """The stream has changed."""
        self._woken.set()

    def tick(self, now: float) -> None:
        """Time passes; the wait has a timeout of its own."""

    async def wait(self, view: View, timeout: float | None) -> Watch | None:
        """Wait for news past a view and return the watch that has them; None if the time is over.

        Where that is removed, the reader has left it: the stream is gone, or has to be looked at once more.
        """
        if timeout is not None and timeout <= 0:
            return None
        if self._watch is None:
            self._watch = await self.hub.join(view.info, self, seen_at=view.seen_at)
        watch = self._watch
        try:
            async with asyncio.timeout(timeout):
                while not (watch.removed or self.hub.stopping):
                    if watch.tail > view.end or watch.closed:
                        return watch
                    self._woken.clear()
                    await self._woken.wait()
                if watch.removed:
                    self.leave()
                    return watch
        except TimeoutError:
            pass
        return None

    def leave(self) -> None:
        """Wait no more."""
        if self._watch is not None:
            self.hub.leave(self._watch, self)
            self._watch = None
