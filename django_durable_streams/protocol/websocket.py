"""The frames of a WebSocket that follows many streams (docs/websocket.md).

A text frame is one JSON object. A binary frame begins with the length of such an object, as four bytes in network byte
order. The object follows, and then data. Knows frames, and neither sockets nor streams.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from . import content, text
from .errors import InvalidFrame, InvalidHeader
from .messages import MAX_PARAMETERS
from .structs import examine

VERSION = 1
"""The version of the frames, for the welcome frame."""

MAX_ID_LENGTH = 600
"""Characters of the id of a subscription or a request. Each path can be an id."""

MAX_FIELDS_LENGTH = 16 * 1024
"""Characters of all fields of a frame besides its data, as servers bound the head of a request. They are kept while the
request waits."""

_LENGTH = struct.Struct("!I")

_TYPE_PREFIX = "urn:durable-streams:error:"


class _Frame(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    """A frame of a client."""


class Subscribe(_Frame, tag="subscribe"):
    """Follow a stream.

    Attributes:
        path: path of the stream.
        offset: where to begin: an offset, `-1` or `now`.
        id: the name of the subscription in all frames. None: the path.
        query: further query parameters of the request, such as a token.
        binary: whether data comes in binary frames.
    """

    path: str
    offset: str
    id: str | None = None
    query: dict[str, str] = {}
    binary: bool = False

    @property
    def name(self) -> str:
        """The id of the subscription."""
        return self.path if self.id is None else self.id


class Unsubscribe(_Frame, tag="unsubscribe"):
    """Follow a stream no longer."""

    id: str


class Append(_Frame, tag="append"):
    """Append to a stream, close it, or both, as a POST does.

    Attributes:
        id: is repeated in the reply.
        data: for JSON, any value: an array has several messages. For other content types, a string.
        base64: the data in base64, in place of `data`.
        body: the data of a binary frame.
        close: whether the stream is closed.
    """

    path: str
    id: str | None = None
    query: dict[str, str] = {}
    contentType: str | None = None
    data: msgspec.Raw = msgspec.Raw()
    base64: str | None = None
    close: bool = False
    streamSeq: str | None = None
    ifMatch: str | None = None
    producerId: str | None = None
    producerEpoch: int | None = None
    producerSeq: int | None = None

    def take_body(self, payload: bytes | None) -> bytes:
        """Return the body of the corresponding POST. The frame itself has no data from then on.

        Args:
            payload: the data of a binary frame. None: it was a text frame.

        Raises:
            InvalidFrame: there is data in two places, or it has the wrong type.
        """
        value, encoded = bytes(self.data), self.base64
        self.data, self.base64 = msgspec.Raw(), None  # `data` holds the bytes of the whole frame
        if (payload is not None) + (encoded is not None) + bool(value) > 1:
            raise InvalidFrame("The data of an append must be in one place: data, base64, or after the binary header.")
        if payload is not None:
            return payload
        if encoded is not None:
            try:
                return b64decode(encoded, validate=True)
            except ValueError as error:
                raise InvalidFrame("The field base64 is not base64.") from error
        if not value or (self.contentType is not None and content.is_json(self.contentType)):
            return value
        try:
            return msgspec.json.decode(value, type=str).encode()
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise InvalidFrame("The field data must be a string, unless contentType is application/json.") from error

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the corresponding POST.

        Raises:
            InvalidHeader: a value has characters that no header has.
        """
        values: dict[bytes, object] = {
            b"content-type": self.contentType,
            b"stream-closed": "true" if self.close else None,
            b"stream-seq": self.streamSeq,
            b"if-match": self.ifMatch,
            b"producer-id": self.producerId,
            b"producer-epoch": self.producerEpoch,
            b"producer-seq": self.producerSeq,
        }
        try:
            return [(name, str(value).encode("latin-1")) for name, value in values.items() if value is not None]
        except UnicodeEncodeError as error:
            raise InvalidHeader(
                "contentType, streamSeq, ifMatch and producerId must be Latin-1, as in headers."
            ) from error


class Ping(_Frame, tag="ping"):
    """Ask for a pong with the same number."""

    n: int = 0


class Pong(_Frame, tag="pong"):
    """Confirm a ping, and all frames that came before it."""

    n: int


ClientFrame = Subscribe | Unsubscribe | Append | Ping | Pong

_decoder = msgspec.json.Decoder(ClientFrame)


def parse(data: bytes) -> ClientFrame:
    """Return the client's frame in a JSON object.

    Raises:
        InvalidFrame: the data is not JSON in UTF-8, or no frame.
    """
    try:
        frame: ClientFrame = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise InvalidFrame(f"The frame cannot be read. {error}.") from error
    name = frame.name if isinstance(frame, Subscribe) else getattr(frame, "id", None)
    if isinstance(name, str) and not 0 < len(name) <= MAX_ID_LENGTH:
        raise InvalidFrame(f"An id has 1 to {MAX_ID_LENGTH} characters.")
    if len(data) > MAX_FIELDS_LENGTH or getattr(frame, "query", None):
        _check_fields(frame)
    return frame


def _check_fields(frame: ClientFrame) -> None:
    query: dict[str, str] = getattr(frame, "query", {})
    fields = [getattr(frame, name) for name in frame.__struct_fields__ if name != "base64"]
    texts = [*fields, *query, *query.values()]
    if len(query) > MAX_PARAMETERS or sum(len(value) for value in texts if isinstance(value, str)) > MAX_FIELDS_LENGTH:
        raise InvalidFrame(
            f"The fields besides the data have at most {MAX_FIELDS_LENGTH} characters, and a query {MAX_PARAMETERS} "
            "parameters."
        )


def parse_binary(data: bytes) -> tuple[ClientFrame, bytes]:
    """Return the frame and the data of a client's binary frame.

    Raises:
        InvalidFrame: the frame is too short for its header, or its header is no append.
    """
    header, payload = split_binary(data)
    frame = parse(header)
    if not isinstance(frame, Append):
        raise InvalidFrame("Only an append can be a binary frame.")
    return frame, payload


def split_binary(data: bytes) -> tuple[bytes, bytes]:
    """Return the header and the data of a binary frame.

    Raises:
        InvalidFrame: the frame is too short for its header.
    """
    begin = _LENGTH.size
    end = begin + _LENGTH.unpack_from(data)[0] if len(data) >= begin else -1
    if not begin <= end <= len(data):
        raise InvalidFrame("A binary frame begins with four bytes: the length of its header, in network byte order.")
    return data[begin:end], data[end:]


def join_binary(header: bytes, payload: bytes) -> bytes:
    """Return a binary frame."""
    return _LENGTH.pack(len(header)) + header + payload


class ServerFrame(NamedTuple):
    """A frame for a client: text, or bytes if it is binary, and its size in bytes."""

    content: str | bytes
    size: int


def message(kind: str, **fields: Any) -> ServerFrame:
    """Return a frame without data. Fields that are None are left out."""
    encoded = _encoded({"type": kind, **{name: value for name, value in fields.items() if value is not None}})
    return ServerFrame(text.decode(encoded), len(encoded))


def data_frame(name: str, offset: str, content_type: str, data: bytes, *, binary: bool = False) -> ServerFrame:
    """Return a frame with data.

    Args:
        name: id of the subscription.
        offset: the offset after the data.
        content_type: content type of the stream.
        data: in JSON mode an array of messages, for other text types whole characters, else any bytes.
        binary: whether it is a binary frame.
    """
    header = _encoded({"type": "data", "id": name, "offset": offset})
    if binary:
        frame = join_binary(header, data)
        return ServerFrame(frame, len(frame))
    if content.is_json(content_type):
        field = b'"data":' + data
    elif content.is_text(content_type):
        field = b'"data":' + msgspec.json.encode(text.decode(data))
    else:
        field = b'"base64":"' + b64encode(data) + b'"'
    encoded = b"%b,%b}" % (header[:-1], field)
    return ServerFrame(text.decode(encoded), len(encoded))


_HEADER_FIELDS = {
    b"stream-next-offset": "offset",
    b"stream-first-offset": "firstOffset",
    b"retry-after": "retryAfter",
    b"producer-epoch": "producerEpoch",
    b"producer-seq": "producerSeq",
    b"producer-expected-seq": "producerExpectedSeq",
    b"producer-received-seq": "producerReceivedSeq",
    b"stream-closed": "closed",
    b"www-authenticate": "authenticate",
}
"""Headers of a response that a reply has as fields."""


def header_fields(headers: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Return the fields of a reply for the headers of a response. Digits become numbers, `true` becomes true."""
    fields: dict[str, Any] = {}
    for header, name in _HEADER_FIELDS.items():
        value = headers.get(header)
        if value is not None:
            is_number = value.isdigit() and len(value) <= 16
            fields[name] = int(value) if is_number else True if value == b"true" else value.decode("latin-1")
    return fields


def error_frame(
    status: int, problem: bytes, headers: Mapping[bytes, bytes], *, request: str | None, name: str | None
) -> ServerFrame:
    """Return the frame for an error.

    Args:
        status: HTTP status of the error.
        problem: the error as `application/problem+json`.
        headers: the headers of the error.
        request: the type of the frame that failed. None: the frame could not be read.
        name: id of the subscription or request. None: it has none.
    """
    fields = json.loads(problem)
    code = str(fields["type"]).removeprefix(_TYPE_PREFIX)
    details = {"error": code, "detail": fields["detail"], **header_fields(headers)}
    return message("error", request=request, id=name, status=status, **details)


_encoded = msgspec.json.Encoder().encode


examine(globals())
