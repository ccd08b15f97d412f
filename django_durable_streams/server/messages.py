"""Requests and responses, as the handlers see them: neither ASGI's nor Django's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from ..conf import config
from ..protocol import headers, paths
from ..protocol.errors import (
    DurableStreamsError,
    InvalidHeader,
    InvalidOffset,
    InvalidParameter,
    PayloadTooLarge,
    StreamNotFound,
)

if TYPE_CHECKING:
    from ..access.callers import Caller, Source
    from ..access.grants import Grant
    from .live import SseReader

Header = tuple[bytes, bytes]

CLOSED: Header = (headers.STREAM_CLOSED, b"true")


class ClientDisconnected(Exception):
    """The client left before its request was complete."""


class Request(ABC):
    """An HTTP request for a stream. Each door has a kind of its own.

    Args:
        method: in capitals.
        path: of the stream, relative to the root of the streams, percent-decoded and not yet validated.
        query: the raw query string.
        header_list: names in lower case and values, as they came.

    Raises:
        InvalidHeader: a header that means something here came twice.
    """

    __slots__ = ("_parameters", "body", "grant", "headers", "method", "path", "query", "refuse_body")

    can_stream = True
    """Whether this deployment can hold a response open."""

    is_bare = False
    """Whether nothing stands between the server and this app, so that nobody else can have said who sent it."""

    caller: Caller | None = None
    """Who sent it, where the door knows."""

    def __init__(self, method: str, path: str, query: bytes, header_list: list[Header]) -> None:
        self.method = method
        self.path = path
        self.query = query
        found = dict(header_list)
        if len(found) != len(header_list):
            _refuse_doubled(header_list)
            for name, separator in headers.LISTS.items():
                if name in found:
                    found[name] = separator.join(value for key, value in header_list if key == name)
        self.headers: Mapping[bytes, bytes] = found
        self._begin()

    def _begin(self, body: bytes | None = None) -> None:
        self.body = body  # the whole of it, once it is there
        self._parameters: Mapping[str, str] | None = None
        self.grant: Grant | None = None  # what a live read stands on, where that can end
        self.refuse_body: Callable[[], DurableStreamsError] | None = None  # where only an empty body is allowed

    @property
    @abstractmethod
    def scheme(self) -> str:
        """`http` or `https`, as the server has it."""

    @property
    @abstractmethod
    def source(self) -> Source:
        """The ASGI scope or Django's request, for those who decide by it whether it is allowed."""

    @abstractmethod
    def url(self) -> bytes:
        """Return the absolute URL of the stream."""

    @abstractmethod
    def root(self) -> str:
        """Return the path of the root of the streams in URLs, percent-decoded, with a slash at its end."""

    @abstractmethod
    async def read_body(self) -> bytes:
        """Return the whole body.

        Raises:
            PayloadTooLarge: it is over the limit, and was read no further.
            ClientDisconnected: it did not come to its end.
        """

    def when_left(self, tell: Callable[[], object]) -> None:  # noqa: B027 - a door need not do anything
        """Have a function called when the client leaves before it is answered.

        It is not called where the door itself ends the request then.
        """

    def let_leave(self) -> None:  # noqa: B027
        """Have it called no longer."""

    def send_now(self, response: Response) -> bool:
        """Send a response from where the news of it arrives, without waking the request's own task.

        Returns False where the door cannot; then nothing was sent.
        """
        return False

    def fork_source(self) -> str | None:
        """Return the path of the stream that a create wants to fork, or None (section 4.2).

        Raises:
            InvalidPath, StreamNotFound: no stream of this server can have it.
        """
        source = self.header(headers.STREAM_FORKED_FROM)
        if source is None:
            return None
        path, root = unquote(source), self.root()
        if not path.startswith(root):
            raise StreamNotFound(f"Stream-Forked-From is the path of a stream on this server, below {root}.")
        return paths.validate_again(path[len(root) :])

    def header(self, name: bytes) -> str | None:
        """Return a header's value as text, or None where it did not come."""
        value = self.headers.get(name)
        return None if value is None else headers.text(value)

    def parameter(self, name: str) -> str | None:
        """Return a query parameter, or None where it did not come.

        Raises:
            InvalidOffset, InvalidParameter: it came twice, or is not UTF-8.
        """
        if not self.query:
            return None
        if self._parameters is None:
            self._parameters = _parse_query(self.query)
        return self._parameters.get(name)


def _refuse_doubled(header_list: list[Header]) -> None:
    seen = set()
    for name, _ in header_list:
        if name in seen and name in headers.SINGLE:
            raise InvalidHeader(f"{name.decode('latin-1').title()} came twice.")
        seen.add(name)


_PARAMETERS = frozenset({"offset", "live", "cursor"})


@lru_cache(maxsize=512)
def _parse_query(query: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError as error:
        raise InvalidParameter("The query string cannot be read.") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found and name in _PARAMETERS:
            kind = InvalidOffset if name == "offset" else InvalidParameter
            raise kind(f"The parameter {name} came twice.")
        found[name] = value
    return found


class Response:
    """An HTTP response that is ready as a whole.

    Args:
        is_shared: many requests get it, so nothing in it may be changed; what is made of it can be kept.

    `sent`: it has been sent already, by `Request.send_now`. `wire`: where a door keeps a shared one as it is sent.
    """

    __slots__ = ("_completed", "body", "headers", "is_shared", "sent", "status", "wire")

    def __init__(self, status: int, header_list: list[Header], body: bytes = b"", *, is_shared: bool = False) -> None:
        self.status = status
        self.headers = header_list
        self.body = body
        self.is_shared = is_shared
        self.sent = False
        self.wire: tuple[object, bytes] | None = None
        self._completed: tuple[list[Header], Response] | None = None

    def with_headers(self, added: list[Header]) -> Response:
        """Return the response with some more headers. One that is shared stays as it is, and gives the same again."""
        if not self.is_shared:
            self.headers += added
            return self
        known = self._completed
        if known is None or known[0] is not added:
            whole = Response(self.status, [*self.headers, *added], self.body, is_shared=True)
            known = self._completed = added, whole
        return known[1]


class EventStream:
    """An HTTP response that lives on: what it begins with, and the reader that makes its chunks."""

    __slots__ = ("headers", "reader", "status")

    sent = False

    def __init__(self, header_list: list[Header], reader: SseReader) -> None:
        self.status = 200
        self.headers = header_list
        self.reader = reader

    def with_headers(self, added: list[Header]) -> EventStream:
        """Return the response with some more headers."""
        self.headers += added
        return self


ANSWERS = (Response, EventStream)

Work = Coroutine[Any, Any, Response | EventStream]
"""What leads to a response, where that has to wait for something."""


def stream_headers(content_type: str, next_offset: bytes, *, closed: bool) -> list[Header]:
    """Return the headers that say what a stream is like."""
    found = [
        (headers.CONTENT_TYPE, content_type.encode("latin-1")),
        (headers.STREAM_NEXT_OFFSET, next_offset),
    ]
    if closed:
        found.append(CLOSED)
    return found


def error_response(error: DurableStreamsError) -> Response:
    """Return the response that tells a client of an error (RFC 9457)."""
    body = error.problem()
    return Response(
        error.status,
        [
            (headers.CONTENT_TYPE, b"application/problem+json"),
            (headers.CONTENT_LENGTH, b"%d" % len(body)),
            (headers.CACHE_CONTROL, b"no-store"),
            *error.headers,
        ],
        body,
    )


def check_length(length: bytes) -> None:
    """Refuse a body by its `Content-Length`, before any of it is read.

    Raises:
        PayloadTooLarge: it is over the limit.
    """
    if length.isdigit() and (len(length) > 18 or int(length) > config().max_append_bytes):
        raise too_large()


def too_large() -> DurableStreamsError:
    """Return the error for a body over the limit."""
    return PayloadTooLarge(f"The body is larger than {config().max_append_bytes} bytes. Split it into several appends.")
