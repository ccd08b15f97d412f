"""The head of an HTTP/1.1 request, read from its bytes: only what is plain, everything else is left to the server.

Clients repeat themselves: the same request line, the same headers. What was read once is not read again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from ...protocol import headers

MAX_BYTES = 8 * 1024
"""Longer ones are not looked at here."""

MAX_HEADERS = 64
"""Heads with more of them are not looked at here: what is remembered of one takes far more than its bytes."""

MAX_REMEMBERED_BYTES = 4 * 1024
"""Heads up to which what was read is remembered."""

MAX_REMEMBERED_LINE = 1024
"""Header lines up to which what was read is remembered."""

END = b"\r\n\r\n"

_REQUEST_LINE = re.compile(
    rb"(GET|POST|PUT|DELETE|HEAD) (/[A-Za-z0-9._~!$&'()*+,;=:@/%-]*)(?:\?([A-Za-z0-9._~!$&'()*+,;=:@/?%-]*))?"
    rb" HTTP/1\.1\r\n"
)
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([\t\x20-\x7e\x80-\xff]*)")

# What is another one each time, in heads that are the same but for it.
_COUNTED = re.compile(rb"\r\nproducer-seq:[\t ]*([0-9]+)[\t ]*(?=\r\n|\Z)", re.IGNORECASE)

# What asks for more than to read one request and to answer it, or says who is behind a proxy.
_LEFT_ALONE = frozenset(
    {
        b"transfer-encoding",
        b"expect",
        b"te",
        b"trailer",
        b"x-forwarded-for",
        b"x-forwarded-proto",
    }
)


class Head(NamedTuple):
    """A request line and the headers after it; `path` is percent-decoded."""

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    content_length: int


@lru_cache(maxsize=1024)
def read(head: bytes) -> Head | None:
    """Return what a request's head says, without the empty line at its end; None where it is for the server to read.

    None is what is malformed, what comes twice, what closes the connection or asks for a WebSocket, bodies without a
    length, and too many headers. It is for heads of up to MAX_REMEMBERED_BYTES.
    """
    counted = _COUNTED.search(head) if head.startswith(b"POST") else None
    if counted is None:
        return read_once(head)
    rest = _read_again(head[: counted.start()] + head[counted.end() :])
    if rest is None or headers.PRODUCER_SEQ in rest.headers:
        return None
    method, path, query, fields, length = rest
    return Head(method, path, query, {**fields, headers.PRODUCER_SEQ: counted[1]}, length)


def read_once(head: bytes) -> Head | None:
    """The same for a head that will not come again, such as one that makes a stream, or is long."""
    request = _REQUEST_LINE.match(head)
    read_headers = _read_headers if len(head) <= MAX_REMEMBERED_BYTES else _read_headers.__wrapped__
    fields = read_headers(head[request.end() :]) if request is not None else None
    if request is None or fields is None:
        return None
    method, raw_path, query = request.groups(default=b"")
    path = raw_path.decode("ascii")
    found, length = fields
    return Head(method.decode("ascii"), unquote(path) if "%" in path else path, query, found, length)


_read_again = lru_cache(maxsize=1024)(read_once)


@lru_cache(maxsize=1024)
def _read_headers(block: bytes) -> tuple[Mapping[bytes, bytes], int] | None:
    """Return the headers and the length of the body. Whoever goes from stream to stream sends the same ones again."""
    lines = block.split(b"\r\n")
    if len(lines) > MAX_HEADERS:
        return None
    found: dict[bytes, bytes] = {}
    for line in lines:
        header = _read_header(line) if len(line) <= MAX_REMEMBERED_LINE else _read_header.__wrapped__(line)
        if header is None:
            return None
        found[header[0]] = header[1]
    if len(found) != len(lines) or b"host" not in found:
        return None
    length = found.get(headers.CONTENT_LENGTH, b"0")
    if not length.isdigit() or len(length) > 15:
        return None
    connection = found.get(headers.CONNECTION)
    if connection is not None and not _is_kept_alive(connection.lower(), found):
        return None
    return found, int(length)


def _is_kept_alive(connection: bytes, found: Mapping[bytes, bytes]) -> bool:
    """Whether a connection just goes on after a request.

    An offer to go on with another protocol, as the JDK's client makes with each request, is not taken (RFC 9110,
    section 7.8). WebSockets are for the server.
    """
    if connection == b"keep-alive":
        return True
    options = {option.strip(b" \t") for option in connection.split(b",")}
    return options <= _OFFERS and b"websocket" not in found.get(headers.UPGRADE, b"").lower()


_OFFERS = frozenset({b"keep-alive", b"upgrade", b"http2-settings"})


@lru_cache(maxsize=4096)
def _read_header(line: bytes) -> tuple[bytes, bytes] | None:
    header = _HEADER.fullmatch(line)
    if header is None:
        return None
    name = header[1].lower()
    return None if name in _LEFT_ALONE else (name, header[2].strip(b" \t"))
