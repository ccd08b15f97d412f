"""The operations of the protocol: one handler each, the same for every door (specification, section 5)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from enum import Enum
from functools import lru_cache, partial
from typing import Any, TypeVar

from django.utils import timezone

from ..conf import config
from ..engine import Engine
from ..engine.read_lane import View
from ..protocol import caching, content, headers, offsets, paths
from ..protocol.errors import (
    DurableStreamsError,
    EmptyAppend,
    InvalidHeader,
    InvalidOffset,
    InvalidParameter,
    LiveModeUnsupported,
    MethodNotAllowed,
)
from ..protocol.producers import ProducerClaim
from ..store import lifetime
from ..store.operations import Append, Appended, Create, Created, Delete, Fork
from .cors import METHODS, common_headers
from .live import LongPoll, SseReader
from .messages import EventStream, Header, Request, Response
from .shutdown import watch_signals

_CLOSED: Header = (headers.STREAM_CLOSED, b"true")
_UP_TO_DATE: Header = (headers.STREAM_UP_TO_DATE, b"true")
_NO_STORE: Header = (headers.CACHE_CONTROL, caching.NO_STORE)
_NO_CACHE: Header = (headers.CACHE_CONTROL, caching.NO_CACHE)

MAX_SHARED_ANSWERS = 16
"""Answers kept with a view: clients choose their cursors, and quiet streams last for ever."""

MAX_SHARED_TAGS = 128
"""Bytes of an `If-None-Match` up to which it is compared once for all who send it."""

BIG_BODY = 64 * 1024
"""Bytes from which preparing a body is left to a thread, so that other requests do not wait for it."""


async def create(request: Request, engine: Engine) -> Response:
    """PUT: make a stream, or confirm that it is there (section 5.1)."""
    path = paths.validate(request.path)
    closed, seconds, moment, fork = False, None, None, None
    if not _CREATE_HEADERS.isdisjoint(request.headers):
        fork = _fork(request)
        seconds, moment = _lifetime(request)
        closed = _wants_closed(request)
    content_type = _content_type(request.headers.get(headers.CONTENT_TYPE))
    data, defect = request.body if request.body is not None else await request.read_body(), None
    if fork is None:
        content_type = content_type or content.DEFAULT_CONTENT_TYPE
    if data and content_type is not None:
        data, defect = await _pack(content.pack_initial, content_type, data)
    operation = Create(path, content_type, seconds, moment, closed, data, defect, fork)
    result = await engine.write(operation)
    assert isinstance(result, Created)
    found: list[Header] = [
        (headers.CONTENT_TYPE, result.content_type.encode("latin-1")),
        (headers.STREAM_NEXT_OFFSET, offsets.encode_bytes(result.tail)),
        (headers.CONTENT_LENGTH, b"0"),
    ]
    if result.closed:
        found.append(_CLOSED)
    if result.created:
        found.append((headers.LOCATION, request.url()))
    return Response(201 if result.created else 200, found)


async def append(request: Request, engine: Engine) -> Response:
    """POST: append, close, or both at once (sections 5.2 and 5.3)."""
    path = paths.validate(request.path)
    close, producer, seq = False, None, None
    if not _APPEND_HEADERS.isdisjoint(request.headers):
        close = _wants_closed(request)
        producer = _producer(request)
        given = request.header(headers.STREAM_SEQ)
        seq = headers.opaque("Stream-Seq", given) if given is not None else None
    body = request.body if request.body is not None else await request.read_body()
    if body and request.refuse_body is not None:
        raise request.refuse_body()
    content_type = None
    data, defect = body, None
    if body:
        content_type = _content_type(request.headers.get(headers.CONTENT_TYPE))
        if content_type is None:
            raise InvalidHeader("Content-Type is missing. It must be the stream's.")
        if content.is_json(content_type):
            data, defect = await _pack(content.pack, content_type, body)
    elif not close:
        raise EmptyAppend("The body is empty. To close the stream without data, send Stream-Closed: true.")
    result = await engine.write(Append(path, content_type, data, close, seq, producer, defect))
    assert isinstance(result, Appended)
    found: list[Header] = [(headers.STREAM_NEXT_OFFSET, offsets.encode_bytes(result.tail))]
    if result.closed:
        found.append(_CLOSED)
    if result.producer_epoch is None:
        return Response(204, found)
    found.append((headers.PRODUCER_EPOCH, b"%d" % result.producer_epoch))
    found.append((headers.PRODUCER_SEQ, b"%d" % (result.producer_seq or 0)))
    if result.duplicate or not body:
        return Response(204, found)
    found.append((headers.CONTENT_LENGTH, b"0"))
    return Response(200, found)


async def delete(request: Request, engine: Engine) -> Response:
    """DELETE: remove a stream (section 5.4)."""
    await engine.write(Delete(paths.validate(request.path)))
    return Response(204, [])


async def head(request: Request, engine: Engine) -> Response:
    """HEAD: what a stream is like; the only read that does not renew its TTL (section 5.5)."""
    info = (await engine.look(paths.validate(request.path))).info
    found: list[Header] = [
        (headers.CONTENT_TYPE, info.content_type.encode("latin-1")),
        (headers.STREAM_NEXT_OFFSET, offsets.encode_bytes(info.tail)),
        _NO_STORE,
    ]
    if info.closed:
        found.append(_CLOSED)
    if info.ttl is not None:
        found.append((headers.STREAM_TTL, b"%d" % info.ttl))
    if info.expires_at is not None:
        found.append((headers.STREAM_EXPIRES_AT, headers.format_time(info.expires_at).encode("ascii")))
    return Response(200, found)


async def read(request: Request, engine: Engine) -> Response | EventStream:
    """GET: read what is there, or stay for what comes (sections 5.6 to 5.8)."""
    path = paths.validate(request.path)
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
    position = offsets.Sentinel.START if token is None else offsets.decode(token)
    view = await engine.look(path, position)
    if view.info.ttl is not None and lifetime.needs_touch(view.info.ttl, view.info.deadline, timezone.now()):
        await engine.touch(path)
    if live is not None:
        watch_signals()
    if live == "sse":
        return _events(request, view, engine)
    if live == "long-poll":
        return await _long_poll(request, view, engine)
    return _page(request, view, is_now=position is offsets.Sentinel.NOW)


Key = TypeVar("Key")


class _Answer(Enum):
    """What a read that does not stay may be answered with."""

    PAGE = "data, or that there is none yet"
    NOW = "where the stream ends now"
    NOT_MODIFIED = "what the client has is still right"


def _page(request: Request, view: View, *, is_now: bool) -> Response:
    """Answer a catch-up read (section 5.6)."""
    if is_now:
        return _shared(view, _Answer.NOW, _page_answer)
    tags = request.headers.get(headers.IF_NONE_MATCH)
    if tags is None or len(tags) > MAX_SHARED_TAGS:
        return _page_unless_known(view, tags)
    return _shared(view, tags, _page_unless_known)


def _page_unless_known(view: View, tags: bytes | None) -> Response:
    is_known = tags is not None and caching.matches(tags.decode("latin-1"), _etag(view))
    return _shared(view, _Answer.NOT_MODIFIED if is_known else _Answer.PAGE, _page_answer)


def _page_answer(view: View, kind: _Answer) -> Response:
    found = _position_headers(view)
    if kind is _Answer.NOW:
        found.append(_NO_STORE)
    else:
        # What is empty today may have data in a second: caches have to ask. What has data keeps it.
        found.append((headers.CACHE_CONTROL, _cacheable()) if view.segment is not None else _NO_CACHE)
        found.append((headers.ETAG, _etag(view)))
    return Response(304, found) if kind is _Answer.NOT_MODIFIED else _with_body(found, view)


def _etag(view: View) -> bytes:
    return caching.etag(view.info.id, view.position, view.end, view.at_end)


def _shared(view: View, key: Key, make: Callable[[View, Key], Response]) -> Response:
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


async def _long_poll(request: Request, view: View, engine: Engine) -> Response:
    """Answer a long-poll (section 5.7)."""
    if view.segment is None and not view.closed:
        engine.check_room()
        poll = LongPoll(engine, view, partial(_deliver, request), request.grant, lasting=request.can_stream)
        request.when_left(poll.wake)
        try:
            view = await poll.wait()
        finally:
            request.let_leave()
        if poll.delivered:
            return _SENT
        if request.grant is not None:
            request.grant.check()
    return _long_poll_answer(request, view)


_SENT = Response(200, [])
_SENT.sent = True


def _deliver(request: Request, view: View, told: dict[Any, Any]) -> bool:
    # Everything that an answer depends on; hundreds may be told at once.
    alike = view.position, request.query, request.headers.get(b"origin")
    answer: Response | None = told.get(alike)
    if answer is None:
        answer = told[alike] = _long_poll_answer(request, view).with_headers(common_headers(request))
    return request.send_now(answer)


def _long_poll_answer(request: Request, view: View) -> Response:
    cursor = caching.cursor_floor(request.parameter("cursor"), time.time())
    return _shared(view, cursor, _poll_answer)


def _poll_answer(view: View, cursor: int) -> Response:
    found = _position_headers(view)
    if not view.at_end:
        found.append((headers.STREAM_CURSOR, b"%d" % cursor))
    if view.segment is None:
        found.append(_NO_STORE)
        return Response(204, found)
    found.append((headers.CACHE_CONTROL, _cacheable()))
    found.append((headers.ETAG, _etag(view)))
    return _with_body(found, view)


def _events(request: Request, view: View, engine: Engine) -> EventStream:
    """Answer an SSE read (section 5.8)."""
    engine.check_room()
    found: list[Header] = [
        (headers.CONTENT_TYPE, b"text/event-stream"),
        _NO_CACHE,
        # nginx would collect an event stream, and hand it on when its buffer is full.
        (b"x-accel-buffering", b"no"),
    ]
    if not content.is_text(view.info.content_type):
        found.append((headers.STREAM_SSE_DATA_ENCODING, b"base64"))
    return EventStream(found, SseReader(engine, view, request.parameter("cursor"), request.grant))


def _position_headers(view: View) -> list[Header]:
    found: list[Header] = [(headers.STREAM_NEXT_OFFSET, offsets.encode_bytes(view.end))]
    if view.up_to_date:
        found.append(_UP_TO_DATE)
        if view.closed:
            found.append(_CLOSED)
    return found


def _with_body(found: list[Header], view: View) -> Response:
    kind = view.info.content_type
    body = view.segment.body(kind) if view.segment is not None else content.unpack(kind, b"")
    found.append((headers.CONTENT_TYPE, kind.encode("latin-1")))
    found.append((headers.CONTENT_LENGTH, b"%d" % len(body)))
    return Response(200, found, body)


def _cacheable() -> bytes:
    return caching.cache_control(config().cache_scope)


_CREATE_HEADERS = frozenset(
    {
        headers.STREAM_CLOSED,
        headers.STREAM_TTL,
        headers.STREAM_EXPIRES_AT,
        headers.STREAM_FORKED_FROM,
        headers.STREAM_FORK_OFFSET,
        headers.STREAM_FORK_SUB_OFFSET,
    }
)


def _lifetime(request: Request) -> tuple[int | None, datetime | None]:
    """Return the TTL in seconds, or the end, that a create asks for (section 5.1)."""
    ttl = request.header(headers.STREAM_TTL)
    expires_at = request.header(headers.STREAM_EXPIRES_AT)
    if ttl is not None and expires_at is not None:
        raise InvalidHeader("Give Stream-TTL or Stream-Expires-At, not both.")
    if expires_at is not None:
        return None, headers.expires_at(expires_at, timezone.now())
    return None if ttl is None else headers.ttl(ttl), None


def _fork(request: Request) -> Fork | None:
    """Return what a create wants to fork, or None (section 4.2)."""
    source = request.fork_source()
    token = request.header(headers.STREAM_FORK_OFFSET)
    count = request.header(headers.STREAM_FORK_SUB_OFFSET)
    if source is None:
        if token is not None or count is not None:
            raise InvalidHeader("Stream-Fork-Offset and Stream-Fork-Sub-Offset need a Stream-Forked-From.")
        return None
    position = offsets.decode(token) if token is not None else None
    if isinstance(position, offsets.Sentinel):
        raise InvalidOffset("Stream-Fork-Offset is an offset that the server returned; leave it out for the tail.")
    sub_offset = headers.sub_offset(count) if count is not None else 0
    return Fork(source, position, sub_offset)


def _wants_closed(request: Request) -> bool:
    value = request.header(headers.STREAM_CLOSED)
    return value is not None and headers.is_true(value)


_APPEND_HEADERS = frozenset(
    {headers.STREAM_CLOSED, headers.STREAM_SEQ, headers.PRODUCER_ID, headers.PRODUCER_EPOCH, headers.PRODUCER_SEQ}
)


def _producer(request: Request) -> ProducerClaim | None:
    """Return what a request says of its producer: all three headers, or none (section 5.2.1)."""
    given = request.headers.get
    name, epoch, seq = given(headers.PRODUCER_ID), given(headers.PRODUCER_EPOCH), given(headers.PRODUCER_SEQ)
    if name is None or epoch is None or seq is None:
        if name is epoch is seq:
            return None
        raise InvalidHeader("Producer-Id, Producer-Epoch and Producer-Seq come together or not at all.")
    return ProducerClaim(
        _producer_id(name),
        headers.producer_number("Producer-Epoch", epoch),
        headers.producer_number("Producer-Seq", seq),
    )


@lru_cache(maxsize=1024)
def _producer_id(value: bytes) -> str:
    return headers.opaque("Producer-Id", headers.text(value))


@lru_cache(maxsize=1024)
def _content_type(value: bytes | None) -> str | None:
    text = headers.text(value) if value is not None else ""
    return content.validate(text) if text else None


async def _pack(
    pack: Callable[[str, bytes], bytes], content_type: str, body: bytes
) -> tuple[bytes, DurableStreamsError | None]:
    """Prepare a body to be stored, or return what is wrong with it, to be judged after the stream's own state."""
    try:
        if len(body) >= BIG_BODY:
            return await asyncio.to_thread(pack, content_type, body), None
        return pack(content_type, body), None
    except DurableStreamsError as error:
        return b"", error


Handler = Callable[[Request, Engine], Awaitable[Response | EventStream]]

HANDLERS: dict[str, Handler] = {"GET": read, "POST": append, "PUT": create, "HEAD": head, "DELETE": delete}


def handler_for(method: str) -> Handler:
    """Return the handler for a method.

    Raises:
        MethodNotAllowed: streams do not answer it (405, carries `Allow`).
    """
    handler = HANDLERS.get(method)
    if handler is None:
        raise MethodNotAllowed(
            f"Streams do not answer {method[:32]}.",
            ((headers.ALLOW, METHODS),),
        )
    return handler
