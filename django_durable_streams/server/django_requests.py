"""Turns Django's requests into ours. Knows no operations and no responses."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from io import UnsupportedOperation
from urllib.parse import quote

from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest

from ..access.identities import Identity
from ..conf import config
from ..protocol import headers
from ..protocol.errors import IncompleteBody, LengthRequired
from ..protocol.messages import Header, Request
from . import wsgi_paths
from .bodies import ArrivingBody, admitted_length, too_slow
from .hosts import script_name

PIECE_BYTES = 64 * 1024
"""Bytes of a body that are read at a time."""


class DjangoRequest(Request):
    """A request that has passed through Django's handler and middleware."""

    __slots__ = ("_request", "caller", "can_stream", "is_unfinished")

    def __init__(self, request: HttpRequest, path: str) -> None:
        self.can_stream = isinstance(request, ASGIRequest)
        if isinstance(request, ASGIRequest):
            header_list, query = _asgi_headers(request), _asgi_query(request)
        else:
            header_list, query = _wsgi_headers(request), request.META.get("QUERY_STRING", "").encode("latin-1")
            path = wsgi_paths.stream_path(request, path)
        super().__init__(request.method or "", path, query, header_list)
        self._request = request
        self.caller: Identity | None = None
        self.is_unfinished = False
        """Whether more of the body may arrive, which the server would take for the next request."""

    @property
    def scheme(self) -> str:
        return self._request.scheme or "http"

    @property
    def source(self) -> HttpRequest:
        return self._request

    def url(self) -> bytes:
        return self._request.build_absolute_uri(quote(self._outer_path())).encode("ascii")

    def root(self) -> str:
        return self._outer_path().removesuffix(self.path)

    def _outer_path(self) -> str:
        """Return the path that the client has sent. Under ASGI, `request.path` lacks the part that a proxy removes."""
        return script_name(self._request.META.get("SCRIPT_NAME")) + self._request.path_info

    async def read_body(self) -> bytes:
        arriving = self.arriving = ArrivingBody(self.headers, admitted_length(self.headers))
        read = self._reader()
        # Servers have deadlines for a read, and none for a client that sends one byte after another.
        deadline = time.monotonic() + config().receive_timeout
        try:
            while part := read(PIECE_BYTES):
                arriving.add(part)
                if time.monotonic() > deadline:
                    raise too_slow()
        except OSError as error:
            raise IncompleteBody("The connection was lost within the body. Send the request again.") from error
        self.is_unfinished = True
        body = arriving.whole()
        self.is_unfinished = False
        return body

    def _reader(self) -> Callable[[int], bytes]:
        """Return the function that reads the body.

        `request.body` does not serve: Django limits it to 2.5 MB and answers a longer body itself.

        Raises:
            LengthRequired: the server does not show the end of a body in chunks.
        """
        request = self._request
        if isinstance(request, WSGIRequest) and headers.TRANSFER_ENCODING in self.headers:
            # Without a length, Django assumes an empty body.
            if not request.environ.get("wsgi.input_terminated"):
                raise LengthRequired("This server cannot read a body in chunks. Send the body with a Content-Length.")
            read: Callable[[int], bytes] = request.environ["wsgi.input"].read
            return read
        if isinstance(request, ASGIRequest) or hasattr(request, "_body"):
            # The whole body is in a file or in memory, and a middleware may have read a part of it. Only the payload of
            # Django's test client cannot go back.
            with suppress(UnsupportedOperation):
                request._stream.seek(0)
        return request.read


def _asgi_headers(request: ASGIRequest) -> list[Header]:
    return [(name.lower(), value) for name, value in request.scope["headers"]]


def _asgi_query(request: ASGIRequest) -> bytes:
    query: bytes | str = request.scope["query_string"]
    return query if isinstance(query, bytes) else query.encode()  # as Django's AsyncClient has it


def _wsgi_headers(request: HttpRequest) -> list[Header]:
    header_list = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1"))
        for name, value in request.META.items()
        if name.startswith("HTTP_")
    ]
    for variable, name in (("CONTENT_TYPE", headers.CONTENT_TYPE), ("CONTENT_LENGTH", headers.CONTENT_LENGTH)):
        value = request.META.get(variable)
        if value:
            header_list.append((name, value.encode("latin-1")))
    return header_list
