"""The `Host` check and the URLs made from it, by Django's rules, for requests that Django does not see."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.http.request import split_domain_port, validate_host

from ..protocol.errors import BadRequest
from .messages import Header

_DEBUG_HOSTS = (".localhost", "127.0.0.1", "[::1]")


def checked_host(found: list[Header]) -> str:
    """Return the host that a request is for.

    Raises:
        BadRequest: it is none of ALLOWED_HOSTS.
    """
    host = b""
    wanted = b"x-forwarded-host" if settings.USE_X_FORWARDED_HOST else b"host"
    for name, value in found:
        if name == wanted or (name == b"host" and not host):
            host = value
    allowed = tuple(settings.ALLOWED_HOSTS)
    if not allowed and settings.DEBUG:
        allowed = _DEBUG_HOSTS
    if not _is_allowed(host, allowed):
        raise BadRequest("This server is not known by that Host. Add it to ALLOWED_HOSTS.")
    return host.decode("latin-1")


@lru_cache(maxsize=256)
def _is_allowed(host: bytes, allowed: tuple[str, ...]) -> bool:
    domain, _ = split_domain_port(host.decode("latin-1"))
    return bool(domain) and validate_host(domain, list(allowed))


def absolute_url(scope: dict[str, Any], host: str) -> bytes:
    """Return the absolute URL of a request, without its query."""
    scheme = scope.get("scheme", "http")
    if settings.SECURE_PROXY_SSL_HEADER:
        wanted, secure = settings.SECURE_PROXY_SSL_HEADER
        name = wanted.removeprefix("HTTP_").replace("_", "-").lower().encode()
        value = dict(scope["headers"]).get(name)
        if value is not None:
            scheme = "https" if value.decode("latin-1").split(",")[0].strip() == secure else "http"
    return f"{scheme}://{host}{quote(scope['path'])}".encode("ascii")
