"""Bodies of requests: bounded while they come, and believed only if all came that was announced.

Every entry point reads bodies with this. What a body may be is judged before any of it is read: whether the request is
allowed at all (`dispatch`), and how long the body says it is. What comes in parts is counted, for the whole process.
"""

from __future__ import annotations

from collections.abc import Mapping
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
"""A rest of a refused body that is taken, to have the connection for the next request. For more it is closed."""

LINGER_SECONDS = 2.0
"""How long the rest of a refused body is taken before the connection is closed, at most MAX_APPEND_BYTES of it.

A connection that is closed with data unread is reset, and the response may be lost with it.
"""


class BodyMemory:
    """What the unfinished bodies of this process hold together. Safe to use from any thread."""

    def __init__(self) -> None:
        self.held = 0
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Hold so many bytes more.

        Raises:
            ServiceUnavailable: that would be over MAX_BODY_MEMORY.
        """
        with self._lock:
            if self.held + size > config().max_body_memory:
                raise ServiceUnavailable("Too many request bodies are arriving. Try again.")
            self.held += size

    def give_back(self, size: int) -> None:
        """Hold so many bytes less."""
        with self._lock:
            self.held -= size


memory = BodyMemory()


class ArrivingBody:
    """A body that comes in parts. What it holds is given back by `release`, which may be called again.

    Args:
        found: the request's headers.
        announced: its length, from `admitted_length`.
    """

    __slots__ = ("_announced", "_found", "_held", "_limit", "_parts", "size")

    def __init__(self, found: Mapping[bytes, bytes], announced: int | None) -> None:
        self._announced = announced
        self._limit = config().max_append_bytes
        self._found = found
        self._parts: list[bytes] = []
        self._held = 0
        self.size = 0

    def add(self, part: bytes) -> None:
        """Take a part.

        Raises:
            PayloadTooLarge: the body is over the limit.
            ServiceUnavailable: the unfinished bodies of the process are.
        """
        self.size += len(part)
        if self.size > self._limit:
            raise too_large()
        memory.take(len(part))
        self._held += len(part)
        self._parts.append(part)

    def whole(self) -> bytes:
        """Return the body, all of which has come.

        Raises:
            IncompleteBody: it is less than was announced.
        """
        check_complete(self._found, self._announced, self.size)
        body = b"".join(self._parts)
        self._parts = []
        return body

    def release(self) -> None:
        """Give back what it holds."""
        held, self._held = self._held, 0
        self._parts = []
        if held:
            memory.give_back(held)


def announced_length(found: Mapping[bytes, bytes]) -> int | None:
    """Return the `Content-Length` of a request, or None where it has none.

    Raises:
        InvalidHeader: it is no number.
    """
    length = found.get(headers.CONTENT_LENGTH)
    if length is None:
        return None
    if not length.isdigit():
        raise InvalidHeader("Content-Length must be a whole number in decimal digits.")
    # Turning a million digits into a number takes seconds.
    return int(length) if len(length) <= 18 else 10**18


def admitted_length(found: Mapping[bytes, bytes]) -> int | None:
    """Return the same for a body that is about to be read.

    Raises:
        PayloadTooLarge: it is over the limit.
        InvalidHeader: it is no number, or the body has a coding of which only the sender knows where it ends, or what
            is in it (RFC 9112, section 6.3). Some servers pass on an empty body then.
    """
    coding = found.get(headers.TRANSFER_ENCODING)
    if coding is not None and coding.lower() != b"chunked":
        raise InvalidHeader("Transfer-Encoding must be chunked, and nothing else. Send the body with a Content-Length.")
    announced = announced_length(found)
    if announced is not None and announced > config().max_append_bytes:
        raise too_large()
    return announced


def check_complete(found: Mapping[bytes, bytes], announced: int | None, size: int) -> None:
    """See that a body is what the request has announced, as far as that can be known.

    Some servers take an offer to upgrade the connection for the end of the request, and pass on an empty body: of
    those with a length the rest is missed, of those in chunks nothing is known.

    Raises:
        IncompleteBody: there is less of it.
    """
    if size and (announced is None or size >= announced):
        return
    is_lost = announced if announced is not None else headers.TRANSFER_ENCODING in found
    if size == 0 and is_lost and headers.UPGRADE in found:
        raise IncompleteBody(
            "The server has taken the Upgrade header for the end of the request, and has lost the body. "
            "Send the request without that header, or start uvicorn with --http h11."
        )
    if announced is not None and size < announced:
        raise IncompleteBody(f"The body has {size} of {announced} announced bytes. Send the request again.")


def check_whole(found: Mapping[bytes, bytes], announced: int | None, body: bytes) -> bytes:
    """Return a body that has come at once.

    Raises:
        PayloadTooLarge: it is over the limit.
        IncompleteBody: it is less than was announced.
    """
    if len(body) > config().max_append_bytes:
        raise too_large()
    check_complete(found, announced, len(body))
    return body


def has_large_rest(found: Mapping[bytes, bytes]) -> bool:
    """Whether the body of a request that is refused unread may be so long that the connection is better closed."""
    try:
        announced = announced_length(found)
    except InvalidHeader:
        return True
    return announced > SMALL_BYTES if announced is not None else headers.TRANSFER_ENCODING in found


def too_large() -> DurableStreamsError:
    """Return the error for a body over the limit."""
    return PayloadTooLarge(f"The body is larger than {config().max_append_bytes} bytes. Split it into several appends.")


def too_slow() -> DurableStreamsError:
    """Return the error for a body that has not come in time."""
    seconds = config().receive_timeout
    return RequestTimeout(f"The body did not arrive within {seconds:g} s. Split it into several appends.")
