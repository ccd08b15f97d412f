"""A feed: the events of one stream for the readers of one page, each rendered once for all of them.

A reader is a position, and asks the feed for the events after it. If they are not rendered yet, the reader waits, and
the feed renders one portion for all readers at this position. Positions are served in the order in which readers began
to wait, one portion at a time. So a reader of a long stream delays the others by a portion, not by its stream.

Knows no responses. Use it in the event loop of its hub only.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol
from weakref import finalize

from ...protocol.errors import DurableStreamsError, ServiceUnavailable
from ...protocol.segments import Segment
from ...runtime.thread_pool import ThreadPool
from ...store.upkeep import key_compaction
from .rendered_events import Chunk, RenderedEvents, rendered_events
from .rendering import Renderer, Work

if TYPE_CHECKING:
    from ...engine.hub import Hub, Watch
    from .options import EventSourceSettings

logger = logging.getLogger(__name__)

RENDER_THREADS = 4
"""Threads that render, for all pages of a process."""

MAX_FEEDS = 16
"""Feeds of one stream that later readers share. A view may make a function for each request, and so a feed."""

MAX_WOKEN = 50
"""Readers to wake in one iteration of the event loop, which may delay all of their writes until it ends."""

RETRY_SECONDS = 0.5
"""Time after which a feed asks a database that has not answered once more."""

_threads = ThreadPool("durable-streams-render", RENDER_THREADS)


class FeedReader(Protocol):
    """A reader, as its feed sees it."""

    position: int
    """The position after the last message that it has taken."""

    hub: Hub
    watch: Watch

    def on_rendered(self, *, has_failed: bool) -> None:
        """Learn that the events after the position are rendered, or cannot be. Must not block."""


class EventFeed:
    """The rendered events of one stream for one page.

    Args:
        using: alias of the database.
        renderer: makes the events.
        events: the memory in which they are kept.
    """

    def __init__(self, using: str, renderer: Renderer, events: RenderedEvents) -> None:
        self._using = using
        self._renderer = renderer
        self._events = events
        self._number = events.new_feed()
        self.born = time.monotonic()
        self._fruitless: tuple[int, int, bool] | None = None
        """A position, and the tail and closure of the stream as no event followed it."""
        self._waiting: dict[int, set[FeedReader]] = {}
        self._task: asyncio.Task[None] | None = None
        finalize(self, events.forget, self._number)

    def take(self, position: int) -> Chunk | None:
        """Return the events after a position, as far as they are rendered. None: not even the first one is."""
        return self._events.chunk(self._number, position)

    def has_more(self, watch: Watch, position: int) -> bool:
        """Return whether events may follow a position. Where `take` has none, `request` has them rendered."""
        if position >= watch.tail:
            return False
        if self._fruitless is None:
            return True
        place, tail, closed = self._fruitless
        return place != position or tail < watch.tail or closed != watch.closed

    def request(self, reader: FeedReader) -> None:
        """Have the events after a reader's position rendered, and then call its `on_rendered`."""
        self._waiting.setdefault(reader.position, set()).add(reader)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._render_while_needed(reader.hub))

    def withdraw(self, reader: FeedReader) -> None:
        """Forget a reader that has left."""
        readers = self._waiting.get(reader.position)
        if readers is not None:
            readers.discard(reader)
            if not readers:
                del self._waiting[reader.position]

    async def _render_while_needed(self, hub: Hub) -> None:
        try:
            while self._waiting:
                position, readers = next(iter(self._waiting.items()))
                has_failed = not await self._render(hub, next(iter(readers)).watch, position)
                for number, reader in enumerate(self._waiting.pop(position, ()), 1):
                    reader.on_rendered(has_failed=has_failed)
                    if number % MAX_WOKEN == 0:
                        await asyncio.sleep(0)
        finally:
            self._task = None

    async def _render(self, hub: Hub, watch: Watch, position: int) -> bool:
        """Render a portion from a position on, unless it is rendered. Return False if the readers have to leave.

        While the database does not answer, they stay: a browser would give up at the error that a new request gets.
        """
        if self.take(position) is not None or watch.ended:
            return True
        try:
            await self._render_portion(hub, watch, position)
        except DurableStreamsError as error:
            if error.status < HTTPStatus.INTERNAL_SERVER_ERROR:
                return False  # the readers reconnect, and get the error as a response
            await asyncio.sleep(RETRY_SECONDS)
        except Exception:
            logger.exception("The events of %s cannot be rendered. Its readers have to reconnect.", watch.info.path)
            return False
        return True

    async def _render_portion(self, hub: Hub, watch: Watch, position: int) -> None:
        tail, closed = watch.tail, watch.closed
        info, segment = watch.info, watch.segment_after(position)
        end = position if segment is None else segment.end
        while True:
            if segment is None or end < tail:  # no data yet, or only the beginning of a character
                snapshot = await hub.fetch(watch, end)
                info, tail, closed = snapshot.info, snapshot.tail, snapshot.closed
                if snapshot.segment is None:
                    raise ServiceUnavailable("The database shows less of the stream than it has committed.")
                segment = snapshot.segment if segment is None else Segment.join([segment, snapshot.segment])
            work = Work(info, segment, position, closed and segment.end >= tail, self._using)
            portion = await _threads.call(partial(self._renderer.render, work))
            self._events.put(self._number, portion.events)
            if portion.events:
                return
            if portion.end >= tail:
                self._fruitless = position, tail, closed
                return
            end = portion.end


class OwnFeed(EventFeed):
    """The feed of a single reader, whose events depend on its request. It keeps what the reader has not taken."""

    def __init__(self, using: str, renderer: Renderer) -> None:
        super().__init__(using, renderer, RenderedEvents(0))

    def take(self, position: int) -> Chunk | None:
        """Return the events after the position of the reader. None: it has taken all that are rendered."""
        chunk = super().take(position)
        if chunk is None and len(self._events):
            self._events = RenderedEvents(0)
        return chunk


def shared_feed(watch: Watch, using: str, settings: EventSourceSettings) -> EventFeed:
    """Return the feed of a stream for all readers of a page."""
    feeds = watch.companions
    feed: EventFeed | None = feeds.pop(settings.key, None)
    max_age = key_compaction.cache_seconds()
    if feed is None or (max_age is not None and time.monotonic() - feed.born > max_age):
        # An older one may have the event of a value whose delete was compacted since.
        feed = EventFeed(using, Renderer(settings), rendered_events)
    feeds[settings.key] = feed
    if len(feeds) > MAX_FEEDS:
        del feeds[next(iter(feeds))]  # its readers keep it
    return feed
