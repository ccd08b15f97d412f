"""The access log of requests on the fast path, in uvicorn's format."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    from .request import FastPathRequest


def log_request(connection: HttpToolsProtocol, request: FastPathRequest, status: int) -> None:
    """Log a request of a connection, as uvicorn does."""
    client = request.client
    address = f"{client[0]}:{client[1]}" if client else ""
    query = f"?{request.query.decode('ascii')}" if request.query else ""
    target = quote(request.full_path) + query
    connection.access_logger.info('%s - "%s %s HTTP/%s" %d', address, request.method, target, request.version, status)
