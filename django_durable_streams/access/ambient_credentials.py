"""Credentials that a browser sends by itself, so that a page of another site can have them sent.

Cookies, client certificates, the schemes of `Authorization` for which browsers ask the user once, and whatever a proxy,
server or middleware makes of these: a header, a key of the scope or of the environment. A page cannot read them, but
each request that it causes has them. Nobody can list all of their names, so what may be shown is listed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import Enum
from importlib import import_module
from io import BytesIO
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest

from ..protocol import headers
from .users import anonymous

_BROWSER_SCHEMES = frozenset({b"basic", b"digest", b"negotiate", b"ntlm", b"kerberos", b"hoba", b"mutual"})
"""Schemes of `Authorization` that browsers send again by themselves, once somebody has given a name and password."""

_BROWSER_HEADERS = frozenset({headers.ORIGIN, b"referer", b"sec-fetch-site"})
"""A browser sends at least one of these with every request that changes something."""

_HTTP_HEADERS = frozenset(
    b"host user-agent origin referer connection keep-alive upgrade http2-settings te trailer transfer-encoding expect "
    b"range date cache-control pragma priority dnt save-data upgrade-insecure-requests last-event-id x-requested-with "
    b"via forwarded x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto x-real-ip "
    b"x-request-id x-correlation-id traceparent tracestate baggage sentry-trace".split()
)
_HTTP_PREFIXES = (b"accept", b"content-", b"if-", b"sec-", b"stream-", b"producer-")
"""Headers that say nothing of who somebody is."""

_COOKIE_KEYS = frozenset({"user", "session", "cookies"})
"""What Channels makes of cookies, in the scope."""

_SCOPE_KEYS = frozenset(
    {
        "type",
        "asgi",
        "http_version",
        "method",
        "scheme",
        "path",
        "raw_path",
        "query_string",
        "root_path",
        "headers",
        "client",
        "server",
        "url_route",
        "path_remaining",
        "path_params",
        "app",
        "router",
        "endpoint",
    }
)
"""What the scope has of the request itself, by ASGI and by routing."""

_ENVIRON_KEYS = frozenset(
    {
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "PATH_INFO",
        "QUERY_STRING",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
        "GATEWAY_INTERFACE",
        "REMOTE_ADDR",
        "REMOTE_HOST",
        "REMOTE_PORT",
        "REQUEST_URI",
        "RAW_URI",
        "REQUEST_SCHEME",
        "HTTPS",
        "DOCUMENT_ROOT",
    }
)
"""What the environment has of it, by CGI, besides the keys of WSGI."""

NO_HEADERS = frozenset[bytes]()


class CredentialVisibility(Enum):
    """How much of what a browser sends by itself is shown to those who decide."""

    ALL = "no other site can have made a browser send the request"
    NO_COOKIES = "another site may have, but nothing looks like a browser: programs have names and certificates, too"
    NOTHING = "another site may have made a browser send it"


def comes_from_browser(found: Mapping[bytes, bytes]) -> bool:
    """Whether the headers show that a browser has sent a request."""
    return not _BROWSER_HEADERS.isdisjoint(found)


def is_shown(name: bytes, value: bytes, shown: CredentialVisibility, own: frozenset[bytes] = NO_HEADERS) -> bool:
    """Whether a header is shown. `own`: as in `is_ambient`."""
    if shown is CredentialVisibility.ALL:
        return True
    return name != headers.COOKIE and (shown is CredentialVisibility.NO_COOKIES or not is_ambient(name, value, own))


def is_ambient(name: bytes, value: bytes, own: frozenset[bytes] = NO_HEADERS) -> bool:
    """Whether a header may have credentials that browsers send by themselves, or what a proxy makes of these.

    Args:
        own: names of further headers that only a client's own code sends.
    """
    if name == headers.AUTHORIZATION:
        return value.partition(b" ")[0].lower() in _BROWSER_SCHEMES
    return not (name in _HTTP_HEADERS or name.startswith(_HTTP_PREFIXES) or name in own)


def copy_request(
    source: HttpRequest | Mapping[str, Any],
    found: Iterable[tuple[bytes, bytes]],
    *,
    shown: CredentialVisibility,
    body: bool = False,
) -> HttpRequest:
    """Return Django's request for an ASGI scope or another of Django's requests, without its body.

    Args:
        found: its headers, names in lower case.
        shown: how much to keep of what the server or middleware says of who sent it.
        body: whether to keep what the headers say of the body, which is the stream's.
    """
    lines = [(name, value) for name, value in found if body or name not in (headers.CONTENT_TYPE, b"content-length")]
    made: HttpRequest
    if isinstance(source, WSGIRequest):
        made = WSGIRequest({**_environ(source, shown), **_meta(lines), "wsgi.input": BytesIO()})
    else:
        scope: Mapping[str, Any] = source.scope if isinstance(source, ASGIRequest) else source  # type: ignore[assignment]
        made = ASGIRequest({**strip_scope(scope, shown), "headers": lines}, BytesIO())
    if isinstance(source, HttpRequest):
        made.resolver_match = source.resolver_match
        if shown is not CredentialVisibility.ALL:
            _make_anonymous(made)
        elif hasattr(source, "session"):
            made.session = source.session
    return made


def strip_scope(scope: Mapping[str, Any], shown: CredentialVisibility) -> dict[str, Any]:
    """Return a copy of an ASGI scope with as much as is shown. Its headers are left to the caller."""
    if shown is CredentialVisibility.NOTHING:
        return {key: value for key, value in scope.items() if key in _SCOPE_KEYS}
    hidden: frozenset[str] = frozenset() if shown is CredentialVisibility.ALL else _COOKIE_KEYS
    return {key: value for key, value in scope.items() if key not in hidden}


def _make_anonymous(request: HttpRequest) -> None:
    request.user = anonymous()
    if apps.is_installed("django.contrib.sessions"):
        request.session = import_module(settings.SESSION_ENGINE).SessionStore()


def _environ(source: WSGIRequest, shown: CredentialVisibility) -> dict[str, Any]:
    def is_kept(key: str) -> bool:
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            return False
        return shown is not CredentialVisibility.NOTHING or key in _ENVIRON_KEYS or key.startswith("wsgi.")

    return {key: value for key, value in source.environ.items() if is_kept(key)}


def _meta(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    found = {}
    for name, value in lines:
        key = name.decode("latin-1").upper().replace("-", "_")
        found[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value.decode("latin-1")
    return found
