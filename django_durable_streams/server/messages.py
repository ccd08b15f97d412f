"""Requests and responses, as the handlers see them: neither ASGI's nor Django's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from ..conf import config
from ..protocol import headers
from ..protocol.errors import (
    DurableStreamsError,
    InvalidHeader,
    InvalidOffset,
    InvalidParameter,
    PayloadTooLarge,
)

if TYPE_CHECKING:
    from .live import SseReader

Header = tuple[bytes, bytes]


class ClientDisconnected(Exception):
    """The client left before its request was complete."""


class Request:
    """An HTTP request for a stream.

    Args:
        method: in capitals.
        path: of the stream, relative to the root of the streams, percent-decoded and not yet validated.
        root: path of the root of the streams in URLs, percent-decoded, with a slash at its end.
        url: absolute URL of the stream, for `Location`. Made when asked for.
        query: the raw query string.
        header_list: names in lower case and values, as they came.
        read_body: reads the whole body, up to the limit.
        disconnected: returns when the client has left; None where the door itself ends the request then.
        can_stream: whether this deployment can hold a response open.
    """

    __slots__ = (
        "_query",
        "can_stream",
        "disconnected",
        "headers",
        "method",
        "path",
        "query",
        "read_body",
        "root",
        "url",
    )

    def __init__(
        self,
        method: str,
        path: str,
        root: str,
        url: Callable[[], bytes],
        query: bytes,
        header_list: list[Header],
        read_body: Callable[[], Awaitable[bytes]],
        disconnected: Callable[[], Awaitable[None]] | None,
        *,
        can_stream: bool = True,
    ) -> None:
        self.method = method
        self.path = path
        self.root = root
        self.url = url
        self.query = query
        self.headers = dict(header_list)
        self.read_body = read_body
        self.disconnected = disconnected
        self.can_stream = can_stream
        self._query: dict[str, str] | None = None
        if len(self.headers) != len(header_list):
            _refuse_doubled(header_list)

    def header(self, name: bytes) -> str | None:
        """Return a header's value as text, or None where it did not come."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()

    def parameter(self, name: str) -> str | None:
        """Return a query parameter, or None where it did not come.

        Raises:
            InvalidOffset, InvalidParameter: it came twice, or is not UTF-8.
        """
        if not self.query:
            return None
        if self._query is None:
            self._query = _parse_query(self.query)
        return self._query.get(name)


def _refuse_doubled(header_list: list[Header]) -> None:
    seen = set()
    for name, _ in header_list:
        if name in seen and name in headers.SINGLE:
            raise InvalidHeader(f"{name.decode('latin-1').title()} came twice.")
        seen.add(name)


_PARAMETERS = frozenset({"offset", "live", "cursor"})


def _parse_query(query: bytes) -> dict[str, str]:
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
    """An HTTP response that is ready as a whole."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, header_list: list[Header], body: bytes = b"") -> None:
        self.status = status
        self.headers = header_list
        self.body = body


class EventStream:
    """An HTTP response that lives on: what it begins with, and the reader that makes its chunks."""

    __slots__ = ("headers", "reader", "status")

    def __init__(self, header_list: list[Header], reader: SseReader) -> None:
        self.status = 200
        self.headers = header_list
        self.reader = reader


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


def too_large() -> DurableStreamsError:
    """Return the error for a body over the limit."""
    return PayloadTooLarge(f"The body is larger than {config().max_append_bytes} bytes. Split it into several appends.")
