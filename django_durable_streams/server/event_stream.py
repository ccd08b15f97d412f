"""Sends event streams through any entry point (specification, section 5.8).

The invariant: while a reader waits, its own task sends nothing. So the hub can send its chunks, where the entry point
allows that. A thousand tasks that wake up to send the same bytes take longer than a thousand sends. Only a send that
has to wait, because its client is slow, is left to the task. An append reaches 500 readers in 5.5 ms
(docs/decisions/readers-as-positions.md).

Knows chunks, and neither their content nor the connection.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable

from .answers import EventStream
from .event_stream_reader import EventStreamReader, Step


class Outlet(ABC):
    """The place to which an entry point sends an event stream.

    `is_immediate` says that a push may be made from anywhere in the event loop, not only from the request's own task.
    """

    is_immediate: bool

    @abstractmethod
    async def start(self, response: EventStream) -> None:
        """Send the status and the headers."""

    @abstractmethod
    def push(self, chunk: bytes) -> Awaitable[None] | None:
        """Send a chunk. If it returns an awaitable, await that before the next push.

        Raises:
            OSError: the client has left.
        """

    def hurry(self) -> None:  # noqa: B027 - some outlets shorten their deadlines themselves
        """The server is about to end: do not wait long for a client that takes no data."""

    @abstractmethod
    def cut_off(self) -> None:
        """End the connection soon, although the response is incomplete. Do not wait for the client any more."""

    @abstractmethod
    async def end(self) -> None:
        """Send the end."""


async def send_events(response: EventStream, outlet: Outlet, disconnected: asyncio.Future[None]) -> None:
    """Send events until the response is over, or until `disconnected` says that the client has left."""
    reader = response.reader
    disconnected.add_done_callback(lambda _: reader.abandon())
    reader.on_stopping = outlet.hurry
    reader.on_cut_off = outlet.cut_off
    try:
        async with reader:
            # The headers wait for the join: the first event should follow them at once.
            await outlet.start(response)
            pusher = _Pusher(reader, outlet)
            while pusher.has_unsent or not reader.finished:
                await pusher.step()
            if not (disconnected.done() or reader.is_cut_off):
                await outlet.end()
    except OSError:
        pass  # some servers say so that the client has left


class _Pusher:
    """Sends a reader's chunks, from its own task and, while that waits, from the hub."""

    __slots__ = ("_outlet", "_reader", "_unsent")

    def __init__(self, reader: EventStreamReader, outlet: Outlet) -> None:
        self._reader = reader
        self._outlet = outlet
        self._unsent: Awaitable[None] | None = None
        if outlet.is_immediate:
            reader.on_news = self._push

    @property
    def has_unsent(self) -> bool:
        """Whether the hub has pushed a chunk that the client has not taken yet."""
        return self._unsent is not None

    async def step(self) -> None:
        """Send the next chunk, or wait for one."""
        if self._unsent is not None:
            unsent, self._unsent = self._unsent, None
            await unsent
        chunk = await self._reader.next_chunk()
        if chunk:
            rest = self._outlet.push(chunk)
            if rest is not None:
                await rest

    def _push(self) -> None:
        while self._unsent is None:
            chunk = self._reader.take()
            if isinstance(chunk, Step):
                if chunk is Step.FETCH:
                    break
                return
            if not chunk:
                break
            try:
                self._unsent = self._outlet.push(chunk)
            except OSError:
                self._reader.abandon()
                return
            if self._reader.is_current:
                if self._unsent is None:
                    return
                break
            if self._reader.finished:
                break
        self._reader.wake()
