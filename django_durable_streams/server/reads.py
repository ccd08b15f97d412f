"""GET and HEAD: what a stream has, and what comes (specification, sections 5.5 to 5.8)."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from ..engine import Engine
from ..engine.snapshot_reader import ReadRequest, Snapshot
from ..protocol import caching, content, headers, offsets, paths
from ..protocol.browsers import check_destination, disposition
from ..protocol.caching import Caching
from ..protocol.errors import InvalidOffset, InvalidParameter, LiveModeUnsupported
from ..protocol.messages import CLOSED, Header, Request, Response, stream_headers
from .answers import EventStream, Work
from .long_poll import LongPoll
from .response_policy import common_headers
from .sse_reader import SseReader

_UP_TO_DATE: Header = (headers.STREAM_UP_TO_DATE, b"true")

_NOW = offsets.Sentinel.NOW.value

MAX_SHARED_ANSWERS = 16
"""Answers kept with a view: clients choose their cursors, and quiet streams last for ever."""

MAX_SHARED_TAGS = 128
"""Bytes of an `If-None-Match` up to which it is compared once for all who send it."""


def parse_head(request: Request) -> ReadRequest:
    """HEAD asks what a stream is like; it is the only read that does not renew its TTL (section 5.5)."""
    return ReadRequest(paths.validate_again(request.path))


def respond_head(request: Request, engine: Engine, view: Snapshot) -> Response:
    """Answer a HEAD."""
    info = view.info
    found = stream_headers(info.content_type, info.header(info.tail), closed=info.closed)
    if info.ttl is not None:
        found.append((headers.STREAM_TTL, b"%d" % info.ttl))
    if info.expires_at is not None:
        found.append((headers.STREAM_EXPIRES_AT, headers.format_time(info.expires_at).encode("ascii")))
    return Response(200, found)


def parse_read(request: Request) -> ReadRequest:
    """GET asks for what is there from an offset on, and may stay for what comes (sections 5.6 to 5.8)."""
    path = paths.validate_again(request.path)
    given = request.headers.get
    if given(b"sec-fetch-dest") is not None or given(b"service-worker") is not None:
        check_destination(request.headers)
    live = request.parameter("live")
    token = request.parameter("offset")
    if live is not None and live not in ("long-poll", "sse"):
        raise InvalidParameter("The parameter live is long-poll or sse.")
    if live is not None and token is None:
        raise InvalidOffset(f"live={live} needs an offset. Use -1 to begin at the start, or now.")
    if live == "sse" and not request.can_stream:
        raise LiveModeUnsupported(
            "This server runs under WSGI and cannot hold an event stream open. "
            "Use live=long-poll, or deploy under ASGI."
        )
    return ReadRequest(path, offsets.Sentinel.START if token is None else offsets.decode(token))


def respond_read(request: Request, engine: Engine, view: Snapshot) -> Response | EventStream | Work:
    """Answer a GET, or return what is still to be done for that."""
    if view.info.ttl is not None:
        engine.renew(view.info)
    if not request.query:
        return _page(request, view, is_now=False)
    live = request.parameter("live")
    if live is None:
        return _page(request, view, is_now=_is_now(request))
    return _events(request, view, engine) if live == "sse" else _long_poll(request, view, engine)


Key = TypeVar("Key")


class _Answer(Enum):
    """What a read that does not stay may be answered with."""

    PAGE = "data, or that there is none yet"
    NOW = "where the stream ends now"
    NOT_MODIFIED = "what the client has is still right"


def _page(request: Request, view: Snapshot, *, is_now: bool) -> Response:
    """Answer a catch-up read (section 5.6)."""
    if is_now:
        return _shared(view, _Answer.NOW, _page_answer)
    tags = request.headers.get(headers.IF_NONE_MATCH)
    if tags is None or len(tags) > MAX_SHARED_TAGS:
        return _page_unless_known(view, tags)
    return _shared(view, tags, _page_unless_known)


def _page_unless_known(view: Snapshot, tags: bytes | None) -> Response:
    is_known = tags is not None and caching.matches(tags.decode("latin-1"), _etag(view))
    return _shared(view, _Answer.NOT_MODIFIED if is_known else _Answer.PAGE, _page_answer)


def _page_answer(view: Snapshot, kind: _Answer) -> Response:
    found = _position_headers(view)
    if kind is _Answer.NOW:
        return _with_body(found, view, Caching.NEVER)
    found.append((headers.ETAG, _etag(view)))
    kept = _kept(view)
    return Response(304, found, caching=kept) if kind is _Answer.NOT_MODIFIED else _with_body(found, view, kept)


def _etag(view: Snapshot) -> bytes:
    return caching.etag(view.info.generation, view.position, view.end, view.at_end)


def _shared(view: Snapshot, key: Key, make: Callable[[Snapshot, Key], Response]) -> Response:
    """Return an answer that all get who ask for the same at the same time, made once."""
    answers: dict[Key, Response] | None = view.answers
    answer = None if answers is None else answers.get(key)
    if answer is None:
        answer = make(view, key)
        answer.is_shared = True
        if view.answers is None or len(view.answers) >= MAX_SHARED_ANSWERS:
            view.answers = {}
        view.answers[key] = answer
    return answer


async def _long_poll(request: Request, view: Snapshot, engine: Engine) -> Response:
    """Answer a long-poll (section 5.7)."""
    if view.segment is None and not view.closed:
        place = engine.places.take()
        try:
            poll = LongPoll(engine, view, partial(_deliver, request), request.grant, lasting=request.can_stream)
            request.when_left(poll.wake)
            view = await poll.wait()
        finally:
            place.release()
            request.let_leave()
        if poll.delivered:
            return _SENT
        if request.grant is not None:
            request.grant.check()
    return _long_poll_answer(request, view)


_SENT = Response(200, [])
_SENT.sent = True


def _deliver(request: Request, view: Snapshot, told: dict[Any, Any]) -> bool:
    # Everything that an answer depends on; hundreds may be told at once.
    alike = view.position, request.query, request.headers.get(b"origin")
    answer: Response | None = told.get(alike)
    if answer is None:
        bare = _long_poll_answer(request, view)
        answer = bare.with_headers(common_headers(request, bare))
        if len(told) < MAX_SHARED_ANSWERS:
            told[alike] = answer
    return request.send_now(answer)


def _long_poll_answer(request: Request, view: Snapshot) -> Response:
    cursor = caching.cursor_floor(request.parameter("cursor"), time.time())
    return _shared(view, (cursor, _is_now(request)), _poll_answer)


def _poll_answer(view: Snapshot, kind: tuple[int, bool]) -> Response:
    cursor, is_now = kind
    found = _position_headers(view)
    if not view.at_end:
        found.append((headers.STREAM_CURSOR, b"%d" % cursor))
    if view.segment is None:
        return Response(204, found)
    # From now on is another place for whoever asks next.
    if is_now:
        return _with_body(found, view, Caching.NEVER)
    found.append((headers.ETAG, _etag(view)))
    return _with_body(found, view, _kept(view))


def _kept(view: Snapshot) -> Caching:
    """Return what caches may do with data, or with the news that there is none yet.

    What is empty today may have data in a second. What has data keeps it, unless the stream is to end.
    """
    lasts = view.info.ttl is None and view.info.expires_at is None
    return Caching.DATA if lasts and view.segment is not None else Caching.REVALIDATE


def _is_now(request: Request) -> bool:
    """Whether a read begins wherever the stream ends when it is asked for (section 5.6)."""
    return request.parameter("offset") == _NOW


def _events(request: Request, view: Snapshot, engine: Engine) -> EventStream:
    """Answer an SSE read (section 5.8)."""
    place = engine.places.take()
    found: list[Header] = [
        (headers.CONTENT_TYPE, b"text/event-stream"),
        # nginx would collect an event stream, and hand it on when its buffer is full.
        (b"x-accel-buffering", b"no"),
    ]
    if not content.is_text(view.info.content_type):
        found.append((headers.STREAM_SSE_DATA_ENCODING, b"base64"))
    reader = SseReader(engine, view, request.parameter("cursor"), place, request.grant)
    return EventStream(found, reader, Caching.NEVER if _is_now(request) else Caching.REVALIDATE)


def _position_headers(view: Snapshot) -> list[Header]:
    found: list[Header] = [(headers.STREAM_NEXT_OFFSET, view.info.header(view.end))]
    if view.up_to_date:
        found.append(_UP_TO_DATE)
        if view.closed:
            found.append(CLOSED)
    return found


def _with_body(found: list[Header], view: Snapshot, kept: Caching) -> Response:
    kind = view.info.content_type
    body = view.segment.body(kind) if view.segment is not None else content.unpack(kind, b"")
    found.append((headers.CONTENT_TYPE, kind.encode("latin-1")))
    found.append((headers.CONTENT_LENGTH, b"%d" % len(body)))
    found += disposition(kind)
    return Response(200, found, body, caching=kept)
