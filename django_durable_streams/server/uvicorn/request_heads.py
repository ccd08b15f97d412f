"""Parses the head of an HTTP/1.1 request. Only plain heads are parsed here, uvicorn parses the others.

The invariant: the result depends on the bytes of the head alone, so it can be cached. Clients send the same heads again
and again, and a cached head takes one lookup. Heads with the same headers share one mapping, which nobody changes.
Headers of proxies are parsed like all others: what they mean depends on the server, so it is found out where it is
needed. This is a part of the fast path, and is switched off with it (UVICORN_FAST_PATH).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

from django.core.signals import setting_changed

from ...protocol import headers
from ...protocol.errors import InvalidHeader
from .handed_over import Reason

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
    rb" HTTP/(1\.[01])\r\n"
)
_METHODS = (b"GET ", b"POST ", b"PUT ", b"DELETE ", b"HEAD ")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")

# A producer's heads differ only in this line.
_PRODUCER_SEQ_LINE = re.compile(rb"\r\nproducer-seq:[\t ]*([0-9]+)[\t ]*(?=\r\n|\Z)", re.IGNORECASE)

# Headers that ask for more than one request and one answer.
_LEFT_TO_UVICORN = {
    b"transfer-encoding": Reason.CHUNKED_BODY,
    b"trailer": Reason.CHUNKED_BODY,
    b"expect": Reason.EXPECT,
}

_KEEP_ALIVE_OPTIONS = frozenset({b"keep-alive", b"upgrade", b"http2-settings"})


class Head(NamedTuple):
    """A request line and its headers. `path` is percent-decoded, and `raw_path` is not.

    `closes` says whether the connection ends after the response. All requests of HTTP/1.0 end it, as with uvicorn.
    """

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    content_length: int
    raw_path: bytes
    version: str
    closes: bool


@lru_cache(maxsize=1024)
def parse(head: bytes) -> Head | Reason:
    """Parse a head of up to MAX_CACHED_BYTES, without the empty line at its end.

    A `Reason` means that the head is left to uvicorn. It is malformed, has a header twice or too many headers, asks for
    a WebSocket, or has a body without a length.
    """
    seq = _PRODUCER_SEQ_LINE.search(head) if head.startswith(b"POST") else None
    if seq is None:
        return parse_once(head)
    rest = _parse_without_seq(head[: seq.start()] + head[seq.end() :])
    if isinstance(rest, Reason):
        return rest
    if headers.PRODUCER_SEQ in rest.headers:
        return Reason.REPEATED_HEADER
    return rest._replace(headers={**rest.headers, headers.PRODUCER_SEQ: seq[1]})


def parse_once(head: bytes) -> Head | Reason:
    """Parse a head as `parse` does, and do not cache it: it is long, or creates a stream and will not come again."""
    request = _REQUEST_LINE.match(head)
    if request is None:
        return Reason.TARGET if head.startswith(_METHODS) else Reason.METHOD
    parse_headers = _parse_headers if len(head) <= MAX_CACHED_BYTES else _parse_headers.__wrapped__
    parsed = parse_headers(head[request.end() :])
    if isinstance(parsed, Reason):
        return parsed
    method, raw_path, query, version = request.groups(default=b"")
    path = raw_path.decode("ascii")
    return Head(
        method.decode("ascii"),
        unquote(path) if "%" in path else path,
        query,
        parsed.fields,
        parsed.content_length,
        raw_path,
        version.decode("ascii"),
        parsed.closes or version == b"1.0",
    )


_parse_without_seq = lru_cache(maxsize=1024)(parse_once)


class _Headers(NamedTuple):
    fields: Mapping[bytes, bytes]
    content_length: int
    closes: bool


@lru_cache(maxsize=1024)
def _parse_headers(block: bytes) -> _Headers | Reason:
    """Return the headers and what they say about the body and the connection.

    A client sends the same headers to stream after stream.
    """
    lines = block.split(b"\r\n")
    if len(lines) > MAX_HEADERS:
        return Reason.LARGE_HEAD
    fields: dict[bytes, bytes] = {}
    for line in lines:
        header = _parse_header(line) if len(line) <= MAX_CACHED_LINE_BYTES else _parse_header.__wrapped__(line)
        if isinstance(header, Reason):
            return header
        fields[header[0]] = header[1]
    if len(fields) != len(lines):
        return Reason.REPEATED_HEADER
    if b"host" not in fields:
        return Reason.MALFORMED_HEADER
    length = fields.get(headers.CONTENT_LENGTH, b"0")
    if not length.isdigit() or len(length) > MAX_LENGTH_DIGITS:
        return Reason.LENGTH
    connection = fields.get(headers.CONNECTION, b"keep-alive").lower().strip(b" \t")
    closes = connection == b"close"
    if not (closes or _is_kept_alive(connection, fields)):
        return Reason.CONNECTION
    return _Headers(fields, int(length), closes)


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
def _parse_header(line: bytes) -> tuple[bytes, bytes] | Reason:
    header = _HEADER.fullmatch(line)
    if header is None:
        return Reason.MALFORMED_HEADER
    name, value = header[1].lower(), header[2].lstrip(b" \t")  # as httptools does
    try:
        return _LEFT_TO_UVICORN.get(name) or (name, headers.single_value(name, value))
    except InvalidHeader:
        return Reason.REPEATED_HEADER


def _clear_caches(**kwargs: Any) -> None:
    """Forget all heads. Later ones have other objects as headers, so connections look at their hosts again."""
    for cached_function in (parse, _parse_without_seq, _parse_headers):
        cached_function.cache_clear()


setting_changed.connect(_clear_caches, dispatch_uid="durable_streams.request_heads")
