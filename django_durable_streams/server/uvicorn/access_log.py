"""The access log of requests on the fast path, in uvicorn's format."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from ...protocol.messages import Request

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


def log_request(connection: HttpToolsProtocol, request: Request, status: int) -> None:
    """Log a request of a connection, as uvicorn does."""
    client = f"{connection.client[0]}:{connection.client[1]}" if connection.client else ""
    query = f"?{request.query.decode('ascii')}" if request.query else ""
    target = quote(request.root() + request.path) + query
    connection.access_logger.info('%s - "%s %s HTTP/%s" %d', client, request.method, target, "1.1", status)
