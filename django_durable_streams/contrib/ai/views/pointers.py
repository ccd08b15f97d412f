"""Reads of translated chunks by the Durable Streams Protocol, for clients that read a stream by themselves.

The offset of a place is the number of chunks before it: translation is deterministic, so all processes agree. Catch-up
reads, long-polls and SSE (specification, sections 5.6 to 5.8), for reading only.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncGenerator, Hashable
from http import HTTPStatus
from typing import NamedTuple

from django.http import HttpRequest, HttpResponse, HttpResponseBase

from ....conf import config
from ....protocol import caching, offsets, sse
from ....protocol.errors import DurableStreamsError
from ..feeds import FeedSource, News, opened
from .base import event_stream, live_reader_slot
from .requests import InvalidRequest

logger = logging.getLogger(__name__)

JSON = "application/json"
_OFFSET = re.compile(r"0{16}_([0-9]{16})")


def _token(position: int) -> str:
    return offsets.encode(0, position)


def _position(offset: str) -> int:
    if offset == "-1":
        return 0
    match = _OFFSET.fullmatch(offset)
    if match is None:
        raise InvalidRequest("The offset is not valid. Use -1, or a Stream-Next-Offset of this answer.")
    return int(match[1])


class WantedRead(NamedTuple):
    """What a request wants to read: from which chunk on, how, and with which cursor for caches."""

    position: int
    live: str
    cursor: int


def parse_read(request: HttpRequest) -> WantedRead:
    """Return what a request wants to read.

    Raises:
        InvalidRequest: the offset or the kind of read is invalid.
    """
    position, live = _position(request.GET.get("offset", "-1")), request.GET.get("live", "")
    if live not in ("", "false", "long-poll", "sse"):
        raise InvalidRequest("live is `sse` or `long-poll`.")
    return WantedRead(position, live, caching.cursor_floor(request.GET.get("cursor"), time.time()))


async def read(request: HttpRequest, key: Hashable, source: FeedSource) -> HttpResponseBase:
    """Respond to a read of the chunks of a source.

    Raises:
        InvalidRequest: the offset or the kind of read is invalid.
        DurableStreamsError: the chat is gone, there are too many readers, or the database does not answer.
    """
    wanted = parse_read(request)
    if wanted.live == "sse":
        slot = live_reader_slot()
        return event_stream(request, events(key, source, wanted), slot, X_Content_Type_Options="nosniff")
    if wanted.live != "long-poll":
        return respond(await _page(key, source, wanted.position, 0.0), wanted)
    slot = live_reader_slot()
    try:
        return respond(await _page(key, source, wanted.position, config().long_poll_timeout), wanted)
    finally:
        slot.release()


def respond(news: News, wanted: WantedRead) -> HttpResponse:
    """Return the response to a catch-up read or a long-poll."""
    is_empty = wanted.live == "long-poll" and not news.chunks and not news.is_complete
    body = b"" if is_empty else b"[%b]" % b",".join(news.chunks)
    response = HttpResponse(body, status=HTTPStatus.NO_CONTENT if is_empty else HTTPStatus.OK, content_type=JSON)
    response["Stream-Next-Offset"] = _token(news.position)
    if news.up_to_date:
        response["Stream-Up-To-Date"] = "true"
    response["X-Content-Type-Options"] = "nosniff"
    if news.is_complete:
        response["Stream-Closed"] = "true"
    else:
        response["Stream-Cursor"] = str(wanted.cursor)
    return response


def event(news: News, wanted: WantedRead) -> bytes:
    """Return the Server-Sent Events for news."""
    offset = _token(news.position)
    end = sse.control_event(offset, cursor=wanted.cursor, up_to_date=news.up_to_date, closed=news.is_complete)
    return news.encoded(_data_event) + end


def _data_event(chunks: list[bytes]) -> bytes:
    return sse.data_event(JSON, b"".join([b"%b\n" % chunk for chunk in chunks])) if chunks else b""


async def _page(key: Hashable, source: FeedSource, position: int, seconds: float) -> News:
    """Return the chunks of the moment, as many as a page may have. If there are none, wait for some."""
    deadline = time.monotonic() + 0.99 * seconds  # timers of uvloop may end a moment early, and a poll has one wait
    chunks: list[bytes] = []
    size, up_to_date, is_complete = 0, True, False
    with opened(key, source, position, timeout=seconds or None) as reader:
        while (news := await reader.next()) is not None:
            chunks += news.chunks
            size += sum(map(len, news.chunks))
            position, up_to_date, is_complete = news.position, news.up_to_date, news.is_complete
            is_enough = up_to_date and (chunks or is_complete or time.monotonic() >= deadline)
            if is_enough or size >= config().page_bytes:
                break
    return News(chunks, position, up_to_date, is_complete)


async def events(key: Hashable, source: FeedSource, wanted: WantedRead) -> AsyncGenerator[bytes, None]:
    """Yield the chunks of a source as the Server-Sent Events of the protocol."""
    ends_at = time.monotonic() + config().sse_duration
    try:
        with opened(key, source, wanted.position, timeout=config().sse_keep_alive) as reader:
            while (news := await reader.next()) is not None:
                yield event(news, wanted)
                if time.monotonic() >= ends_at:
                    return
    except DurableStreamsError as error:  # the client reads again, and learns the reason then
        logger.info("The readers of an answer are cut off: %s", error)
