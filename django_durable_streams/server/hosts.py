"""The `Host` check and the URLs made from it, by Django's rules, for requests that Django does not see."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.core.signals import setting_changed
from django.http.request import split_domain_port, validate_host

from ..protocol.errors import BadRequest

_DEBUG_HOSTS = (".localhost", "127.0.0.1", "[::1]")


def check_host(headers: Mapping[bytes, bytes]) -> None:
    """See that a request is for a host of this server.

    Raises:
        BadRequest: it is none of ALLOWED_HOSTS.
    """
    if not _is_allowed(headers.get(b"host"), headers.get(b"x-forwarded-host")):
        raise BadRequest("This server is not known by that Host. Add it to ALLOWED_HOSTS.")


@lru_cache(maxsize=256)
def _is_allowed(host: bytes | None, forwarded: bytes | None) -> bool:
    wanted = forwarded if settings.USE_X_FORWARDED_HOST and forwarded is not None else host
    allowed = settings.ALLOWED_HOSTS
    if not allowed and settings.DEBUG:
        allowed = [*_DEBUG_HOSTS]
    domain, _ = split_domain_port((wanted or b"").decode("latin-1"))
    return bool(domain) and validate_host(domain, allowed)


def _forget(**kwargs: Any) -> None:
    _is_allowed.cache_clear()


setting_changed.connect(_forget, dispatch_uid="durable_streams.hosts")


def absolute_url(scheme: str, path: str, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the absolute URL of a request's path, which is percent-decoded."""
    host = headers.get(b"host", b"")
    if settings.USE_X_FORWARDED_HOST:
        host = headers.get(b"x-forwarded-host", host)
    if settings.SECURE_PROXY_SSL_HEADER:
        name, secure = settings.SECURE_PROXY_SSL_HEADER
        value = headers.get(name.removeprefix("HTTP_").replace("_", "-").lower().encode())
        if value is not None:
            scheme = "https" if value.decode("latin-1").split(",")[0].strip() == secure else "http"
    return f"{scheme}://".encode("ascii") + host + quote(path).encode("ascii")
