"""A request as permission classes see it, whichever door it came through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, QueryDict

from ..protocol import headers
from . import csrf
from .addresses import client_address
from .ambient_credentials import (
    NO_HEADERS,
    CredentialVisibility,
    comes_from_browser,
    copy_request,
    is_ambient,
    is_shown,
    strip_scope,
)

if TYPE_CHECKING:
    from ..protocol.messages import Request
    from .identities import Identity

_READS = frozenset({"GET", "HEAD"})


class AccessRequest:
    """What can be asked about a request for a stream.

    A request that changes something, and that another site may have made a browser send, is shown without what a
    browser sends by itself: cookies, the session, a user whom those have logged in, and whatever else a proxy or
    middleware may have made of them. So no permission class can be made to act on them.

    Args:
        own_headers: names of headers that only a client's own code sends, in lower case.

    `expires` is the moment, in Unix seconds, at which what was granted ends, or None. `was_withheld`: credentials were
    found that do not count for this reason. `may_lack`: something is not shown that may have been credentials.
    """

    def __init__(self, request: Request, own_headers: frozenset[bytes] = NO_HEADERS) -> None:
        self.expires: float | None = None
        self.was_withheld = False
        self.may_lack = False
        self.caller: Identity | None = None
        self._request = request
        self._own_headers = own_headers

    @property
    def method(self) -> str:
        """The HTTP method, in capitals."""
        return self._request.method

    @cached_property
    def query(self) -> QueryDict:
        """The query parameters.

        Raises:
            InvalidParameter: the query is not UTF-8.
        """
        found = QueryDict(mutable=True)
        if self._request.query:
            for name, value in self._request.parsed_query().pairs:
                found.appendlist(name, value)
        found._mutable = False
        return found

    def parameter(self, name: str) -> str | None:
        """Return a query parameter that may come once.

        Raises:
            InvalidParameter: it came twice, or the query is not UTF-8.
        """
        return self._request.parameter(name)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Headers by their names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.shown_headers}

    @cached_property
    def shown_headers(self) -> list[tuple[bytes, bytes]]:
        """Headers as they came, by their names in lower case."""
        return [(name, value) for name, value in self._request.headers.items() if self._shows(name, value)]

    def header(self, name: bytes) -> bytes | None:
        """Return one header by its name in lower case, as it came."""
        value = self._request.headers.get(name)
        return value if value is not None and self._shows(name, value) else None

    @cached_property
    def scope(self) -> Mapping[str, Any] | None:
        """The ASGI scope, where there is one."""
        source: Mapping[str, Any] | HttpRequest = self._request.source
        if isinstance(source, HttpRequest):
            if not isinstance(source, ASGIRequest):
                return None
            source = source.scope
        if self.shown is CredentialVisibility.ALL:
            return source
        return {**strip_scope(source, self.shown), "headers": self.shown_headers}

    @cached_property
    def http_request(self) -> HttpRequest:
        """Django's request: as the view got it, or one without a body, made from the scope at the ASGI application."""
        source = self._request.source
        if self.shown is CredentialVisibility.ALL and isinstance(source, HttpRequest):
            return source
        return self.copy(self.shown, body=True)

    def copy(self, shown: CredentialVisibility, *, without: Iterable[bytes] = (), body: bool = False) -> HttpRequest:
        """Return a copy of Django's request.

        Args:
            shown: how much of what a browser sends by itself.
            without: names of headers to leave out.
            body: whether the headers of the body are kept. The body itself is not.
        """
        found = [
            (name, value)
            for name, value in self._request.headers.items()
            if name not in without and is_shown(name, value, shown, self._own_headers)
        ]
        return copy_request(self._request.source, found, shown=shown, body=body)

    @cached_property
    def address(self) -> str:
        """The client's address; where TRUSTED_PROXIES have passed the request on, the one that they tell of."""
        return client_address(self._request.source, self._request.headers.get(headers.FORWARDED_FOR))

    def until(self, moment: float) -> None:
        """Say that what is granted to this request ends at a moment, in Unix seconds. A live read ends with it."""
        self.expires = moment if self.expires is None else min(self.expires, moment)

    @cached_property
    def forged(self) -> str | None:
        """Why another site may have made a browser send this request; None where it cannot have, or nothing changes."""
        if self._request.method in _READS:
            return None
        return csrf.refusal(self.caller, self._request)

    @cached_property
    def shown(self) -> CredentialVisibility:
        """How much is shown of what a browser sends by itself."""
        if self.forged is None:
            return CredentialVisibility.ALL
        return (
            CredentialVisibility.NOTHING
            if comes_from_browser(self._request.headers)
            else CredentialVisibility.NO_COOKIES
        )

    def withhold(self) -> None:
        """Say that there are credentials that do not count, as the request may be forged."""
        self.was_withheld = True

    def _shows(self, name: bytes, value: bytes) -> bool:
        own = self._own_headers
        if not is_ambient(name, value, own) or is_shown(name, value, self.shown, own):
            return True
        self.may_lack = True
        return False
