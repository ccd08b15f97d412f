"""Redis connections from the configuration of a Django project: a URL, or a cache alias of django-redis.

Knows no messages.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.backoff
import redis.retry
import redis.sentinel
from django.core.exceptions import ImproperlyConfigured

from ...runtime.printable import loggable

TIMEOUT = 1.0
"""Seconds that any command may take. Readers poll the database anyway."""

# Options that synchronous and asynchronous connections share. Parsers and retries exist for one kind only.
_SHARED = (
    "host", "port", "db", "username", "password", "credential_provider", "path", "protocol", "client_name",
    "ssl_keyfile", "ssl_certfile", "ssl_password", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data",
    "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
)  # fmt: skip

# Options of a URL that are accepted and ignored. This module sets timeouts and retries, and messages are bytes.
_IGNORED = (
    "decode_responses", "encoding", "encoding_errors", "socket_timeout", "socket_connect_timeout", "socket_read_size",
    "socket_keepalive", "retry_on_timeout", "retry_on_error", "max_connections", "timeout", "health_check_interval",
    "legacy_responses",
)  # fmt: skip


Connect = Callable[[], AbstractAsyncContextManager[redis.asyncio.Redis]]


class Source(NamedTuple):
    """Connections to one Redis, for one project."""

    client: redis.Redis
    """Publishes, from any thread."""
    connect: Connect
    """Makes asynchronous clients. Each is a context manager, and closes when its context ends."""
    scope: str
    """Separates this project from others on the same server, because pub/sub ignores database numbers and prefixes."""


def describe(error: Exception) -> str:
    """Return what Redis does, and why: a sentence without its point about an error of Redis or of its connection."""
    # Where PUBLISH is renamed, the arguments of the unknown command follow, with data of the stream.
    reason = loggable(str(error).partition(", with args beginning with")[0])
    if is_refused_login(error):
        return f"Redis refuses the login ({reason})"
    if isinstance(error, redis.exceptions.NoPermissionError):
        return f"Redis refuses wake-up messages (NOPERM {reason})"  # the first word, which the client has removed
    if isinstance(error, redis.ResponseError):
        return f"Redis answers with an error ({reason})"
    return f"Redis does not answer ({reason})"


def is_refused_login(error: Exception) -> bool:
    """Return whether Redis does not accept the user or the password."""
    return isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError)


def from_url(url: str) -> Source:
    """Return the connections for a Redis URL.

    Raises:
        ImproperlyConfigured: the URL is not one of Redis, or has unknown options.
    """
    try:
        if "@" in urlsplit(url)._replace(scheme="", netloc="").geturl():  # otherwise a part of a password is the host
            raise ValueError
        options = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:  # its text may have a part of the password, unless it is about an option
        option = f" {error}" if str(error).startswith("Invalid value for") else ""
        raise ImproperlyConfigured(
            "URL is not a URL of Redis, such as redis://:password@host:6379/0. Write the special characters of a "
            f"password as in a URL: / as %2F, # as %23, ? as %3F and @ as %40.{option}"
        ) from None
    kind = options.pop("connection_class", redis.Connection)
    unknown = sorted(key for key in options if not (key in _SHARED or key in _IGNORED or key.startswith("ssl_")))
    if unknown:
        raise ImproperlyConfigured(f"The URL of Redis has unknown options: {', '.join(unknown)}. Remove them.")
    if not str(options.get("protocol", 2)).isdecimal():  # redis before 8 takes any word, and fails when it connects
        raise ImproperlyConfigured(f"The protocol in the URL of Redis is not a number: {options['protocol']}.")
    shared = {key: value for key, value in options.items() if key not in _IGNORED}
    return _from_pool(kind, shared, _scope(shared, ""))


def from_cache(alias: str) -> Source:
    """Return the connections of a cache alias of django-redis, with its TLS, password, Sentinel and database.

    Raises:
        ImproperlyConfigured: the backend of the alias is not django-redis.
    """
    try:
        from django.core.cache import caches
        from django_redis import get_redis_connection

        pool = get_redis_connection(alias, write=True).connection_pool
    except (ImportError, NotImplementedError, AttributeError) as error:
        raise ImproperlyConfigured(
            f"The cache {alias!r} does not use django-redis. Set its BACKEND, or give a URL: {error}"
        ) from error
    shared = {key: pool.connection_kwargs[key] for key in _SHARED if key in pool.connection_kwargs}
    scope = _scope(shared, caches[alias].key_prefix)
    if hasattr(pool, "sentinel_manager"):
        return _from_sentinel(pool, shared, scope)
    return _from_pool(pool.connection_class, shared, scope)


def _from_pool(kind: type[Any], shared: dict[str, Any], scope: str) -> Source:
    # `from_pool` makes clients that close their pools.
    client = redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **shared, **_publishing()))
    asynchronous = getattr(redis.asyncio.connection, kind.__name__)

    def connect() -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_pool(
            redis.asyncio.ConnectionPool(connection_class=asynchronous, **shared, **_listening())
        )

    return Source(client, connect, scope)


def _from_sentinel(pool: Any, shared: dict[str, Any], scope: str) -> Source:
    pools = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    addresses = [(other.connection_kwargs["host"], other.connection_kwargs["port"]) for other in pools]
    own = _without_address({key: value for key, value in pools[0].connection_kwargs.items() if key in _SHARED})
    own |= _tls(pools[0])
    shared = _without_address(shared) | _tls(pool)
    sentinels = redis.sentinel.Sentinel(addresses, sentinel_kwargs={**own, **_publishing()})  # type: ignore[no-untyped-call]
    client: redis.Redis = sentinels.master_for(  # type: ignore[no-untyped-call]
        pool.service_name, **shared, **_publishing()
    )

    @asynccontextmanager
    async def connect() -> AsyncIterator[redis.asyncio.Redis]:
        sentinels = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            addresses, sentinel_kwargs={**own, **_listening()}
        )
        try:
            async with sentinels.master_for(pool.service_name, **shared, **_listening()) as master:
                yield master
        finally:
            for sentinel in sentinels.sentinels:
                await sentinel.aclose()

    return Source(client, connect, scope)


def _scope(options: dict[str, Any], key_prefix: str) -> str:
    return f"{options.get('db') or 0}:{key_prefix}"


def _without_address(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in ("host", "port")}


def _tls(pool: Any) -> dict[str, bool]:
    return {"ssl": True} if issubclass(pool.connection_class, redis.SSLConnection) else {}


def _publishing() -> dict[str, Any]:
    # One retry, for a connection that was closed while it was not in use. None after a timeout.
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": retry}


def _listening() -> dict[str, Any]:
    # No retry: the subscriber has to know of each lost connection, because messages may be lost with it.
    retry = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
    return {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": retry}
