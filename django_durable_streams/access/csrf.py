"""Django's CSRF rules for requests to streams: could another site have made a browser send this request?

The rules are those of `CsrfViewMiddleware`. Their results are cached by the headers that decide, because each check
builds a request of Django's. The cache is emptied when a setting changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.signals import setting_changed
from django.http import HttpRequest, parse_cookie
from django.middleware.csrf import CSRF_SESSION_KEY, CsrfViewMiddleware

from ..runtime.bounded_cache import BoundedCache

if TYPE_CHECKING:
    from ..protocol.messages import Request
    from .identities import Identity, Source

MAX_RESULTS = 1024
"""Results in the cache of a process. A client that appends sends the same headers again and again."""

MAX_RESULT_KEY_BYTES = 2 * 1024 * 1024
"""Bytes of the headers of all cached results."""

MAX_HEADER_BYTES = 4096
"""Bytes of a request's headers up to which its result is cached."""

MAX_REASON = 300
"""Characters of Django's reason in a response. A referrer may be long."""

EXEMPT = "_dont_enforce_csrf_checks"
"""The attribute of a request that switches the rules off. Django's test client sets it, and middleware that does not
rely on cookies. It may also be a key of the ASGI scope."""

_HEADERS = {
    b"cookie": "HTTP_COOKIE",
    b"host": "HTTP_HOST",
    b"origin": "HTTP_ORIGIN",
    b"referer": "HTTP_REFERER",
    b"x-forwarded-host": "HTTP_X_FORWARDED_HOST",
    b"x-forwarded-port": "HTTP_X_FORWARDED_PORT",
}


def failure_reason(identity: Identity | None, request: Request) -> str | None:
    """Return the reason why another site may have caused a request, or None if the request passes Django's rules.

    The CSRF token counts only in its header, because the body belongs to the stream.
    """
    secret = None if identity is None else identity.csrf_secret
    if not request.is_bare and _is_exempt(request.source):
        return None
    headers, scheme = request.headers, request.scheme
    key = (scheme, secret, *[headers.get(name) for name in _checked_headers()])
    reason = _results.get(key)
    if reason is None:
        reason = _check(secret, request.source, headers, scheme) or _PASSED
        if _size(key) <= MAX_HEADER_BYTES:
            _results.put(key, reason)
    return reason or None


def is_own_origin(request_headers: Mapping[bytes, bytes], scheme: str) -> bool:
    """Return whether the `Origin` of a request is this site, or one of CSRF_TRUSTED_ORIGINS, by Django's rules.

    Args:
        request_headers: the headers of the request.
        scheme: `http` or `https`.
    """
    if b"origin" not in request_headers:
        return False
    django_request = _make_request(None, {}, request_headers, scheme)
    return bool(_ReasonCsrfMiddleware(lambda request: None)._origin_verified(django_request))  # type: ignore


def _is_exempt(source: Source) -> bool:
    if not isinstance(source, HttpRequest):
        return bool(source.get(EXEMPT))
    return bool(getattr(source, EXEMPT, False) or (isinstance(source, ASGIRequest) and source.scope.get(EXEMPT)))


def remedy(reason: str) -> str:
    """Return the sentence that tells a client what to change, from Django's reason for a failed check."""
    if "does not match any trusted origins" in reason:
        return f"{reason[:MAX_REASON]} The server's CSRF_TRUSTED_ORIGINS must list the origin of the page."
    if reason.startswith("Referer checking"):
        return f"{reason} A page over HTTPS sends the header Origin or Referer, and the CSRF token."
    return f"Send the CSRF token in the header {header_name()}."


def without_query(reason: str) -> str:
    """Return a reason without the query of a `Referer`, which may have a token."""
    return _QUERY.sub("?...", reason)


def header_name() -> str:
    """Return the name of the header that carries the token, in lower case."""
    return _as_header(settings.CSRF_HEADER_NAME)


def _as_header(key: str) -> str:
    return key.removeprefix("HTTP_").replace("_", "-").lower()


_QUERY = re.compile(r"\?.*(?= does not match any trusted origins)", re.DOTALL)

_Key = tuple[str | bytes | None, ...]

_PASSED = ""
"""Stands in the cache for requests that pass the rules."""


def _size(key: _Key) -> int:
    return sum(len(part) for part in key if part is not None)


_results = BoundedCache[_Key, str](MAX_RESULTS, max_bytes=MAX_RESULT_KEY_BYTES, size_of=_size)
_meta_keys: dict[bytes, str] = {}


def _checked_headers() -> dict[bytes, str]:
    """Return the headers that Django's rules read, with their keys in `META`."""
    if not _meta_keys:
        configured = [settings.CSRF_HEADER_NAME]
        if settings.SECURE_PROXY_SSL_HEADER:
            configured.append(settings.SECURE_PROXY_SSL_HEADER[0])
        _meta_keys.update({**_HEADERS, **{_as_header(name).encode(): name for name in configured}})
    return _meta_keys


def _check(secret: str | None, source: Source, headers: Mapping[bytes, bytes], scheme: str) -> str | None:
    django_request = _make_request(secret, source, headers, scheme)
    middleware = _ReasonCsrfMiddleware(lambda request: None)  # type: ignore[arg-type]
    middleware.process_request(django_request)
    reason: Any = middleware.process_view(django_request, None, (), {})  # type: ignore[arg-type]
    return None if reason is None else str(reason)


def _make_request(secret: str | None, source: Source, headers: Mapping[bytes, bytes], scheme: str) -> _CsrfRequest:
    django_request = _CsrfRequest(scheme)
    for name, key in _checked_headers().items():
        if name in headers:
            django_request.META[key] = headers[name].decode("latin-1")
    django_request.META["SERVER_NAME"], django_request.META["SERVER_PORT"] = _server(source)
    django_request.COOKIES = parse_cookie(django_request.META.get("HTTP_COOKIE", ""))
    django_request.session = {CSRF_SESSION_KEY: secret} if secret else {}
    return django_request


def _server(source: Source) -> tuple[str, str]:
    if isinstance(source, HttpRequest):
        return source.META.get("SERVER_NAME", ""), str(source.META.get("SERVER_PORT", ""))
    host, port = source.get("server") or ("", "")
    return str(host), str(port)


class _CsrfRequest(HttpRequest):
    """A request with nothing but the headers that the rules read. Its form is empty, so no code reads the body."""

    session: dict[str, Any]  # type: ignore[assignment]

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.method = "POST"
        self._scheme = scheme

    def _get_scheme(self) -> str:
        return self._scheme


class _ReasonCsrfMiddleware(CsrfViewMiddleware):
    """Returns the reason instead of a response."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _clear(**kwargs: Any) -> None:
    _results.clear()
    _meta_keys.clear()


setting_changed.connect(_clear, dispatch_uid="durable_streams.csrf")
