"""Ambient credentials: credentials that a browser sends by itself, also with requests that other sites cause.

They are cookies, client certificates, and the schemes of `Authorization` for which browsers ask the user once. A proxy,
a server or middleware may turn them into a header, a key of the scope, or a variable of the environment. No list of
such names can be complete. So this module lists the names that carry no credentials, and hides all others.
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
"""Schemes of `Authorization` that browsers repeat by themselves after the user has logged in once."""

_BROWSER_HEADERS = frozenset({headers.ORIGIN, b"referer", b"sec-fetch-site"})
"""A browser sends at least one of these with each request that may change data."""

_HTTP_HEADERS = frozenset(
    b"host user-agent origin referer connection keep-alive upgrade http2-settings te trailer transfer-encoding expect "
    b"range date cache-control pragma priority dnt save-data upgrade-insecure-requests last-event-id x-requested-with "
    b"via forwarded x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-prefix x-forwarded-proto x-real-ip "
    b"x-request-id x-correlation-id traceparent tracestate baggage sentry-trace".split()
)
_HTTP_PREFIXES = (b"accept", b"content-", b"if-", b"sec-", b"stream-", b"producer-")
"""Headers that carry no credentials."""

_COOKIE_KEYS = frozenset({"user", "session", "cookies"})
"""Keys of the scope that Channels makes from cookies."""

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
"""Keys of the scope that ASGI and routing define."""

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
"""Variables of the environment that CGI defines. Keys that begin with `wsgi.` are kept, too."""

NO_HEADERS = frozenset[bytes]()


class CredentialVisibility(Enum):
    """Which ambient credentials the permissions see."""

    ALL = "no other site can have caused the request"
    NO_COOKIES = "no cookies: another site may have caused the request, but no header shows a browser"
    NOTHING = "no ambient credentials: another site may have made a browser send the request"


def comes_from_browser(request_headers: Mapping[bytes, bytes]) -> bool:
    """Return whether the headers show that a browser has sent a request."""
    return not _BROWSER_HEADERS.isdisjoint(request_headers)


def is_visible(name: bytes, value: bytes, visibility: CredentialVisibility, own: frozenset[bytes] = NO_HEADERS) -> bool:
    """Return whether permissions see a header. `own`: as for `is_ambient`."""
    if visibility is CredentialVisibility.ALL:
        return True
    return name != headers.COOKIE and (
        visibility is CredentialVisibility.NO_COOKIES or not is_ambient(name, value, own)
    )


def is_ambient(name: bytes, value: bytes, own: frozenset[bytes] = NO_HEADERS) -> bool:
    """Return whether a header may carry ambient credentials, also in the form that a proxy gives them.

    Args:
        own: names of further headers that only a client's own code sends, in lower case.
    """
    if name == headers.AUTHORIZATION:
        return value.partition(b" ")[0].lower() in _BROWSER_SCHEMES
    return not (name in _HTTP_HEADERS or name.startswith(_HTTP_PREFIXES) or name in own)


def copy_request(
    source: HttpRequest | Mapping[str, Any],
    header_lines: Iterable[tuple[bytes, bytes]],
    *,
    visibility: CredentialVisibility,
    body: bool = False,
) -> HttpRequest:
    """Return a request of Django's, made from an ASGI scope or another request, without its body.

    Args:
        source: the ASGI scope, or Django's request.
        header_lines: the headers of the copy, with names in lower case.
        visibility: which ambient credentials the copy has, besides its headers.
        body: whether the copy keeps the headers of the body. The body belongs to the stream.
    """
    kept_lines = [
        (name, value) for name, value in header_lines if body or name not in (headers.CONTENT_TYPE, b"content-length")
    ]
    copied_request: HttpRequest
    if isinstance(source, WSGIRequest):
        copied_request = WSGIRequest({**_environ(source, visibility), **_meta(kept_lines), "wsgi.input": BytesIO()})
    else:
        scope: Mapping[str, Any] = source.scope if isinstance(source, ASGIRequest) else source  # type: ignore[assignment]
        copied_request = ASGIRequest({**strip_scope(scope, visibility), "headers": kept_lines}, BytesIO())
    if isinstance(source, HttpRequest):
        copied_request.resolver_match = source.resolver_match
        if visibility is not CredentialVisibility.ALL:
            _make_anonymous(copied_request)
        elif hasattr(source, "session"):
            copied_request.session = source.session
    return copied_request


def strip_scope(scope: Mapping[str, Any], visibility: CredentialVisibility) -> dict[str, Any]:
    """Return a copy of an ASGI scope without hidden credentials. The caller replaces the headers."""
    if visibility is CredentialVisibility.NOTHING:
        return {key: value for key, value in scope.items() if key in _SCOPE_KEYS}
    hidden: frozenset[str] = frozenset() if visibility is CredentialVisibility.ALL else _COOKIE_KEYS
    return {key: value for key, value in scope.items() if key not in hidden}


def _make_anonymous(request: HttpRequest) -> None:
    request.user = anonymous()
    if apps.is_installed("django.contrib.sessions"):
        request.session = import_module(settings.SESSION_ENGINE).SessionStore()


def _environ(source: WSGIRequest, visibility: CredentialVisibility) -> dict[str, Any]:
    def is_kept(key: str) -> bool:
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            return False
        return visibility is not CredentialVisibility.NOTHING or key in _ENVIRON_KEYS or key.startswith("wsgi.")

    return {key: value for key, value in source.environ.items() if is_kept(key)}


def _meta(header_lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    meta = {}
    for name, value in header_lines:
        key = name.decode("latin-1").upper().replace("-", "_")
        meta[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value.decode("latin-1")
    return meta
