"""Reads of a chat that is not there yet, by pages that read before they write. They make no row.

Such a chat reads as an empty stream. A live reader looks for the chat again and again, and asks for the permission each
time. It looks at once when this process has stored a message in the chat.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable
from contextlib import aclosing, suppress
from typing import Self

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponseBase

from ....conf import config
from ....protocol.errors import DurableStreamsError, StreamNotFound
from ....runtime.shutdown import add_live_reader, remove_live_reader
from ..feeds import FeedSource, News
from ..models import Chat
from . import pointers
from .access import Refused
from .base import KEEP_ALIVE, event_stream, live_reader_slot

logger = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
"""How often a live reader looks for its chat, which another process may have created."""

Find = Callable[[], Awaitable[Chat | None]]
SourceOf = Callable[[Chat], tuple[Hashable, FeedSource]]


async def read(request: HttpRequest, path: str, find: Find, source_of: SourceOf) -> HttpResponseBase:
    """Respond to a read of a chat that is not there.

    Args:
        request: the request.
        path: the path of the chat's stream.
        find: returns the chat, if it is there now and the user may read it.
        source_of: returns the key and the source of the chat's feed.

    Raises:
        InvalidRequest: the offset or the kind of read is invalid.
        DurableStreamsError: the page has read the chat already, which is gone, or there are MAX_LIVE_READERS.
    """
    wanted = pointers.parse_read(request)
    if wanted.position:
        raise StreamNotFound("The chat is gone.")
    if not wanted.live or wanted.live == "false":
        return pointers.respond(News([], 0, True, False), wanted)
    slot = live_reader_slot()
    if wanted.live == "sse":
        waiting = _events(path, find, source_of, wanted)
        return event_stream(request, waiting, slot, X_Content_Type_Options="nosniff")
    try:
        with _Waiter(path) as waiter:
            chat = await waiter.find(find, config().long_poll_timeout)
    finally:
        slot.release()
    if chat is None:
        return pointers.respond(News([], 0, True, False), wanted)
    return await pointers.read(request, *source_of(chat))


async def _events(
    path: str, find: Find, source_of: SourceOf, wanted: pointers.WantedRead
) -> AsyncGenerator[bytes, None]:
    ends_at = time.monotonic() + config().sse_duration
    yield pointers.event(News([], 0, True, False), wanted)
    try:
        with _Waiter(path) as waiter:
            chat = None
            while chat is None:
                left = ends_at - time.monotonic()
                if left <= 0 or waiter.is_stopped:
                    return
                chat = await waiter.find(find, min(left, config().sse_keep_alive))
                if chat is None:
                    yield KEEP_ALIVE
        async with aclosing(pointers.events(*source_of(chat), wanted)) as events:
            async for piece in events:
                yield piece
    except (Refused, DurableStreamsError, OperationalError, InterfaceError) as error:
        logger.info("A reader of a chat that was not there is cut off: %s", error)


class _Waiter:
    """A read that waits for its chat, until the server ends.

    Args:
        path: the path of the chat's stream.
    """

    def __init__(self, path: str) -> None:
        self.is_stopped = False
        """Whether the server is about to end."""
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()

    def __enter__(self) -> Self:
        with _lock:
            _waiting.setdefault(self._path, set()).add(self)
        add_live_reader(self)
        return self

    def __exit__(self, *args: object) -> None:
        remove_live_reader(self._loop, self)
        with _lock:
            _waiting[self._path].discard(self)
            if not _waiting[self._path]:
                del _waiting[self._path]

    async def find(self, find: Find, seconds: float) -> Chat | None:
        """Return the chat as soon as it is there. None: the time is over, or the server is about to end."""
        deadline = time.monotonic() + seconds
        while True:
            self._woken.clear()
            chat = await find()
            left = deadline - time.monotonic()
            if chat is not None or left <= 0 or self.is_stopped:
                return chat
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, LOOK_SECONDS)):
                    await self._woken.wait()

    def stop(self) -> None:
        """The server is about to end."""
        self.is_stopped = True
        self._woken.set()

    def wake(self) -> None:
        """Look for the chat now. For any thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._woken.set)


_waiting: dict[str, set[_Waiter]] = {}
_lock = threading.Lock()


def tell(path: str) -> None:
    """Let the readers of this process look for a chat that may have been created. For any thread."""
    with _lock:
        waiters = list(_waiting.get(path, ()))
    for waiter in waiters:
        waiter.wake()
