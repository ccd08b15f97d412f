"""A request as permission classes see it, whichever door it came through."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, QueryDict

from .addresses import client_address

if TYPE_CHECKING:
    from ..server.messages import Request


class AccessRequest:
    """What can be asked about a request for a stream.

    `expires` is the moment, in Unix seconds, at which what was granted ends, or None.
    """

    def __init__(self, request: Request) -> None:
        self.expires: float | None = None
        self._request = request

    @property
    def method(self) -> str:
        """The HTTP method, in capitals."""
        return self._request.method

    @property
    def raw_query(self) -> bytes:
        """The query string as it came."""
        return self._request.query

    @cached_property
    def query(self) -> QueryDict:
        """The query parameters."""
        return QueryDict(self._request.query, encoding="utf-8")

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Headers by their names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._request.headers.items()}

    def header(self, name: bytes) -> bytes | None:
        """Return one header by its name in lower case, as it came."""
        return self._request.headers.get(name)

    @property
    def scope(self) -> Mapping[str, Any] | None:
        """The ASGI scope, where there is one."""
        source = self._request.source
        if isinstance(source, HttpRequest):
            return source.scope if isinstance(source, ASGIRequest) else None
        return source

    @cached_property
    def http_request(self) -> HttpRequest:
        """Django's request: as the view got it, or one without a body, made from the scope at the ASGI application."""
        source = self._request.source
        return source if isinstance(source, HttpRequest) else ASGIRequest(source, BytesIO())

    @cached_property
    def address(self) -> str:
        """The client's address; where TRUSTED_PROXIES have passed the request on, the one that they tell of."""
        return client_address(self._request.source, self._request.headers.get(b"x-forwarded-for"))

    def until(self, moment: float) -> None:
        """Say that what is granted to this request ends at a moment, in Unix seconds. A live read ends with it."""
        self.expires = moment if self.expires is None else min(self.expires, moment)
