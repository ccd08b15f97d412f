"""Bodies of requests: limited while they arrive, and accepted only if they are complete.

Every entry point reads bodies with this module. Before it reads, `dispatch` has allowed the request, and the announced
length is within the limit. The bytes of unfinished bodies are counted for the whole process. Knows headers, and neither
streams nor the content of a body.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from threading import Lock

from ..conf import config
from ..protocol import headers
from ..protocol.errors import (
    DurableStreamsError,
    IncompleteBody,
    InvalidHeader,
    PayloadTooLarge,
    RequestTimeout,
    ServiceUnavailable,
)

SMALL_BYTES = 64 * 1024
"""Bytes of a refused body that are still taken, so that the connection can go on. With more bytes it is closed."""

MAX_LENGTH_DIGITS = 18
"""Digits of a Content-Length that is read as a number. A longer one is over every limit."""

LINGER_SECONDS = 2.0
"""How long the rest of a refused body is taken before the connection is closed, up to MAX_APPEND_BYTES.

A close with unread data resets the connection, and the client may lose the response.
"""


class BodyMemory:
    """Counts the bytes of all unfinished bodies of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self.held = 0
        self._lock = Lock()

    def reserve(self, size: int) -> None:
        """Reserve bytes.

        Raises:
            ServiceUnavailable: there would be more than MAX_BODY_MEMORY.
        """
        with self._lock:
            if self.held + size > config().max_body_memory:
                raise ServiceUnavailable("Too many request bodies are arriving. Try again.")
            self.held += size

    def release(self, size: int) -> None:
        """Release reserved bytes."""
        with self._lock:
            self.held -= size


memory = BodyMemory()


class ArrivingBody:
    """A body that arrives in parts. `release` releases its memory, and may be called again.

    Args:
        request_headers: the request's headers.
        announced: the length in bytes that the request announces, from `admitted_length`.
    """

    __slots__ = ("_announced", "_headers", "_held", "_limit", "_parts", "_placed", "size")

    def __init__(self, request_headers: Mapping[bytes, bytes], announced: int | None) -> None:
        self._announced = announced
        self._limit = config().max_append_bytes
        self._headers = request_headers
        self._parts: list[bytes] = []
        self._placed: BytesIO | None = None
        self._held = 0
        self.size = 0

    def add(self, part: bytes) -> None:
        """Add a part.

        Raises:
            PayloadTooLarge: the body is over the limit.
            ServiceUnavailable: the unfinished bodies of the process are over theirs.
        """
        self.count(len(part))
        self._parts.append(part)

    def count(self, size: int) -> None:
        """Count bytes that have arrived. `add` has the errors."""
        self.size += size
        if self.size > self._limit:
            raise too_large()
        memory.reserve(size)
        self._held += size

    def place(self) -> memoryview:
        """Return the place for the rest of a body with an announced length. The caller writes it there, and counts it.

        `whole` returns these very bytes, without a copy if nobody holds the place any more. The system gives memory to
        a page when it is written to, so the place takes no more memory than what has arrived.
        """
        assert self._announced is not None
        self._placed = BytesIO(bytes(self._announced))
        place = self._placed.getbuffer()
        place[: self.size] = b"".join(self._parts)
        self._parts = []
        return place[self.size :]

    def whole(self) -> bytes:
        """Return the body after its last part.

        Raises:
            IncompleteBody: the body is shorter than announced.
        """
        check_complete(self._headers, self._announced, self.size)
        body = b"".join(self._parts) if self._placed is None else self._placed.getvalue()
        self._parts = []
        self._placed = None
        return body

    def release(self) -> None:
        """Release the memory of the body."""
        held, self._held = self._held, 0
        self._parts = []
        self._placed = None
        if held:
            memory.release(held)


def announced_length(request_headers: Mapping[bytes, bytes]) -> int | None:
    """Return the `Content-Length` of a request, or None where it has none.

    Raises:
        InvalidHeader: the header is not a number.
    """
    length = request_headers.get(headers.CONTENT_LENGTH)
    if length is None:
        return None
    if not length.isdigit():
        raise InvalidHeader("Content-Length must be a whole number in decimal digits.")
    # A million digits take seconds to become a number.
    return int(length) if len(length) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS


def admitted_length(request_headers: Mapping[bytes, bytes]) -> int | None:
    """Return the `Content-Length` of a body that is about to be read, or None where it has none.

    Raises:
        PayloadTooLarge: the body is over the limit.
        InvalidHeader: the header is not a number, or the body has an unknown transfer coding (RFC 9112, section 6.3).
            Some servers pass on an empty body then.
    """
    coding = request_headers.get(headers.TRANSFER_ENCODING)
    if coding is not None and coding.lower() != b"chunked":
        raise InvalidHeader("Transfer-Encoding must be chunked. Send the body with a Content-Length.")
    announced = announced_length(request_headers)
    if announced is not None and announced > config().max_append_bytes:
        raise too_large()
    return announced


def check_complete(request_headers: Mapping[bytes, bytes], announced: int | None, size: int) -> None:
    """Check that a body is as long as the request announces.

    Some servers take an offer to upgrade the connection for the end of the request, and pass on an empty body. An empty
    body in chunks is then refused too, because its length is unknown.

    Raises:
        IncompleteBody: the body is shorter.
    """
    if size and (announced is None or size >= announced):
        return
    is_lost = announced if announced is not None else headers.TRANSFER_ENCODING in request_headers
    if size == 0 and is_lost and headers.UPGRADE in request_headers:
        raise IncompleteBody(
            "The server took the Upgrade header for the end of the request and lost the body. "
            "Send the request without that header, or start uvicorn with --http h11."
        )
    if announced is not None and size < announced:
        raise IncompleteBody(f"The body has {size} of {announced} announced bytes. Send the request again.")


def check_whole(request_headers: Mapping[bytes, bytes], announced: int | None, body: bytes) -> bytes:
    """Return a body that has arrived in one part.

    Raises:
        PayloadTooLarge: the body is over the limit.
        IncompleteBody: the body is shorter than announced.
    """
    if len(body) > config().max_append_bytes:
        raise too_large()
    if announced != len(body) or not body:  # the usual case needs no call
        check_complete(request_headers, announced, len(body))
    return body


def has_large_rest(request_headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the unread body of a refused request may have more than SMALL_BYTES."""
    try:
        announced = announced_length(request_headers)
    except InvalidHeader:
        return True
    return announced > SMALL_BYTES if announced is not None else headers.TRANSFER_ENCODING in request_headers


def too_large() -> DurableStreamsError:
    """Return the error for a body over the limit."""
    return PayloadTooLarge(f"The body is larger than {config().max_append_bytes} bytes. Split it into several appends.")


def too_slow() -> DurableStreamsError:
    """Return the error for a body that did not arrive in time."""
    seconds = config().receive_timeout
    return RequestTimeout(f"The body did not arrive within {seconds:g} s. Split it into several appends.")
