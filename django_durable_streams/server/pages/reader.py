"""The reader of an event source: its chunks are the rendered events of its feed.

It waits in the hub, as all live readers do. While its events are rendered it waits there too, so it goes on to send
signs of life, and it ends with its permission and with the server.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ...protocol import page_events
from ..event_stream_reader import EventStreamReader, Step
from .feed import EventFeed, OwnFeed, shared_feed

if TYPE_CHECKING:
    from ...engine import Engine
    from ...engine.live_reader_limit import LiveReaderSlot
    from ...engine.snapshot_reader import Snapshot
    from ...protocol.messages import LiveGrant
    from .options import EventSourceSettings
    from .rendering import Renderer


class PageReader(EventStreamReader):
    """A reader of a stream for a page.

    Args:
        snapshot: the stream as the request has seen it.
        settings: the options of the event source.
        renderer: makes the events of this reader alone. None: all readers of the page share them.
        slot: as for `EventStreamReader`.
        grant: as for `EventStreamReader`.
    """

    kind = "page"

    __slots__ = ("_event_id", "_feed", "_has_failed", "_has_unsent_id", "_settings", "_using", "position")

    def __init__(
        self,
        engine: Engine,
        snapshot: Snapshot,
        settings: EventSourceSettings,
        renderer: Renderer | None,
        slot: LiveReaderSlot,
        grant: LiveGrant | None = None,
    ) -> None:
        super().__init__(engine.hub(), snapshot, slot, grant)
        self.position = snapshot.position
        """The position after the last message."""
        self._using = engine.using
        self._settings = settings
        self._feed: EventFeed | None = None if renderer is None else OwnFeed(engine.using, renderer)
        self._has_failed = False
        """Whether the events after the position cannot be rendered."""
        self._event_id = snapshot.info.token(snapshot.position)
        """The id of the last message."""
        self._has_unsent_id = False
        """Whether the last message has no event."""

    def close(self) -> None:
        """Leave, and release all that the reader holds. May be called again."""
        if self._feed is not None:
            self._feed.withdraw(self)
            self._feed = None
        super().close()

    def take(self) -> bytes | Step:
        """Return the next chunk if it is at hand, otherwise the step that leads to it."""
        if self._first is not None:
            return self._start()
        watch, feed = self.watch, self._feed
        if self.finished or self._abandoned or watch.ended or self._has_failed or feed is None:
            return self._finish()
        now = time.monotonic()
        is_over = self._is_over(now)
        while not is_over and (chunk := feed.take(self.position)) is not None:
            feed.withdraw(self)
            self.position, self._event_id = chunk.end, chunk.event_id
            self._has_unsent_id = not chunk.has_id
            if chunk.data:
                return self._count(chunk.data)
        has_more = feed.has_more(watch, self.position)
        if watch.closed and not has_more and self.is_permitted(now):
            return self._end()
        if is_over:
            return self._finish()
        if has_more:
            feed.request(self)
        if now - self._last_chunk >= self._keep_alive:
            has_id, self._has_unsent_id = self._has_unsent_id, False
            return self._count(page_events.encode_keep_alive(self._event_id if has_id else None))
        return Step.WAIT

    @property
    def is_current(self) -> bool:
        """Whether no chunk is at hand until news arrive. Ask right after a chunk was taken."""
        feed = self._feed
        return feed is not None and not feed.has_more(self.watch, self.position) and not self.watch.closed

    def notify(self) -> None:
        """The stream has changed. Where its events are not rendered yet, the feed calls `on_rendered`."""
        feed = self._feed
        if feed is None or self._wait is None:
            return
        if feed.take(self.position) is None and feed.has_more(self.watch, self.position) and not self.watch.ended:
            feed.request(self)
        else:
            self.on_news()

    def on_rendered(self, *, has_failed: bool) -> None:
        """The events after the position are rendered, or cannot be."""
        self._has_failed = has_failed
        if self._wait is not None:
            self.on_news()

    def _start(self) -> bytes:
        self._first = None
        if self._feed is None:
            self._feed = shared_feed(self.watch, self._using, self._settings)
        return self._count(page_events.encode_retry(self._settings.retry))

    def _end(self) -> bytes:
        self.finished = True
        return self._count(page_events.encode_closed(self._settings.end_event, self._event_id))
