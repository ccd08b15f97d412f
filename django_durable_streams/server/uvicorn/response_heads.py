"""Makes the head of an HTTP/1.1 response from its status and headers. Knows no connections."""

from __future__ import annotations

from http import HTTPStatus

from ...protocol.messages import Header, Response
from ..answers import EventStream

_FIELD = b": ".join


def encode_head(response: Response | EventStream, default_headers: list[Header], closes: bool) -> bytes:
    """Return the head of a response, with the empty line at its end.

    Args:
        default_headers: the headers that uvicorn adds to every response.
        closes: whether the connection ends after the response.
    """
    lines = [_first_lines(response.status, default_headers), *map(_FIELD, response.headers)]  # faster than a loop
    if response.is_chunked:
        lines.append(b"transfer-encoding: chunked")
    if closes:
        lines.append(b"connection: close")
    lines.append(b"\r\n")
    return b"\r\n".join(lines)


_last: tuple[list[Header], dict[int, bytes]] = [], {}


def _first_lines(status: int, default_headers: list[Header]) -> bytes:
    """Return the status line and uvicorn's default headers, of which it makes a new list every second."""
    global _last
    if _last[0] is not default_headers:
        _last = default_headers, {}
    lines = _last[1].get(status)
    if lines is None:
        status_line = b"HTTP/1.1 %d %b" % (status, HTTPStatus(status).phrase.encode())
        lines = _last[1][status] = b"\r\n".join([status_line, *map(_FIELD, default_headers)])
    return lines
