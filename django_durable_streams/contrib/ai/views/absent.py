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

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponseBase

from ....conf import config
from ....protocol.errors import DurableStreamsError, StreamNotFound
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
        DurableStreamsError: the page has read the chat already, which is gone.
    """
    wanted = pointers.parse_read(request)
    if wanted.position:
        raise StreamNotFound("The chat is gone.")
    if wanted.live == "sse":
        waiting = _events(path, find, source_of, wanted)
        return event_stream(request, waiting, live_reader_slot(), X_Content_Type_Options="nosniff")
    chat = await _long_poll(path, find) if wanted.live == "long-poll" else None
    if chat is None:
        return pointers.respond(News([], 0, True, False), wanted)
    return await pointers.read(request, *source_of(chat))


async def _long_poll(path: str, find: Find) -> Chat | None:
    slot = live_reader_slot()
    try:
        return await _wait(path, find, config().long_poll_timeout)
    finally:
        slot.release()


async def _events(
    path: str, find: Find, source_of: SourceOf, wanted: pointers.WantedRead
) -> AsyncGenerator[bytes, None]:
    ends_at = time.monotonic() + config().sse_duration
    yield pointers.event(News([], 0, True, False), wanted)
    try:
        while (left := ends_at - time.monotonic()) > 0:
            chat = await _wait(path, find, min(left, config().sse_keep_alive))
            if chat is None:
                yield KEEP_ALIVE
                continue
            async with aclosing(pointers.events(*source_of(chat), wanted)) as events:
                async for piece in events:
                    yield piece
            return
    except (Refused, DurableStreamsError, OperationalError, InterfaceError) as error:
        logger.info("A reader of a chat that was not there is cut off: %s", error)


async def _wait(path: str, find: Find, seconds: float) -> Chat | None:
    deadline = time.monotonic() + seconds
    while True:
        chat = await find()
        left = deadline - time.monotonic()
        if chat is not None or left <= 0:
            return chat
        await _wait_for_news(path, min(left, LOOK_SECONDS))


_waiting: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}
_lock = threading.Lock()


async def _wait_for_news(path: str, seconds: float) -> None:
    waiter = asyncio.get_running_loop(), asyncio.Event()
    with _lock:
        _waiting.setdefault(path, set()).add(waiter)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await waiter[1].wait()
    finally:
        with _lock:
            _waiting[path].discard(waiter)
            if not _waiting[path]:
                del _waiting[path]


def tell(path: str) -> None:
    """Let the readers of this process look for a chat that may have been created. For any thread."""
    with _lock:
        waiters = list(_waiting.get(path, ()))
    for loop, event in waiters:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(event.set)
