"""The errors of the protocol: one family that knows its status, its headers, and what to do next.

The same exceptions reach Python callers and, as `application/problem+json` (RFC 9457), HTTP clients.
"""

from __future__ import annotations

import re
from typing import ClassVar

import msgspec

Header = tuple[bytes, bytes]

_WORD = re.compile(r"(?<=[a-z])(?=[A-Z])")


class DurableStreamsError(Exception):
    """Something about a request that a stream server must refuse.

    Args:
        detail: a sentence or two for a person: what is wrong, and what to do about it.
        headers: response headers that clients act on, as (lower-case name, value) pairs.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"

    def __init__(self, detail: str = "", headers: tuple[Header, ...] = ()) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = headers

    @classmethod
    def code(cls) -> str:
        """Return the stable short name of this kind of error, such as `stream-closed`."""
        return _WORD.sub("-", cls.__name__).lower()

    def problem(self) -> bytes:
        """Return the body that describes the error, as `application/problem+json`."""
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
    """The URL names no possible stream."""

    title = "Invalid stream path"


class InvalidOffset(BadRequest):
    """An offset is malformed, missing, or given twice."""

    title = "Invalid offset"


class OffsetOutOfRange(BadRequest):
    """An offset lies where the stream has no data, and the operation needs some."""

    title = "Offset out of range"


class InvalidParameter(BadRequest):
    """A query parameter has a value that means nothing."""

    title = "Invalid parameter"


class InvalidHeader(BadRequest):
    """A header is malformed, missing, or given twice."""

    title = "Invalid header"


class IncompleteBody(BadRequest):
    """Less of the body has come than the request has announced."""

    title = "Incomplete body"


class InvalidJSON(BadRequest):
    """The body of a JSON stream's append is not JSON."""

    title = "Invalid JSON"

    @classmethod
    def code(cls) -> str:
        return "invalid-json"


class EmptyAppend(BadRequest):
    """An append carries nothing."""

    title = "Empty append"


class InvalidEpoch(BadRequest):
    """A producer starts an epoch with another sequence number than 0."""

    title = "Invalid producer epoch"


class NotAuthenticated(DurableStreamsError):
    """The request needs credentials, or others than it has."""

    status = 401
    title = "Not authenticated"


class PermissionDenied(DurableStreamsError):
    """The caller may not do this."""

    status = 403
    title = "Forbidden"


class ProducerFenced(DurableStreamsError):
    """A newer epoch of this producer has taken over."""

    status = 403
    title = "Stale producer epoch"


class StreamNotFound(DurableStreamsError):
    """There is no stream at this path, or no longer."""

    status = 404
    title = "Stream not found"


class MethodNotAllowed(DurableStreamsError):
    """Streams do not answer this method."""

    status = 405
    title = "Method not allowed"


class RequestTimeout(DurableStreamsError):
    """The body did not come in time."""

    status = 408
    title = "Request timeout"


class Conflict(DurableStreamsError):
    """The stream's state does not allow this."""

    status = 409
    title = "Conflict"


class StreamExists(Conflict):
    """The path is taken by a stream of another configuration."""

    title = "Stream exists with another configuration"


class SourceGone(Conflict):
    """The stream to fork was deleted; only the forks that it has read its data."""

    title = "Source stream is gone"


class StreamClosed(Conflict):
    """The stream has ended; nothing can be appended."""

    title = "Stream is closed"


class ContentTypeMismatch(Conflict):
    """The content type is not the stream's."""

    title = "Content type mismatch"


class SequenceConflict(Conflict):
    """A `Stream-Seq` is not greater than the last one.

    Clients tell it from other conflicts by these words, as no header does.
    """

    title = "Sequence conflict"


class ProducerSequenceGap(Conflict):
    """A producer has left out a sequence number."""

    title = "Producer sequence gap"


class StreamGone(DurableStreamsError):
    """The stream was deleted, and its path stays taken while forks read its data; or the data is not retained."""

    status = 410
    title = "Stream is gone"


class OffsetGone(StreamGone):
    """An offset was handed out for data that is not there: of another stream at this path, or lost with it."""

    title = "Offset is gone"


class LengthRequired(DurableStreamsError):
    """The body has no `Content-Length`, and this deployment cannot read it without one."""

    status = 411
    title = "Length required"


class PayloadTooLarge(DurableStreamsError):
    """The body is over the limit."""

    status = 413
    title = "Payload too large"


class UnsupportedContentType(DurableStreamsError):
    """Streams of this content type are not created here."""

    status = 415
    title = "Content type not supported"


class UnsupportedContentEncoding(DurableStreamsError):
    """The body is compressed, and streams keep bodies as they are sent."""

    status = 415
    title = "Content coding not supported"


class TooManyRequests(DurableStreamsError):
    """The caller has done this too often for now."""

    status = 429
    title = "Too many requests"


class LiveModeUnsupported(DurableStreamsError):
    """This deployment cannot hold a response open."""

    status = 501
    title = "Live mode not supported"


class ServiceUnavailable(DurableStreamsError):
    """The server cannot take the request now; the same request may succeed a little later."""

    status = 503
    title = "Service unavailable"

    def __init__(self, detail: str = "", headers: tuple[Header, ...] = ((b"retry-after", b"1"),)) -> None:
        super().__init__(detail, headers)
