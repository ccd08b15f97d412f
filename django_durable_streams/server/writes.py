"""The handlers of PUT, POST and DELETE (specification, sections 5.1 to 5.4).

They turn a request into an operation of the store, and its outcome into a response. They know neither SQL nor
connections.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

from .. import clock
from ..engine import Engine
from ..protocol import arguments, content, headers, offsets, paths
from ..protocol.errors import DurableStreamsError, EmptyAppend, InvalidHeader, UnsupportedContentEncoding
from ..protocol.messages import CLOSED, Header, Request, Response, stream_headers
from ..protocol.producers import ProducerClaim
from ..store.operations import Append, Appended, Create, Created, Delete, Done, Fork

_EMPTY: Header = (headers.CONTENT_LENGTH, b"0")


def parse_create(request: Request) -> Create:
    """Parse a PUT: create a stream, or confirm that it exists (section 5.1)."""
    path = paths.validate(request.path)
    closed, seconds, moment, fork = False, None, None, None
    if not _CREATE_HEADERS.isdisjoint(request.headers):
        fork = _fork(request)
        seconds, moment = _lifetime(request)
        closed = _wants_closed(request)
    content_type = _content_type(request.headers.get(headers.CONTENT_TYPE))
    if content_type is None and fork is None:
        content_type = content.DEFAULT_CONTENT_TYPE
    return Create(path, content_type, seconds, moment, closed, b"", None, fork)


def set_body_create(request: Request, operation: Create, body: bytes) -> None:
    """Add the initial content to a create, or the error that it has."""
    if body:
        _check_coding(request)
    if not body or operation.content_type is None:
        operation.data = body
    else:
        operation.data, operation.defect = _packed(content.pack_initial, operation.content_type, body)


def respond_create(request: Request, engine: Engine, result: Created) -> Response:
    """Respond to a PUT."""
    next_offset = offsets.encode_bytes(result.generation, result.tail)
    header_list = [*stream_headers(result.content_type, next_offset, closed=result.closed), _EMPTY]
    if result.created:
        header_list.append((headers.LOCATION, request.url()))
    return Response(201 if result.created else 200, header_list)


def parse_append(request: Request) -> Append:
    """Parse a POST: append, close, or both (sections 5.2 and 5.3)."""
    path = paths.validate_again(request.path)
    close, producer, seq, if_tail = False, None, None, None
    if not _APPEND_HEADERS.isdisjoint(request.headers):
        close = _wants_closed(request)
        producer = _producer(request)
        stream_seq = request.header(headers.STREAM_SEQ)
        seq = headers.opaque("Stream-Seq", stream_seq) if stream_seq is not None else None
        condition = request.header(headers.IF_MATCH)
        if_tail = headers.if_match(condition) if condition is not None else None
    return Append(path, None, b"", close, seq, producer, if_tail=if_tail)


def set_body_append(request: Request, operation: Append, body: bytes) -> None:
    """Add the body to an append, or the error that it has."""
    if not body:
        if not operation.close:
            raise EmptyAppend("The body is empty. Send data, or Stream-Closed: true to close the stream.")
        return
    if request.refuse_body is not None:
        raise request.refuse_body()
    if headers.CONTENT_ENCODING in request.headers:
        _check_coding(request)
    content_type = operation.content_type = _content_type(request.headers.get(headers.CONTENT_TYPE))
    if content_type is None:
        raise InvalidHeader("Content-Type is missing. Send the content type of the stream.")
    operation.data = body
    if content.is_json(content_type):
        operation.data, operation.defect = _packed(content.pack, content_type, body)


def _check_coding(request: Request) -> None:
    """Check that a body is not compressed. Readers would get it as it was sent.

    Raises:
        UnsupportedContentEncoding: the body is compressed (415).
    """
    if headers.CONTENT_ENCODING not in request.headers:
        return
    coding = headers.text(request.headers[headers.CONTENT_ENCODING])
    if headers.is_coded(coding):
        raise UnsupportedContentEncoding(
            f"Content-Encoding {coding} is not supported. Send the body without a coding, or give the stream the "
            "content type of compressed data and leave out Content-Encoding.",
            ((headers.ACCEPT_ENCODING, b"identity"),),
        )


def respond_append(request: Request, engine: Engine, result: Appended) -> Response:
    """Respond to a POST."""
    header_list: list[Header] = [(headers.STREAM_NEXT_OFFSET, offsets.encode_bytes(result.generation, result.tail))]
    if result.closed:
        header_list.append(CLOSED)
    if result.producer_epoch is None:
        return Response(204, header_list)
    header_list.append((headers.PRODUCER_EPOCH, b"%d" % result.producer_epoch))
    header_list.append((headers.PRODUCER_SEQ, b"%d" % (result.producer_seq or 0)))
    if result.duplicate or not request.body:
        return Response(204, header_list)
    header_list.append(_EMPTY)
    return Response(200, header_list)


def only_offset(result: object) -> bytes | None:
    """Return the offset by which alone the response to a plain append differs from others, or None for all others."""
    if type(result) is not Appended or result.closed or result.producer_epoch is not None:
        return None
    return offsets.encode_bytes(result.generation, result.tail)


def parse_delete(request: Request) -> Delete:
    """Parse a DELETE: remove a stream (section 5.4)."""
    return Delete(paths.validate_again(request.path))


def respond_delete(request: Request, engine: Engine, result: Done) -> Response:
    """Respond to a DELETE."""
    return Response(204, [])


def _packed(
    pack: Callable[[str, bytes], bytes], content_type: str, body: bytes
) -> tuple[bytes, DurableStreamsError | None]:
    """Return a body as it is stored, or its error. The error counts only if the stream's state allows the operation."""
    try:
        return pack(content_type, body), None
    except DurableStreamsError as error:
        return b"", error


@lru_cache(maxsize=1024)
def _content_type(value: bytes | None) -> str | None:
    text = headers.text(value) if value is not None else ""
    return content.validate(text) if text else None


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
    """Return the TTL in seconds and the time of expiry of a create. At most one is set (section 5.1)."""
    ttl = request.header(headers.STREAM_TTL)
    expires_at = request.header(headers.STREAM_EXPIRES_AT)
    if ttl is not None and expires_at is not None:
        raise InvalidHeader("Send Stream-TTL or Stream-Expires-At, not both.")
    if expires_at is not None:
        return None, headers.expires_at(expires_at, clock.now())
    return None if ttl is None else headers.ttl(ttl), None


def _fork(request: Request) -> Fork | None:
    """Return the fork that a create asks for, or None (section 4.2)."""
    source = request.fork_source()
    token = request.header(headers.STREAM_FORK_OFFSET)
    count = request.header(headers.STREAM_FORK_SUB_OFFSET)
    if source is None:
        if token is not None or count is not None:
            raise InvalidHeader("Stream-Fork-Offset and Stream-Fork-Sub-Offset need Stream-Forked-From. Send it too.")
        return None
    cut = arguments.fork_offset(token, "Stream-Fork-Offset")
    sub_offset = headers.sub_offset(count) if count is not None else 0
    return Fork(source, cut, sub_offset)


def _wants_closed(request: Request) -> bool:
    value = request.header(headers.STREAM_CLOSED)
    return value is not None and headers.is_true(value)


_APPEND_HEADERS = frozenset(
    {
        headers.STREAM_CLOSED,
        headers.STREAM_SEQ,
        headers.IF_MATCH,
        headers.PRODUCER_ID,
        headers.PRODUCER_EPOCH,
        headers.PRODUCER_SEQ,
    }
)


def _producer(request: Request) -> ProducerClaim | None:
    """Return the producer of a request: all three headers, or None (section 5.2.1)."""
    value = request.headers.get
    name, epoch, seq = value(headers.PRODUCER_ID), value(headers.PRODUCER_EPOCH), value(headers.PRODUCER_SEQ)
    if name is None or epoch is None or seq is None:
        if name is epoch is seq:
            return None
        raise InvalidHeader("Producer-Id, Producer-Epoch and Producer-Seq belong together. Send all three, or none.")
    return ProducerClaim(
        _producer_id(name),
        headers.producer_number("Producer-Epoch", epoch),
        headers.producer_number("Producer-Seq", seq),
    )


@lru_cache(maxsize=1024)
def _producer_id(value: bytes) -> str:
    return headers.opaque("Producer-Id", headers.text(value))
