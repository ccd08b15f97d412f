"""The errors of the protocol: one family of exceptions that know their status, their headers and their message.

Python callers get the exceptions. HTTP clients get them as `application/problem+json` (RFC 9457).
"""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

Header = tuple[bytes, bytes]

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class DurableStreamsError(Exception):
    """A stream server refuses a request.

    Args:
        detail: one or two sentences for people: what happened, and what to do.
        headers: response headers for clients, as pairs of lower-case name and value.
    """

    status: int = 500
    title: ClassVar[str] = "Internal error"

    content_type: ClassVar[bytes] = b"application/problem+json"
    """The media type of `problem`."""

    def __init__(self, detail: str = "", headers: tuple[Header, ...] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = headers

    @classmethod
    def code(cls) -> str:
        """Return the stable short name of this class of errors, such as `stream-closed`."""
        return _WORD.sub("-", cls.__name__).lower()

    def problem(self) -> bytes:
        """Return the body of the response, as `application/problem+json`."""
        return msgspec.json.encode(
            {
                "type": f"urn:durable-streams:error:{self.code()}",
                "title": self.title,
                "status": self.status,
                "detail": self.detail,
            }
        )


class BadRequest(DurableStreamsError):
    """The request cannot be understood."""

    status = 400
    title = "Bad request"


class InvalidPath(BadRequest):
    """No stream can have this path."""

    title = "Invalid stream path"


class InvalidOffset(BadRequest):
    """An offset is malformed, missing, or occurs twice."""

    title = "Invalid offset"


class OffsetOutOfRange(BadRequest):
    """The operation needs data at an offset where the stream has none."""

    title = "Offset out of range"


class InvalidParameter(BadRequest):
    """A query parameter has an invalid value."""

    title = "Invalid parameter"


class InvalidHeader(BadRequest):
    """A header is malformed, missing, or occurs twice."""

    title = "Invalid header"


class InvalidFrame(BadRequest):
    """A frame of a WebSocket cannot be understood."""

    title = "Invalid frame"


class IncompleteBody(BadRequest):
    """The body is shorter than the request announced."""

    title = "Incomplete body"


class InvalidJSON(BadRequest):
    """The body of a JSON stream's append is not JSON."""

    title = "Invalid JSON"

    @classmethod
    def code(cls) -> str:
        return "invalid-json"


class EmptyAppend(BadRequest):
    """An append has no data."""

    title = "Empty append"


class InvalidEpoch(BadRequest):
    """A producer starts an epoch with a sequence number other than 0."""

    title = "Invalid producer epoch"


class NotAuthenticated(DurableStreamsError):
    """The request has no credentials, or invalid ones."""

    status = 401
    title = "Not authenticated"


class PermissionDenied(DurableStreamsError):
    """The caller has no permission for this operation."""

    status = 403
    title = "Forbidden"


class ProducerFenced(DurableStreamsError):
    """A newer epoch of this producer has taken over."""

    status = 403
    title = "Stale producer epoch"


class StreamNotFound(DurableStreamsError):
    """There is no stream at this path."""

    status = 404
    title = "Stream not found"


class MethodNotAllowed(DurableStreamsError):
    """Streams do not answer this method."""

    status = 405
    title = "Method not allowed"


class RegistryReadOnly(MethodNotAllowed):
    """Only the server writes to the registry."""

    title = "Read-only stream"


class RequestTimeout(DurableStreamsError):
    """The body did not arrive in time."""

    status = 408
    title = "Request timeout"


class Conflict(DurableStreamsError):
    """The stream's state does not allow the operation."""

    status = 409
    title = "Conflict"


class StreamExists(Conflict):
    """A stream with another configuration has this path."""

    title = "Stream exists with another configuration"


class SourceGone(Conflict):
    """The source of a new fork was deleted. Only its existing forks read its data."""

    title = "Source stream is gone"


class StreamClosed(Conflict):
    """The stream is closed, and takes no appends."""

    title = "Stream is closed"


class ContentTypeMismatch(Conflict):
    """The content type is not the stream's."""

    title = "Content type mismatch"


class SequenceConflict(Conflict):
    """A `Stream-Seq` is not greater than the last one.

    Clients recognise it by this title, because no header distinguishes it from other conflicts.
    """

    title = "Sequence conflict"


class ProducerSequenceGap(Conflict):
    """A producer skipped a sequence number."""

    title = "Producer sequence gap"


class StreamGone(DurableStreamsError):
    """The stream was deleted, but its path stays taken while forks read its data."""

    status = 410
    title = "Stream is gone"


class OffsetGone(StreamGone):
    """An offset belongs to an earlier stream at this path, or to data that the database has lost."""

    title = "Offset is gone"


class OffsetTrimmed(StreamGone):
    """The data at an offset was trimmed: the stream goes on, and keeps its data from another offset on.

    Args:
        first_offset: the offset of the first data that is left.
    """

    title = "Offset is trimmed"

    def __init__(self, detail: str = "", headers: tuple[Header, ...] = (), *, first_offset: str = "") -> None:
        super().__init__(detail, headers)
        self.first_offset = first_offset


class TailMismatch(DurableStreamsError):
    """The condition of an append does not hold: the stream's tail is not at the offset that the caller named.

    Args:
        next_offset: the present tail.
    """

    status = 412
    title = "Tail is at another offset"

    def __init__(self, detail: str = "", headers: tuple[Header, ...] = (), *, next_offset: str = "") -> None:
        super().__init__(detail, headers)
        self.next_offset = next_offset


class LengthRequired(DurableStreamsError):
    """The body has no `Content-Length`, which this deployment needs."""

    status = 411
    title = "Length required"


class PayloadTooLarge(DurableStreamsError):
    """The body is larger than the limit."""

    status = 413
    title = "Payload too large"


class UnsupportedContentType(DurableStreamsError):
    """Clients may not create streams of this content type here."""

    status = 415
    title = "Content type not supported"


class UnsupportedContentEncoding(DurableStreamsError):
    """The body is compressed, but streams store bodies as they are sent."""

    status = 415
    title = "Content coding not supported"


class TooManyRequests(DurableStreamsError):
    """The caller has reached a rate limit."""

    status = 429
    title = "Too many requests"


class LiveModeUnsupported(DurableStreamsError):
    """This deployment cannot hold a response open."""

    status = 501
    title = "Live mode not supported"


class ServiceUnavailable(DurableStreamsError):
    """The server cannot handle the request now. The same request may succeed a little later."""

    status = 503
    title = "Service unavailable"

    def __init__(self, detail: str = "", headers: tuple[Header, ...] = ((b"retry-after", b"1"),)) -> None:
        super().__init__(detail, headers)


class TransactionConflict(ServiceUnavailable):
    """The snapshot of the caller's transaction is older than a change that the operation needs.

    The whole transaction has to be repeated, because its snapshot stays. It is also a `django.db.OperationalError`.
    """

    title = "Transaction conflict"
