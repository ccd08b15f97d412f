"""The part that all readers of event streams share: the life of the response, from its first chunk to its end.

A subclass makes the chunks. It knows what an event looks like, and this module does not. Knows no connections: an entry
point takes the chunks and sends them.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable
from enum import Enum
from typing import Self

from ..conf import config
from ..engine.hub import Hub
from ..engine.live_reader import LiveReader
from ..engine.live_reader_limit import LiveReaderSlot
from ..engine.snapshot_reader import Snapshot
from ..protocol.messages import LiveGrant


class Step(Enum):
    """What a reader needs before its next chunk."""

    FETCH = "data from the database, or the next piece of an event"
    WAIT = "news"


class EventStreamReader(LiveReader):
    """A live reader whose response is an event stream. Use it as an asynchronous context manager.

    `finished` says that the last chunk was the last one of the response.

    Args:
        hub: the hub of the event loop that sends the response.
        snapshot: the stream as the request has seen it.
        slot: the reader's slot among all live readers. It is released when the reader leaves.
        grant: the permission of the read, if it can end. The response then ends as it does after SSE_DURATION.
    """

    __slots__ = (
        "_abandoned", "_bytes_left", "_deadline", "_first", "_keep_alive", "_last_chunk", "_slot",
        "finished", "is_cut_off", "on_cut_off", "on_news", "on_stopping",
    )  # fmt: skip

    def __init__(self, hub: Hub, snapshot: Snapshot, slot: LiveReaderSlot, grant: LiveGrant | None = None) -> None:
        super().__init__(hub, grant)
        settings = config()
        self.finished = False
        self.on_news: Callable[[], None] = self.wake
        """Called when there may be a chunk to take. An entry point may put its own function here while it waits."""
        self.on_stopping: Callable[[], None] = _do_nothing
        """Called when the server is about to end, whether or not the reader waits for a chunk."""
        self.on_cut_off: Callable[[], None] = _do_nothing
        """Called when the response ends in the middle of an event."""
        self.is_cut_off = False
        self._slot = slot
        self._first: Snapshot | None = snapshot
        """What the request has seen. None once the first chunk was taken."""
        self._bytes_left = settings.sse_max_bytes
        self._keep_alive = settings.sse_keep_alive
        self._last_chunk = time.monotonic()
        self._deadline = self._last_chunk + settings.sse_duration
        self._abandoned = False

    async def __aenter__(self) -> Self:
        assert self._first is not None
        try:
            await self.join(self._first)
        except BaseException:
            self._slot.release()
            raise
        return self

    async def __aexit__(self, *args: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave, and release the slot and the data. May be called again."""
        self._slot.release()
        self.leave()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield all chunks, to the end of the response."""
        async with self:
            while not self.finished:
                chunk = await self.next_chunk()
                if chunk:
                    yield chunk

    async def next_chunk(self) -> bytes:
        """Return the next chunk. It is empty after a wait for news, and where `finished` says that there is none."""
        chunk = self.take()
        if chunk is Step.WAIT:
            await self.wait_for_news()
            return b""
        if chunk is Step.FETCH:
            return await self.fetch()
        return chunk

    @abstractmethod
    def take(self) -> bytes | Step:
        """Return the next chunk if it is at hand, otherwise the step that leads to it."""

    async def fetch(self) -> bytes:
        """Do the step FETCH, and return the chunk to which it leads. The chunk may be empty."""
        raise NotImplementedError

    @property
    @abstractmethod
    def is_current(self) -> bool:
        """Whether no chunk is at hand until news arrive. Ask right after a chunk was taken."""

    def abandon(self) -> None:
        """The client has left."""
        self._abandoned = True
        self.wake()

    def cut_off(self) -> None:
        """End in the middle of an event. The response must not look complete, so its connection has to end."""
        self.is_cut_off = True
        self.on_cut_off()
        self.abandon()

    def notify(self) -> None:
        """The stream has changed."""
        if self._wait is not None:
            self.on_news()

    def stop(self) -> None:
        """The server is about to end, and so does the response."""
        self.is_stopped = True
        self.on_stopping()
        if self._wait is not None:
            self.on_news()

    def tick(self, now: float) -> None:
        """Time has passed. The response may be over, or a proxy may need traffic."""
        if self._wait is not None and (self._is_due(now) or now - self._last_chunk >= self._keep_alive):
            self.on_news()

    def _is_over(self, now: float) -> bool:
        """Return whether the response ends now, although the stream may go on."""
        return self._bytes_left <= 0 or self.is_stopped or self._is_due(now)

    def _is_due(self, now: float) -> bool:
        """Return whether the response has lasted for SSE_DURATION, or its permission has ended."""
        return now >= self._deadline or not self.is_permitted(now)

    def _count(self, chunk: bytes) -> bytes:
        self._bytes_left -= len(chunk)
        self._last_chunk = time.monotonic()
        return chunk

    def _finish(self) -> bytes:
        self.finished = True
        return b""


def _do_nothing() -> None:
    pass
