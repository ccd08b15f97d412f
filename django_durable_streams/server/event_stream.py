"""Sending event streams, however a door sends (specification, section 5.8)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable

from .answers import EventStream
from .live_responses import SseReader, Step


class Outlet(ABC):
    """Where a door sends an event stream.

    `is_immediate`: a push may be made from anywhere in the event loop, not only from the task of the request.
    """

    is_immediate: bool

    @abstractmethod
    async def begin(self, response: EventStream) -> None:
        """Send the status and the headers."""

    @abstractmethod
    def push(self, chunk: bytes) -> Awaitable[None] | None:
        """Send a chunk. What is returned has to be awaited before the next one; None: it is sent.

        Raises:
            OSError: the client has left.
        """

    def hurry(self) -> None:  # noqa: B027 - some see to it by themselves
        """The server is about to end: do not wait long for a client that takes nothing."""

    @abstractmethod
    async def end(self) -> None:
        """Send the end."""


async def send_events(response: EventStream, outlet: Outlet, disconnected: asyncio.Future[None]) -> None:
    """Send events until the response is over or the client has left, which `disconnected` tells."""
    reader = response.reader
    disconnected.add_done_callback(lambda _: reader.abandon())
    reader.on_stopping = outlet.hurry
    try:
        async with reader:
            # An event belongs with the headers: a client should not learn of the stream in two steps.
            await outlet.begin(response)
            pusher = _Pusher(reader, outlet)
            while not reader.finished:
                await pusher.step()
            if not disconnected.done():
                await outlet.end()
    except OSError:
        pass  # how some servers say that the client has left


class _Pusher:
    """Sends a reader's chunks; while it waits, the hub itself sends them where the door allows.

    To wake a thousand tasks so that each sends the same bytes takes longer than to send them a thousand times. A send
    that does not have to wait can be made from where the news arrives. One that does, as its client is slow, is left
    to the reader's own task.
    """

    def __init__(self, reader: SseReader, outlet: Outlet) -> None:
        self._reader = reader
        self._outlet = outlet
        self._unsent: Awaitable[None] | None = None
        if outlet.is_immediate:
            reader.on_news = self._push

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
