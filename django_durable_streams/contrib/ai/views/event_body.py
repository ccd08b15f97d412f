"""The body of an event stream of a Django view, for thousands of readers at once.

An optimisation besides its purpose. With the feed, a portion for a reader takes 8 microseconds of processor. With a
generator in each of six layers and timers for each piece it took 27 (`python -m benchmarks.answer_deliveries`).

- Invariant: pieces arrive in order and once. The task of a response whose client takes no data for SEND_TIMEOUT ends,
  at most a quarter of that later, and for ENDING_SECONDS once the server is about to end. Long data is counted in the
  memory of responses. The work for a body ends with the task that sends it.
- Why it holds: Django asks for a piece only when the last one is sent. So the time since the last piece is the time
  that its client takes. One timer looks at all bodies of an event loop. What is longer than a piece is left to
  `SlowClientGuard`. A body that a middleware has wrapped is iterated as Django does it.
- Switch off: let `EventResponse.__aiter__` always return that of its base class.

Knows no format of events.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Self
from weakref import WeakValueDictionary

from django.http import StreamingHttpResponse

from ....conf import config
from ....engine.live_reader_limit import LiveReaderSlot
from ....protocol.messages import ENDING_SECONDS
from ....runtime.background import run_to_end
from ....runtime.shutdown import add_live_reader, remove_live_reader
from ....server.request_threads import release_thread
from ....server.response_memory import PIECE_BYTES
from ....server.slow_clients import SlowClientGuard


class EventBody:
    """The pieces of an event stream, for one client.

    Args:
        events: yields the events. It is closed with the body.
    """

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events
        self._pieces: AsyncGenerator[bytes, None] | None = None
        """The rest of a long chunk."""
        self._guard: SlowClientGuard | None = None
        """Its guard."""
        self._is_closed = False
        self.sending_since: float | None = None
        """Time of the event loop at which a piece was given out. None: no piece is being sent."""
        self.task: asyncio.Task[Any] | None = None
        """The task that sends, once it has begun."""
        self._ending_since: float | None = None
        """Time of the event loop at which the server was about to end. None: it is not."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        self.sending_since = None
        if self.task is None:
            self._begin()
        if self._pieces is not None:
            piece = await anext(self._pieces, None)
            if piece is not None:
                return piece
            self._pieces = self._guard = None
        chunk = await anext(self._events)
        if len(chunk) > PIECE_BYTES:
            self._guard = SlowClientGuard()
            self._pieces = self._guard.pieces(_single(chunk))
            return await anext(self._pieces)
        self.sending_since = asyncio.get_running_loop().time()
        return chunk

    def _begin(self) -> None:
        release_thread()  # a response that waits keeps no thread
        task = self.task = asyncio.current_task()
        assert task is not None
        _watch().add(self)
        # Some servers and tests leave a body without closing it, and so does a generator of a middleware around it.
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self.task = self.sending_since = None  # the task refers to the response
        _watch().remove(self)
        if not self._is_closed:
            run_to_end(self._close_surely())

    async def _close_surely(self) -> None:
        with suppress(RuntimeError):  # another task has it at work
            await self.aclose()

    def hurry(self) -> None:
        """The server is about to end: do not wait long for a client that takes no data."""
        if self._ending_since is None:
            self._ending_since = asyncio.get_running_loop().time()
        if self._guard is not None:
            self._guard.hurry()

    @property
    def is_ending(self) -> bool:
        """Whether the server is about to end."""
        return self._ending_since is not None

    def give_up_late(self, now: float, seconds: float) -> None:
        """End the task, if its client has taken no data for so many seconds."""
        since, ending = self.sending_since, self._ending_since
        if since is None or self.task is None:
            return
        if since <= now - seconds or (ending is not None and max(since, ending) <= now - ENDING_SECONDS):
            self.sending_since = None
            self.task.cancel()

    async def aclose(self) -> None:
        """End the work for the body. May be called again."""
        self._is_closed = True
        self.sending_since = None
        if self.task is not None:
            _watch().remove(self)
        if self._pieces is not None:
            await self._pieces.aclose()
        await self._events.aclose()


async def _single(chunk: bytes) -> AsyncGenerator[bytes, None]:
    yield chunk


class _Watch:
    """Ends the tasks of clients that take no data. One timer for all bodies of an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._bodies: dict[EventBody, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, body: EventBody) -> None:
        self._bodies[body] = None
        if self._timer is None:
            add_live_reader(self)
            self._set_timer(config().send_timeout)

    def remove(self, body: EventBody) -> None:
        self._bodies.pop(body, None)
        if not self._bodies and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            remove_live_reader(self._loop, self)

    def stop(self) -> None:
        """The server is about to end. It may say so again and again."""
        is_known = all(body.is_ending for body in self._bodies)
        for body in self._bodies:
            body.hurry()
        if self._timer is not None and not is_known:
            self._timer.cancel()
            self._set_timer(ENDING_SECONDS)

    def _set_timer(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds / 4, self._look)

    def _look(self) -> None:
        now, seconds = self._loop.time(), config().send_timeout
        for body in list(self._bodies):
            body.give_up_late(now, seconds)
        self._set_timer(min(seconds, ENDING_SECONDS) if any(body.is_ending for body in self._bodies) else seconds)


_watches: WeakValueDictionary[asyncio.AbstractEventLoop, _Watch] = WeakValueDictionary()
"""By event loop. A timer keeps a watch while it has bodies. It has the loop, which would otherwise never be freed."""


def _watch() -> _Watch:
    loop = asyncio.get_running_loop()
    watch = _watches.get(loop)
    if watch is None:
        watch = _watches[loop] = _Watch()
    return watch


_content: Any = vars(StreamingHttpResponse)["streaming_content"]
_set_content = _content.fset


class EventResponse(StreamingHttpResponse):
    """A response that streams events. Django iterates an `EventBody` directly, unless a middleware has wrapped it.

    Args:
        content: the body, or under WSGI an iterator.
        slot: the slot of the reader among all live readers.
    """

    def __init__(self, content: EventBody | Iterator[bytes], slot: LiveReaderSlot) -> None:
        self._body: EventBody | None = None
        self._slot = slot
        super().__init__(content, content_type="text/event-stream")
        if isinstance(content, EventBody):
            self._body = content

    @property
    def streaming_content(self) -> Any:
        """The pieces, as in the base class."""
        return super().streaming_content

    @streaming_content.setter
    def streaming_content(self, value: Any) -> None:
        self._body = None
        _set_content(self, value)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return super().__aiter__() if self._body is None else self._body

    def close(self) -> None:
        """End the response."""
        self._slot.release()
        super().close()
