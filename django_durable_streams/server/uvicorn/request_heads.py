"""Parses the head of an HTTP/1.1 request. Only plain heads are parsed here, uvicorn parses the others.

The invariant: the result depends on the bytes of the head alone, so it can be cached. Clients send the same heads again
and again, and a cached head takes one lookup. This is a part of the fast path, and is switched off with it
(UVICORN_FAST_PATH).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, unquote

from ...protocol import headers

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_BYTES = 8 * 1024
"""Bytes of the longest head that is parsed here."""

MAX_HEADERS = 64
"""Headers in a head that is parsed here: a cached head takes far more memory than its bytes."""

MAX_CACHED_BYTES = 4 * 1024
"""Bytes of the longest head that is cached."""

MAX_CACHED_LINE_BYTES = 1024
"""Bytes of the longest header line that is cached."""

MAX_LENGTH_DIGITS = 15
"""Digits of the longest Content-Length that is parsed here."""

END = b"\r\n\r\n"

_REQUEST_LINE = re.compile(
    rb"(GET|POST|PUT|DELETE|HEAD) (/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*)(?:\?([A-Za-z0-9._~!$&'()*+,;=:@/?%-]*))?"
    rb" HTTP/1\.1\r\n"
)
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")

# A producer's heads differ only in this line.
_PRODUCER_SEQ_LINE = re.compile(rb"\r\nproducer-seq:[\t ]*([0-9]+)[\t ]*(?=\r\n|\Z)", re.IGNORECASE)

# Headers that ask for more than one request and one answer, or that come from a proxy.
_LEFT_TO_UVICORN = frozenset(
    {
        b"transfer-encoding",
        b"expect",
        b"te",
        b"trailer",
        b"x-forwarded-for",
        b"x-forwarded-proto",
    }
)

_KEEP_ALIVE_OPTIONS = frozenset({b"keep-alive", b"upgrade", b"http2-settings"})


class Head(NamedTuple):
    """A request line and its headers. `path` is percent-decoded."""

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    content_length: int


@lru_cache(maxsize=1024)
def parse(head: bytes) -> Head | None:
    """Parse a head of up to MAX_CACHED_BYTES, without the empty line at its end.

    None means that the head is left to uvicorn: it is malformed, has a header twice or too many headers, closes the
    connection, asks for a WebSocket, or has a body without a length.
    """
    seq = _PRODUCER_SEQ_LINE.search(head) if head.startswith(b"POST") else None
    if seq is None:
        return parse_once(head)
    rest = _parse_without_seq(head[: seq.start()] + head[seq.end() :])
    if rest is None or headers.PRODUCER_SEQ in rest.headers:
        return None
    method, path, query, fields, length = rest
    return Head(method, path, query, {**fields, headers.PRODUCER_SEQ: seq[1]}, length)


def parse_once(head: bytes) -> Head | None:
    """Parse a head as `parse` does, and do not cache it: it is long, or creates a stream and will not come again."""
    request = _REQUEST_LINE.match(head)
    parse_headers = _parse_headers if len(head) <= MAX_CACHED_BYTES else _parse_headers.__wrapped__
    parsed = parse_headers(head[request.end() :]) if request is not None else None
    if request is None or parsed is None:
        return None
    method, raw_path, query = request.groups(default=b"")
    path = raw_path.decode("ascii")
    fields, length = parsed
    return Head(method.decode("ascii"), unquote(path) if "%" in path else path, query, fields, length)


_parse_without_seq = lru_cache(maxsize=1024)(parse_once)


@lru_cache(maxsize=1024)
def _parse_headers(block: bytes) -> tuple[Mapping[bytes, bytes], int] | None:
    """Return the headers and the length of the body. A client sends the same headers to stream after stream."""
    lines = block.split(b"\r\n")
    if len(lines) > MAX_HEADERS:
        return None
    fields: dict[bytes, bytes] = {}
    for line in lines:
        header = _parse_header(line) if len(line) <= MAX_CACHED_LINE_BYTES else _parse_header.__wrapped__(line)
        if header is None:
            return None
        fields[header[0]] = header[1]
    if len(fields) != len(lines) or b"host" not in fields:
        return None
    length = fields.get(headers.CONTENT_LENGTH, b"0")
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
        return None
    connection = fields.get(headers.CONNECTION)
    if connection is not None and not _is_kept_alive(connection.lower(), fields):
        return None
    return fields, int(length)


def _is_kept_alive(connection: bytes, fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a connection stays as it is after a request.

    The JDK's client offers another protocol with each request. Such an offer is not taken (RFC 9110, section 7.8).
    Only an offer of WebSockets is for uvicorn.
    """
    if connection == b"keep-alive":
        return True
    options = {option.strip(b" \t") for option in connection.split(b",")}
    return options <= _KEEP_ALIVE_OPTIONS and b"websocket" not in fields.get(headers.UPGRADE, b"").lower()


@lru_cache(maxsize=4096)
def _parse_header(line: bytes) -> tuple[bytes, bytes] | None:
    header = _HEADER.fullmatch(line)
    if header is None:
        return None
    name = header[1].lower()
    return None if name in _LEFT_TO_UVICORN else (name, header[2].strip(b" \t"))


def asgi_scope(head: Head, connection: HttpToolsProtocol) -> dict[str, Any]:
    """Return the ASGI scope that uvicorn would make of a head. Permissions may ask for it."""
    return {
        "type": "http",
        "asgi": {"version": connection.config.asgi_version, "spec_version": "2.3"},
        "http_version": "1.1",
        "server": connection.server,
        "client": connection.client,
        "scheme": connection.scheme,
        "method": head.method,
        "root_path": "",
        "path": head.path,
        "raw_path": quote(head.path).encode("ascii"),
        "query_string": head.query,
        "headers": list(head.headers.items()),
        "state": connection.app_state.copy(),
    }
