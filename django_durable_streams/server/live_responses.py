"""Readers that stay: long-poll and SSE (specification, sections 5.7 and 5.8).

A waiting reader is an object in the hub, and holds no thread, no connection and no queue: it knows its position, and
what lies past it comes from the watch's newest segments, or from the database.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from enum import Enum
from typing import Any

from asgiref.sync import sync_to_async

from ..conf import config
from ..engine import Engine
from ..engine.hub import LARGE_EVENT_BYTES, Hub, Watch
from ..engine.live_reader_limit import LiveReaderSlot
from ..engine.snapshot_reader import Snapshot
from ..protocol import caching, content, sse, text
from ..protocol.errors import DurableStreamsError
from ..protocol.messages import LiveGrant
from ..runtime.results import Reply
from ..runtime.servers import servers_of_thread

LARGE_BYTES = 1024 * 1024
"""Data from which an event is made in pieces, so that other requests do not wait for it, and it never is in memory as a
whole: it may have six times as many bytes. A page is smaller, unless it is a single append."""


class LongPoll:
    """Waits on a stream until there is something past a position.

    Args:
        view: the stream as it was seen, with nothing past its position.
        deliver: sends the answer that a view is, if that can be done at once, and returns whether it was. It is given
            the view and what those have in common who are told of the same news.
        grant: what the read stands on, where that can end. Then the wait ends too.
        lasting: whether the event loop goes on after the request.
    """

    __slots__ = (
        "_deliver",
        "_engine",
        "_grant",
        "_hub",
        "_lasting",
        "_position",
        "_stopped",
        "_view",
        "_watch",
        "_woken",
        "delivered",
    )

    def __init__(
        self,
        engine: Engine,
        view: Snapshot,
        deliver: Callable[[Snapshot, dict[Any, Any]], bool],
        grant: LiveGrant | None = None,
        *,
        lasting: bool = True,
    ) -> None:
        self.delivered = False
        self._engine = engine
        self._view = view
        self._position = view.position
        self._deliver = deliver
        self._grant = grant
        self._stopped = False
        self._lasting = lasting
        self._watch: Watch | None = None
        self._hub = engine.hub(lasting=lasting)
        self._woken = Reply(loop=self._hub.loop)

    def notify(self) -> None:
        """The stream has changed: answer from here, or wake the one who waits."""
        watch = self._watch
        if watch is None or self.delivered or self._woken.done():
            return  # before it waits it looks by itself
        view = None if watch.removed or not self._may_go_on(time.monotonic()) else watch.view(self._position)
        if view is not None and view.segment is not None:
            self.delivered = self._deliver(view, watch.shared_responses)
            if self.delivered:
                watch.after_notify.append(self.wake)
                return
        elif view is not None and not view.closed:
            return  # the hub has only now heard of what this reader knows already
        self.wake()

    def wake(self) -> None:
        """End the wait."""
        self._woken.resolve(None)

    def tick(self, now: float) -> None:
        """Time passes; the wait has a timeout of its own, but what it stands on may end."""
        if not self._may_go_on(now):
            self.wake()

    def stop(self) -> None:
        """The server is about to end: answer with what there is."""
        self._stopped = True
        self.wake()

    def _may_go_on(self, now: float) -> bool:
        return self._grant is None or self._grant.holds(now)

    async def wait(self) -> Snapshot:
        """Return the stream and what has come past the position; where nothing came, the time is up.

        Raises:
            StreamNotFound: the stream was deleted or has expired meanwhile.
            OffsetGone: the database has lost what was before the position.
        """
        hub = self._hub
        info, position = self._view.info, self._position
        # Under WSGI the server is none of the event loop's: it waits further up, in the thread of the request.
        servers = () if self._lasting else await sync_to_async(servers_of_thread)()
        watch = await hub.join(info, self, servers, seen_at=self._view.seen_at)
        try:
            if not (watch.tail > position or watch.closed or watch.removed or self._stopped):
                seconds = config().long_poll_timeout
                if self._grant is not None:
                    seconds = min(seconds, self._grant.seconds_left)
                hub.timeouts.add(self, seconds)
                self._watch = watch
                try:
                    await self._woken
                finally:
                    self._watch = None
                    hub.timeouts.remove(self, seconds)
            if not watch.removed:
                view = watch.view(position)
                if view is not None:
                    return view
        finally:
            hub.leave(watch, self)
        return await hub.fetch(watch, position)


class Step(Enum):
    """What a reader needs before it has its next chunk."""

    FETCH = "data from the database, or the next piece of what it has"
    WAIT = "something to happen"


class SseReader:
    """A reader of a stream by Server-Sent Events. Use it as an asynchronous context manager.

    It is asked for one chunk after the other, each of which is a data event with its control event, a control event,
    or a comment. `finished` says that the last chunk was the last.

    Args:
        view: the stream as the request found it, with the first page.
        client_cursor: the `cursor` parameter.
        place: the reader's, given back when it leaves.
        grant: what the read stands on, where that can end. Then the response ends as it does after its time.
    """

    def __init__(
        self,
        engine: Engine,
        view: Snapshot,
        client_cursor: str | None,
        place: LiveReaderSlot,
        grant: LiveGrant | None = None,
    ) -> None:
        settings = config()
        self.finished = False
        self.on_news: Callable[[], None] = self.wake
        """Called when there may be a chunk to take. A door may put its own function here while it waits."""
        self.on_stopping: Callable[[], None] = _do_nothing
        """Called when the server is about to end, whether or not the reader waits for a chunk."""
        self._engine = engine
        self._grant = grant
        self._place = place
        self._info = view.info
        self._position = view.position
        self._held = b""
        self._has_begun = False
        self._is_behind = False
        """Whether the last control event did not say that the reader is up to date."""
        self._first: Snapshot | None = view
        self._rest: Iterator[bytes] | None = None  # of a large event
        self._pause = 0.0
        self._cursor_floor = caching.cursor_floor(client_cursor, time.time())
        self._bytes_left = settings.sse_max_bytes
        self._keep_alive = settings.sse_keep_alive
        self._last_chunk = time.monotonic()
        self._deadline = self._last_chunk + settings.sse_duration
        self._abandoned = False
        self._stopped = False
        self._woken: asyncio.Future[None] | None = None
        self._hub: Hub
        self._watch: Watch

    async def __aenter__(self) -> SseReader:
        self._hub = self._engine.hub()
        seen_at = self._first.seen_at if self._first is not None else 0.0
        try:
            self._watch = await self._hub.join(self._info, self, seen_at=seen_at)
        except BaseException:
            self._place.release()
            raise
        return self

    async def __aexit__(self, *args: object) -> None:
        self._place.release()
        self._hub.leave(self._watch, self)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield all chunks, to the end of the response."""
        async with self:
            while not self.finished:
                chunk = await self.next_chunk()
                if chunk:
                    yield chunk

    async def next_chunk(self) -> bytes:
        """Return the next chunk. Empty: there is none, as `finished` says, or after waiting for news."""
        chunk = self.take()
        if chunk is Step.WAIT:
            await self._news()
            return b""
        if chunk is Step.FETCH:
            return await self._fetch()
        return chunk

    def take(self) -> bytes | Step:
        """Return the next chunk if it is at hand, or what it takes to have it."""
        watch = self._watch
        if self._first is not None:
            if self._is_cut(self._first):
                return Step.FETCH
            view, self._first = self._first, None
            return self._from_view(view, opens=True)
        if self._rest is not None and not self._abandoned:
            return Step.FETCH
        if self.finished or self._abandoned or watch.removed:
            return self._finish()
        now = time.monotonic()
        over = self._bytes_left <= 0 or self._stopped or self._is_due(now)
        if self._position < watch.tail and not over:
            is_large = watch.tail - self._position > LARGE_BYTES
            frame = None if is_large else watch.frame(self._position, self._cursor(), self._held)
            if frame is None or (frame.is_cut and not self._has_begun):
                return Step.FETCH
            chunk, self._position, self._held = frame.chunk, frame.end, frame.held
            self._has_begun = True
            if frame.is_large:
                self._rest = self._large_event(chunk, up_to_date=True, closed=frame.closed)
                return self._count(next(self._rest))
            self.finished = frame.closed
            if chunk:
                self._is_behind = False
                return self._count(chunk)
            if self._is_behind:  # all that is left begins a character
                return self._chunk(b"", up_to_date=True, closed=False)
        if watch.closed and self._position >= watch.tail:
            self.finished = True
            rest, self._held = self._held, b""
            event = sse.data_event(self._info.content_type, rest) if rest else b""
            return self._chunk(event, up_to_date=True, closed=True)
        if over:
            self.finished = True
            return self._chunk(b"", up_to_date=self._position >= watch.tail, closed=False)
        if now - self._last_chunk >= self._keep_alive:
            return self._count(sse.KEEP_ALIVE)
        return Step.WAIT

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to take before something happens, right after a chunk was taken."""
        watch = self._watch
        is_at_end = self._position >= watch.tail and self._rest is None
        return is_at_end and self._bytes_left > 0 and not (watch.closed or self.finished)

    async def _news(self) -> None:
        """Wait until there may be a chunk to take."""
        self._woken = asyncio.get_running_loop().create_future()
        try:
            await self._woken
        finally:
            self._woken = None

    def wake(self) -> None:
        """End the wait for news."""
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    def abandon(self) -> None:
        """The client has left."""
        self._abandoned = True
        self.wake()

    def notify(self) -> None:
        """The stream has changed."""
        if self._woken is not None:
            self.on_news()

    def stop(self) -> None:
        """The server is about to end, and so does the response, with a last control event."""
        self._stopped = True
        self.on_stopping()
        self.notify()

    def tick(self, now: float) -> None:
        """Time passes: the response may be over, or a proxy in need of traffic."""
        if self._woken is not None and (self._is_due(now) or now - self._last_chunk >= self._keep_alive):
            self.on_news()

    def _is_due(self, now: float) -> bool:
        """Whether the response's time is over, or what it stands on has ended."""
        return now >= self._deadline or (self._grant is not None and not self._grant.holds(now))

    async def _fetch(self) -> bytes:
        if self._rest is not None:
            await asyncio.sleep(self._pause)  # others have more time between two pieces than a piece has taken
            began = time.monotonic()
            piece = next(self._rest, None)
            self._pause = 2 * (time.monotonic() - began)
            if piece is None:
                self._rest = None
            return self._count(piece or b"")
        try:
            view, self._first = self._first, None
            opens = view is not None
            if view is None:
                view = await self._hub.fetch(self._watch, self._position)
            if self._is_cut(view):
                self._held = await self._before(view.position)
        except DurableStreamsError:
            return self._finish()  # the client reconnects, and is told why
        return b"" if view.segment is None else self._from_view(view, opens=opens)

    def _is_cut(self, view: Snapshot) -> bool:
        """Whether the first data is the rest of a character, of which the beginning lies before the reader's offset."""
        segment = view.segment
        return (
            segment is not None
            and not self._has_begun
            and view.position > self._info.first_position
            and text.is_cut(segment.data)
            and content.holds_text(self._info.content_type)
        )

    async def _before(self, position: int) -> bytes:
        """Return the bytes before a position that begin a character."""
        start = max(position - text.MAX_HELD, self._info.first_position)
        segment = (await self._engine.follow(self._info, start)).segment
        return b"" if segment is None else segment.held_before(position)

    def _from_view(self, view: Snapshot, *, opens: bool) -> bytes:
        self._info, self._position = view.info, view.end
        if view.segment is not None and len(view.segment.data) > LARGE_BYTES:
            self._has_begun = True
            self._rest = self._pieces(view, view.segment.data)
            return self._count(next(self._rest))
        event = b""
        if view.segment is not None:
            self._has_begun = True
            event, self._held = view.segment.data_event(self._info.content_type, self._held, final=view.at_end)
            if len(event) >= LARGE_EVENT_BYTES:
                self._rest = self._large_event(event, up_to_date=view.up_to_date, closed=view.at_end)
                return self._count(next(self._rest))
        self.finished = view.at_end
        says_more = opens or view.at_end or (self._is_behind and view.up_to_date)
        if view.segment is not None and not (event or says_more):
            return b""  # nothing that can be handed out yet
        return self._chunk(event, up_to_date=view.up_to_date, closed=view.at_end)

    def _pieces(self, view: Snapshot, data: bytes) -> Iterator[bytes]:
        """Yield a data event and its control event in pieces."""
        if content.holds_text(self._info.content_type):
            data, self._held = sse.split(self._held + data, final=view.at_end)
        yield from sse.event_pieces(self._info.content_type, data)
        yield self._last_piece(up_to_date=view.up_to_date, closed=view.at_end)

    def _large_event(self, event: bytes, *, up_to_date: bool, closed: bool) -> Iterator[bytes]:
        """Yield a data event that others get too, as it is, and its control event."""
        yield event
        yield self._last_piece(up_to_date=up_to_date, closed=closed)

    def _last_piece(self, *, up_to_date: bool, closed: bool) -> bytes:
        self.finished = closed
        return self._control(up_to_date=up_to_date, closed=closed)

    def _chunk(self, event: bytes, *, up_to_date: bool, closed: bool) -> bytes:
        """Return a data event with its control event, or that alone."""
        return self._count(event + self._control(up_to_date=up_to_date, closed=closed))

    def _control(self, *, up_to_date: bool, closed: bool) -> bytes:
        """Return a control event. Its offset is the one before what is held back."""
        self._is_behind = not up_to_date
        offset = self._info.token(self._position - len(self._held))
        return sse.control_event(offset, cursor=self._cursor(), up_to_date=up_to_date, closed=closed)

    def _cursor(self) -> int:
        return max(self._cursor_floor, caching.interval(time.time()))

    def _count(self, chunk: bytes) -> bytes:
        self._bytes_left -= len(chunk)
        self._last_chunk = time.monotonic()
        return chunk

    def _finish(self) -> bytes:
        self.finished = True
        return b""


def _do_nothing() -> None:
    pass
