"""Checks the `Host` header and makes URLs from it, by Django's rules, for requests that do not pass through Django.

The invariant: a result depends on its arguments and on the settings, so it is cached until a setting changes.
"""

from __future__ import annotations

import string
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
    """Check that a request is for a host of this server.

    Raises:
        BadRequest: the host is not in ALLOWED_HOSTS.
    """
    if not _is_allowed(headers.get(b"host"), headers.get(b"x-forwarded-host")):
        raise BadRequest("The Host of the request is not allowed. Add it to ALLOWED_HOSTS.")


@lru_cache(maxsize=256)
def _is_allowed(host: bytes | None, forwarded: bytes | None) -> bool:
    wanted = forwarded if settings.USE_X_FORWARDED_HOST and forwarded is not None else host
    allowed = settings.ALLOWED_HOSTS
    if not allowed and settings.DEBUG:
        allowed = [*_DEBUG_HOSTS]
    domain, _ = split_domain_port((wanted or b"").decode("latin-1"))
    return bool(domain) and validate_host(domain, allowed)


@lru_cache(maxsize=16)
def script_name(root_path: str | None) -> str:
    """Return the path below which the site is, without a slash at its end.

    `FORCE_SCRIPT_NAME` counts before the server's `root_path`.
    """
    return (settings.FORCE_SCRIPT_NAME or root_path or "").rstrip("/")


def below(name: str, path: str) -> str:
    """Return a path without the script name. Some servers leave it in."""
    return path[len(name) :] if name and path.startswith(f"{name}/") else path


def outer_path(root_path: str | None, path: str) -> str:
    """Return the path that the client has sent. Some servers and proxies remove the script name.

    Args:
        root_path, path: those of the server, percent-decoded.
    """
    name = script_name(root_path)
    return name + below(name, path) if name else path


_PLAIN = f"{string.ascii_letters}{string.digits}_.-~/"
"""Characters that stand for themselves in the path of a URL."""


def absolute_url(scheme: str, path: str, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the absolute URL of a request's path, which is percent-decoded."""
    return origin(scheme, headers) + quoted_path(path)


def quoted_path(path: str) -> bytes:
    """Return a percent-decoded path as it stands in a URL."""
    return (quote(path) if path.strip(_PLAIN) else path).encode("ascii")  # most have no character to quote


def origin(scheme: str, headers: Mapping[bytes, bytes]) -> bytes:
    """Return the scheme and the host of a request, as they stand in its URL.

    Args:
        scheme: as the server tells it.
    """
    proxy = _scheme_header()
    secure = None
    if proxy is not None and proxy[0] in headers:
        secure = headers[proxy[0]].decode("latin-1").split(",")[0].strip() == proxy[1]
    return _origin(scheme, secure, headers.get(b"host"), headers.get(b"x-forwarded-host"))


@lru_cache(maxsize=1)
def _scheme_header() -> tuple[bytes, str] | None:
    """Return the header and the value by which a proxy says that a request came by HTTPS."""
    if not settings.SECURE_PROXY_SSL_HEADER:
        return None
    name, value = settings.SECURE_PROXY_SSL_HEADER
    return name.removeprefix("HTTP_").replace("_", "-").lower().encode(), value


@lru_cache(maxsize=256)
def _origin(scheme: str, secure: bool | None, host: bytes | None, forwarded: bytes | None) -> bytes:
    if secure is not None:
        scheme = "https" if secure else "http"
    if settings.USE_X_FORWARDED_HOST and forwarded is not None:
        host = forwarded
    return f"{scheme}://".encode("ascii") + (host or b"")


def _clear_caches(**kwargs: Any) -> None:
    for cached_function in (_is_allowed, script_name, _scheme_header, _origin):
        cached_function.cache_clear()


setting_changed.connect(_clear_caches, dispatch_uid="durable_streams.hosts")
