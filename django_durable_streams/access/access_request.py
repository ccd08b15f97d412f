"""A request as permission classes see it, the same at all entry points.

Permissions see ambient credentials only if no other site can have caused the request. So no permission class can act on
a forged request. This module decides nothing about permissions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpRequest, QueryDict

from ..protocol import headers
from ..protocol.errors import DurableStreamsError
from ..protocol.request_ids import log_fields, request_id
from ..runtime.printable import loggable
from . import csrf
from .addresses import client_address
from .ambient_credentials import (
    NO_HEADERS,
    CredentialVisibility,
    comes_from_browser,
    copy_request,
    is_ambient,
    is_visible,
    strip_scope,
)
from .identities import has_session_cookie, session_failure
from .other_sites import cookie_hint

if TYPE_CHECKING:
    from ..protocol.messages import Request
    from .identities import Identity

_READS = frozenset({"GET", "HEAD"})

_PARAMETERS_WITH_TOKENS = ("token", "access_token")
"""The parameters of signed URLs and of bearer tokens."""

_CARRIERS = frozenset[str | bytes]({*_PARAMETERS_WITH_TOKENS, headers.AUTHORIZATION})
"""The parameters and the header that may carry a token."""

_BASIC = b"basic "
"""The scheme, in lower case, of a name and a password. Often they are for a proxy."""

_SHOWS_ALL = frozenset({"query", "headers", "visible_headers", "scope", "http_request"})
"""Attributes in which a permission may have read a token."""

MAX_REASONS = 50
"""Reasons of one refusal that are kept. A class may give one for each of its own rules."""


class AccessRequest:
    """A request for a stream, with the credentials that may count.

    If a request changes a stream and another site may have caused it, ambient credentials are hidden. These are
    cookies, the session, its user, and all headers and keys that a proxy or middleware may have made of them.

    Args:
        credential_headers: names of the headers that only a client's own code sends, in lower case.

    Attributes:
        expires: when the granted permission ends, in Unix seconds. None: it does not end.
        caller: the identity of the caller, once it is loaded.
        ignored_credentials: whether the request has credentials that do not count, because it may be forged.
        may_hide_credentials: whether a permission has asked for a header that is hidden.
    """

    _reasons: tuple[str, ...] = ()
    _minor_reasons: tuple[str, ...] = ()
    _asked: frozenset[str | bytes] = frozenset()
    """Which of `_CARRIERS` permissions have asked for."""
    _was_copied = False

    def __init__(self, request: Request, credential_headers: frozenset[bytes] = NO_HEADERS) -> None:
        self.expires: float | None = None
        self.ignored_credentials = False
        self.may_hide_credentials = False
        self.caller: Identity | None = None
        self._request = request
        self._credential_headers = credential_headers

    @property
    def request_id(self) -> str:
        """The id of the request in log messages: its `X-Request-ID` if that is valid, and otherwise a new one."""
        return request_id(self._request)

    @property
    def log_fields(self) -> dict[str, Any]:
        """The attributes of a log record about the request, for `extra`."""
        return log_fields(self._request)

    @property
    def method(self) -> str:
        """The HTTP method, in upper case."""
        return self._request.method

    @cached_property
    def query(self) -> QueryDict:
        """The query parameters.

        Raises:
            InvalidParameter: the query is not UTF-8 (400).
        """
        parameters = QueryDict(mutable=True)
        if self._request.query:
            for name, value in self._request.parsed_query().pairs:
                parameters.appendlist(name, value)
        parameters._mutable = False
        return parameters

    def parameter(self, name: str) -> str | None:
        """Return the value of a query parameter that may occur once, or None.

        Raises:
            InvalidParameter: the parameter occurs twice, or the query is not UTF-8 (400).
        """
        if name in _CARRIERS:
            self._asked |= {name}
        return self._request.parameter(name)

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """Visible headers as text, by their names in lower case."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.visible_headers}

    @cached_property
    def visible_headers(self) -> list[tuple[bytes, bytes]]:
        """Visible headers as bytes, with names in lower case."""
        return [(name, value) for name, value in self._request.headers.items() if self._is_visible(name, value)]

    def header(self, name: bytes) -> bytes | None:
        """Return the value of a visible header as bytes, by its name in lower case, or None."""
        if name in _CARRIERS:
            self._asked |= {name}
        value = self._request.headers.get(name)
        return value if value is not None and self._is_visible(name, value) else None

    @cached_property
    def scope(self) -> Mapping[str, Any] | None:
        """The ASGI scope with visible credentials only. None under WSGI."""
        source: Mapping[str, Any] | HttpRequest = self._request.source
        if isinstance(source, HttpRequest):
            if not isinstance(source, ASGIRequest):
                return None
            source = source.scope
        if self.visibility is CredentialVisibility.ALL:
            return source
        return {**strip_scope(source, self.visibility), "headers": self.visible_headers}

    @cached_property
    def http_request(self) -> HttpRequest:
        """Django's request of the view, or a copy without hidden credentials and without a body."""
        source = self._request.source
        if self.visibility is CredentialVisibility.ALL and isinstance(source, HttpRequest):
            return source
        return self.copy(self.visibility, body=True)

    def copy(
        self, visibility: CredentialVisibility, *, without: Iterable[bytes] = (), body: bool = False
    ) -> HttpRequest:
        """Return a copy of Django's request.

        Args:
            visibility: which ambient credentials the copy has.
            without: names of headers to leave out, in lower case.
            body: whether the copy has the headers of the body. It never has the body.
        """
        self._was_copied = True
        header_lines = [
            (name, value)
            for name, value in self._request.headers.items()
            if name not in without and is_visible(name, value, visibility, self._credential_headers)
        ]
        return copy_request(self._request.source, header_lines, visibility=visibility, body=body)

    @cached_property
    def address(self) -> str:
        """The client's address. Behind `TRUSTED_PROXIES`, the address that they have written down."""
        return client_address(self._request.source, self._request.headers.get(headers.FORWARDED_FOR))

    def until(self, moment: float) -> None:
        """Limit the granted permission to a moment, in Unix seconds. A live read ends then."""
        self.expires = moment if self.expires is None else min(self.expires, moment)

    def explain(self, reason: str) -> None:
        """Note why a permission refuses this request, for the log and `streams check-access`. No client sees it.

        Args:
            reason: a sentence, without secrets. The log gets it with escapes for control characters, and cut if it is
                long.
        """
        if len(self._reasons) < MAX_REASONS:
            self._reasons += (loggable(str(reason)),)

    def explain_default(self, reason: str) -> None:
        """Note that a permission has nothing to decide by, such as no token. Those that have had something come first.

        Args:
            reason: as for `explain`.
        """
        if len(self._minor_reasons) < MAX_REASONS:
            self._minor_reasons += (loggable(reason),)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons that permissions have given since they were last asked about an action, the defaults last."""
        return tuple(dict.fromkeys((*self._reasons, *self._minor_reasons)))

    def forget_reasons(self) -> None:
        """Forget the reasons, before permissions are asked about another action."""
        self._reasons = self._minor_reasons = ()

    @cached_property
    def csrf_failure(self) -> str | None:
        """The reason why another site may have caused this change. None: a read, or a request that passes the rules."""
        if self._request.method in _READS:
            return None
        return csrf.failure_reason(self.caller, self._request)

    @property
    def session_failure(self) -> str:
        """Sentences for the log, about a request without a user: whether it has a session cookie, and why not."""
        cookies = self._request.headers.get(headers.COOKIE)
        hint = "" if has_session_cookie(cookies) else cookie_hint(self._request.headers)
        return f"{session_failure(cookies)} {hint}".strip()

    @property
    def unread_token(self) -> str:
        """A sentence about a token that no permission has looked for. Empty: there is none, or one may have."""
        if self._was_copied or not _SHOWS_ALL.isdisjoint(self.__dict__):
            return ""
        try:
            sent = [name for name in _PARAMETERS_WITH_TOKENS if name in self._request.parsed_query().values]
        except DurableStreamsError:
            return ""
        carriers: set[str | bytes] = {*sent}
        if not self._request.headers.get(headers.AUTHORIZATION, _BASIC).lower().startswith(_BASIC):
            carriers.add(headers.AUTHORIZATION)
        if not carriers or not carriers.isdisjoint(self._asked):
            return ""
        carrier = "The URL" if sent else "The header Authorization"
        return f"{carrier} has a token, and no class of PERMISSION_CLASSES reads it for this action."

    @cached_property
    def visibility(self) -> CredentialVisibility:
        """Which ambient credentials are visible."""
        if self.csrf_failure is None:
            return CredentialVisibility.ALL
        return (
            CredentialVisibility.NOTHING
            if comes_from_browser(self._request.headers)
            else CredentialVisibility.NO_COOKIES
        )

    def ignore_credentials(self) -> None:
        """Record that the request has credentials that do not count, because it may be forged."""
        self.ignored_credentials = True

    def _is_visible(self, name: bytes, value: bytes) -> bool:
        own = self._credential_headers
        if not is_ambient(name, value, own) or is_visible(name, value, self.visibility, own):
            return True
        self.may_hide_credentials = True
        return False
