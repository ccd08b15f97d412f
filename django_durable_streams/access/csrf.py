"""Protection against other sites that make a browser send requests, by Django's own rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.core.signals import setting_changed
from django.http import HttpRequest, parse_cookie
from django.middleware.csrf import CSRF_SESSION_KEY, CsrfViewMiddleware

if TYPE_CHECKING:
    from ..protocol.messages import Request
    from .identities import Identity, Source

MAX_REMEMBERED = 1024
"""Answers that a process remembers: those who append do it with the same headers again and again."""

MAX_REMEMBERED_BYTES = 4096
"""Size of the headers up to which an answer is remembered."""

EXEMPT = "_dont_enforce_csrf_checks"
"""What Django's test client sets on requests, so that they pass; and middleware that does not rely on cookies. Here it
may be a key of the scope as well."""

_HEADERS = {
    b"cookie": "HTTP_COOKIE",
    b"host": "HTTP_HOST",
    b"origin": "HTTP_ORIGIN",
    b"referer": "HTTP_REFERER",
    b"x-forwarded-host": "HTTP_X_FORWARDED_HOST",
    b"x-forwarded-port": "HTTP_X_FORWARDED_PORT",
}


def refusal(caller: Identity | None, request: Request) -> str | None:
    """Return why a request may have been made by another site; None where it cannot have been.

    The token is taken from its header only: the body is the stream's.
    """
    secret = None if caller is None else caller.csrf_secret
    if not request.is_bare and _is_exempt(request.source):
        return None
    headers, scheme = request.headers, request.scheme
    key = (scheme, secret, *[headers.get(name) for name in _names()])
    try:
        return _remembered[key]
    except KeyError:
        found = _check(secret, request.source, headers, scheme)
    if sum(len(part) for part in key if part is not None) <= MAX_REMEMBERED_BYTES:
        if len(_remembered) >= MAX_REMEMBERED:
            _remembered.clear()
        _remembered[key] = found
    return found


def _is_exempt(source: Source) -> bool:
    if not isinstance(source, HttpRequest):
        return bool(source.get(EXEMPT))
    return bool(getattr(source, EXEMPT, False) or (isinstance(source, ASGIRequest) and source.scope.get(EXEMPT)))


def header_name() -> str:
    """Return the name of the header that carries the token, in lower case."""
    return _as_header(settings.CSRF_HEADER_NAME)


def _as_header(key: str) -> str:
    return key.removeprefix("HTTP_").replace("_", "-").lower()


_remembered: dict[tuple[str | bytes | None, ...], str | None] = {}
_names_now: dict[bytes, str] = {}


def _names() -> dict[bytes, str]:
    """The headers that Django's rules look at, with their keys in META."""
    if not _names_now:
        more = [settings.CSRF_HEADER_NAME]
        if settings.SECURE_PROXY_SSL_HEADER:
            more.append(settings.SECURE_PROXY_SSL_HEADER[0])
        named = {_as_header(name).encode(): name for name in more}
        _names_now.update({**_HEADERS, **named})
    return _names_now


def _check(secret: str | None, source: Source, headers: Mapping[bytes, bytes], scheme: str) -> str | None:
    probe = _Probe(scheme)
    for name, key in _names().items():
        if name in headers:
            probe.META[key] = headers[name].decode("latin-1")
    probe.META["SERVER_NAME"], probe.META["SERVER_PORT"] = _server(source)
    probe.COOKIES = parse_cookie(probe.META.get("HTTP_COOKIE", ""))
    probe.session = {CSRF_SESSION_KEY: secret} if secret else {}
    check = _Check(lambda request: None)  # type: ignore[arg-type]
    check.process_request(probe)
    found: Any = check.process_view(probe, None, (), {})  # type: ignore[arg-type]
    return None if found is None else str(found)


def _server(source: Source) -> tuple[str, str]:
    if isinstance(source, HttpRequest):
        return source.META.get("SERVER_NAME", ""), str(source.META.get("SERVER_PORT", ""))
    host, port = source.get("server") or ("", "")
    return str(host), str(port)


class _Probe(HttpRequest):
    """A request with only what the rules are about. Its form is empty, so that nobody reads the body."""

    session: dict[str, Any]  # type: ignore[assignment]

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.method = "POST"
        self._scheme = scheme

    def _get_scheme(self) -> str:
        return self._scheme


class _Check(CsrfViewMiddleware):
    """Says why instead of making a response."""

    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _forget(**kwargs: Any) -> None:
    _remembered.clear()
    _names_now.clear()


setting_changed.connect(_forget, dispatch_uid="durable_streams.csrf")
