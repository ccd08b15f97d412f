"""Makes the head of an HTTP/1.1 response from its status and headers. Knows no connections."""

from __future__ import annotations

from http import HTTPStatus

from ...protocol.messages import Header, Response
from ..answers import EventStream

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


def encode_head(response: Response | EventStream, default_headers: list[Header], closes: bool) -> bytes:
    """Return the head of a response, with the empty line at its end.

    Args:
        default_headers: the headers that uvicorn adds to every response.
        closes: whether the connection ends after the response.
    """
    lines = [_STATUS_LINES[response.status], _default_lines(default_headers)]
    for name, value in response.headers:
        lines += (name, b": ", value, b"\r\n")
    if isinstance(response, EventStream):
        lines.append(b"transfer-encoding: chunked\r\n")
    lines.append(b"connection: close\r\n\r\n" if closes else b"\r\n")
    return b"".join(lines)


_last_default: tuple[list[Header], bytes] = [], b""


def _default_lines(default_headers: list[Header]) -> bytes:
    """Return uvicorn's default headers as bytes. uvicorn makes a new list of them every second."""
    global _last_default
    if _last_default[0] is not default_headers:
        _last_default = default_headers, b"".join(b"%b: %b\r\n" % header for header in default_headers)
    return _last_default[1]
