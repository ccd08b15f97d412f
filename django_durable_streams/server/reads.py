"""The handlers of GET and HEAD (specification, sections 5.5 to 5.8).

They turn a request into a read of the engine, and a snapshot into a response. They know neither SQL nor connections.

An optimisation: readers who get the same snapshot and ask for the same share one response. The invariant: the key under
which a response is shared has everything that it depends on. A hundred equal reads then cost one response.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from ..access.destinations import check_destination
from ..engine import Engine
from ..engine.snapshot_reader import ReadRequest, Snapshot
from ..protocol import caching, content, headers, offsets, paths
from ..protocol.browsers import disposition
from ..protocol.caching import Caching
from ..protocol.errors import InvalidOffset, InvalidParameter, LiveModeUnsupported
from ..protocol.messages import CLOSED, Header, Request, Response, stream_headers
from .answers import EventStream, Work
from .long_poll import LongPoll
from .response_policy import common_headers
from .sse_reader import SseReader

_UP_TO_DATE: Header = (headers.STREAM_UP_TO_DATE, b"true")

_NOW = offsets.Sentinel.NOW.value

MAX_SHARED_RESPONSES = 16
"""Responses that are kept with a snapshot. Clients choose their cursors, and a quiet stream keeps its snapshot."""

MAX_SHARED_TAG_BYTES = 128
"""Bytes of an `If-None-Match` up to which the response to it is shared."""


def parse_head(request: Request) -> ReadRequest:
    """Parse a HEAD: metadata of a stream. It is the only read that does not renew the TTL (section 5.5)."""
    return ReadRequest(paths.validate_again(request.path))


def respond_head(request: Request, engine: Engine, snapshot: Snapshot) -> Response:
    """Respond to a HEAD."""
    info = snapshot.info
    header_list = stream_headers(info.content_type, info.header(info.tail), closed=info.closed)
    if info.ttl is not None:
        header_list.append((headers.STREAM_TTL, b"%d" % info.ttl))
    if info.expires_at is not None:
        header_list.append((headers.STREAM_EXPIRES_AT, headers.format_time(info.expires_at).encode("ascii")))
    if info.first_position:
        header_list.append((headers.STREAM_FIRST_OFFSET, info.header(info.first_position)))
    return Response(200, header_list)


def parse_read(request: Request) -> ReadRequest:
    """Parse a GET: data from an offset on, and with `live` also the data to come (sections 5.6 to 5.8)."""
    path = paths.validate_again(request.path)
    if b"sec-fetch-dest" in request.headers or b"service-worker" in request.headers:
        check_destination(request)
    live = token = None
    if request.query:
        parameters = request.parsed_query().values
        live, token = parameters.get("live"), parameters.get("offset")
    if live == "sse":
        token = _last_event_id(request) or token
    if live is not None and live not in ("long-poll", "sse"):
        raise InvalidParameter("The parameter live must be long-poll or sse.")
    if live is not None and token is None:
        raise InvalidOffset(f"live={live} needs an offset. Use offset=-1 for the start, or offset=now.")
    if live == "sse" and not request.can_stream:
        raise LiveModeUnsupported(
            "This server runs under WSGI and cannot hold an event stream open. "
            "Use live=long-poll, or deploy under ASGI."
        )
    return ReadRequest(path, offsets.Sentinel.START if token is None else offsets.decode(token))


def _last_event_id(request: Request) -> str:
    """Return the offset with which a browser's `EventSource` continues, or an empty text at its first request."""
    return headers.text(request.headers.get(headers.LAST_EVENT_ID, b""))


def respond_read(request: Request, engine: Engine, snapshot: Snapshot) -> Response | EventStream | Work:
    """Respond to a GET, or return the work that leads to the response."""
    if snapshot.info.ttl is not None:
        engine.renew(snapshot.info)
    if not request.query:
        return _page(request, snapshot, is_now=False)
    parameters = request.parsed_query().values
    live = parameters.get("live")
    if live is None:
        return _page(request, snapshot, is_now=parameters.get("offset") == _NOW)
    return _events(request, snapshot, engine) if live == "sse" else _long_poll(request, snapshot, engine)


Key = TypeVar("Key")


class _Answer(Enum):
    """The kinds of response to a read that does not wait."""

    PAGE = "data, or no data yet"
    NOW = "the end of the stream"
    NOT_MODIFIED = "the client has the data"

    __hash__ = object.__hash__  # Enum's own is a function in Python


def _page(request: Request, snapshot: Snapshot, *, is_now: bool) -> Response:
    """Respond to a catch-up read (section 5.6)."""
    if is_now:
        return _shared(snapshot, _Answer.NOW, _page_answer)
    tags = request.headers.get(headers.IF_NONE_MATCH)
    if tags is None:
        return _shared(snapshot, _Answer.PAGE, _page_answer)
    if len(tags) > MAX_SHARED_TAG_BYTES:
        return _page_unless_cached(snapshot, tags)
    return _shared(snapshot, tags, _page_unless_cached)


def _page_unless_cached(snapshot: Snapshot, tags: bytes) -> Response:
    return _shared(snapshot, _Answer.NOT_MODIFIED if _has_tag(snapshot, tags) else _Answer.PAGE, _page_answer)


def _has_tag(snapshot: Snapshot, tags: bytes) -> bool:
    """Return whether the tags of an `If-None-Match` have that of a snapshot: the client has the data."""
    return caching.matches(tags.decode("latin-1"), _etag(snapshot))


def _page_answer(snapshot: Snapshot, kind: _Answer) -> Response:
    header_list = _position_headers(snapshot)
    if kind is _Answer.NOW:
        return _with_body(header_list, snapshot, Caching.NEVER)
    header_list.append((headers.ETAG, _etag(snapshot)))
    cacheable = _caching(snapshot)
    if kind is _Answer.NOT_MODIFIED:
        return Response(304, header_list, caching=cacheable)
    return _with_body(header_list, snapshot, cacheable)


def _etag(snapshot: Snapshot) -> bytes:
    segment = snapshot.segment
    removed = 0 if segment is None or segment.places is None else segment.end - segment.start - len(segment.data)
    return caching.etag(snapshot.info.generation, snapshot.position, snapshot.end, snapshot.at_end, removed)


def _shared(snapshot: Snapshot, key: Key, make: Callable[[Snapshot, Key], Response]) -> Response:
    """Return the response for a key, made once for all requests with this snapshot and key."""
    answers: dict[Key, Response] | None = snapshot.answers
    answer = None if answers is None else answers.get(key)
    if answer is None:
        answer = make(snapshot, key)
        answer.is_shared = True
        if snapshot.answers is None or len(snapshot.answers) >= MAX_SHARED_RESPONSES:
            snapshot.answers = {}
        snapshot.answers[key] = answer
    return answer


async def _long_poll(request: Request, snapshot: Snapshot, engine: Engine) -> Response:
    """Respond to a long-poll (section 5.7)."""
    request.operation = "long_poll"
    if snapshot.segment is None and not snapshot.closed:
        slot = engine.live_reader_limit.acquire()
        try:
            poll = LongPoll(engine, snapshot, partial(_deliver, request), request.grant, lasting=request.can_stream)
            request.when_left(poll.wake)
            snapshot = await poll.wait()
        finally:
            slot.release()
            request.let_leave()
        if poll.delivered:
            return _SENT
        if request.grant is not None:
            request.grant.check()
        return _long_poll_answer(request, snapshot)
    tags = request.headers.get(headers.IF_NONE_MATCH)
    is_cached = tags is not None and _has_tag(snapshot, tags)
    return _long_poll_answer(request, snapshot, is_cached=is_cached)


_SENT = Response(200, [])
_SENT.sent = True


def _deliver(request: Request, snapshot: Snapshot, shared_responses: dict[Any, Any]) -> bool:
    # The key has everything that a response depends on. Hundreds of readers may get the same news.
    key = snapshot.position, request.query, request.headers.get(b"origin")
    answer: Response | None = shared_responses.get(key)
    if answer is None:
        bare = _long_poll_answer(request, snapshot)
        answer = bare.with_headers(common_headers(request, bare))
        if len(shared_responses) < MAX_SHARED_RESPONSES:
            shared_responses[key] = answer
    return request.send_now(answer)


def _long_poll_answer(request: Request, snapshot: Snapshot, *, is_cached: bool = False) -> Response:
    cursor = caching.cursor_floor(request.parameter("cursor"), time.time())
    return _shared(snapshot, (cursor, _is_now(request), is_cached), _poll_answer)


def _poll_answer(snapshot: Snapshot, kind: tuple[int, bool, bool]) -> Response:
    cursor, is_now, is_cached = kind
    header_list = _position_headers(snapshot)
    if not snapshot.at_end:
        header_list.append((headers.STREAM_CURSOR, b"%d" % cursor))
    if snapshot.segment is None:
        return Response(204, header_list)
    # A later request with offset=now begins elsewhere.
    if is_now:
        return _with_body(header_list, snapshot, Caching.NEVER)
    header_list.append((headers.ETAG, _etag(snapshot)))
    if is_cached:
        return Response(304, header_list, caching=_caching(snapshot))
    return _with_body(header_list, snapshot, _caching(snapshot))


def _caching(snapshot: Snapshot) -> Caching:
    """Return what caches may do with a page.

    An empty page may have data in a second. A page with data keeps it, unless the stream expires or is trimmed.
    """
    info = snapshot.info
    lasts = info.ttl is None and info.expires_at is None and not info.first_position
    return Caching.DATA if lasts and snapshot.segment is not None else Caching.REVALIDATE


def _is_now(request: Request) -> bool:
    """Return whether a read begins at the end of the stream (section 5.6)."""
    return request.parameter("offset") == _NOW


def _events(request: Request, snapshot: Snapshot, engine: Engine) -> EventStream | Response:
    """Respond to an SSE read (section 5.8).

    An `EventSource` reconnects after each response. Where no data can follow, a 204 tells it to stop.
    """
    request.operation = "sse"
    if snapshot.at_end and snapshot.segment is None and _last_event_id(request):
        return Response(204, _position_headers(snapshot), caching=Caching.NEVER)
    slot = engine.live_reader_limit.acquire()
    header_list: list[Header] = [
        (headers.CONTENT_TYPE, b"text/event-stream"),
        # nginx would collect events until its buffer is full.
        (b"x-accel-buffering", b"no"),
    ]
    if not content.is_text(snapshot.info.content_type):
        header_list.append((headers.STREAM_SSE_DATA_ENCODING, b"base64"))
    reader = SseReader(engine, snapshot, request.parameter("cursor"), slot, request.grant)
    return EventStream(header_list, reader, Caching.NEVER if _is_now(request) else Caching.REVALIDATE)


def _position_headers(snapshot: Snapshot) -> list[Header]:
    header_list: list[Header] = [(headers.STREAM_NEXT_OFFSET, snapshot.info.header(snapshot.end))]
    if snapshot.up_to_date:
        header_list.append(_UP_TO_DATE)
        if snapshot.closed:
            header_list.append(CLOSED)
    return header_list


def _with_body(header_list: list[Header], snapshot: Snapshot, cacheable: Caching) -> Response:
    kind = snapshot.info.content_type
    body = snapshot.segment.body(kind) if snapshot.segment is not None else content.unpack(kind, b"")
    header_list.append((headers.CONTENT_TYPE, kind.encode("latin-1")))
    header_list.append((headers.CONTENT_LENGTH, b"%d" % len(body)))
    header_list += disposition(kind)
    return Response(200, header_list, body, caching=cacheable)
