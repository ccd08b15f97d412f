"""Redis connections from what a Django project has configured: a URL, or a cache alias of django-redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import redis
import redis.asyncio
import redis.asyncio.retry
import redis.asyncio.sentinel
import redis.backoff
import redis.retry
import redis.sentinel
from django.core.exceptions import ImproperlyConfigured

TIMEOUT = 1.0
"""Seconds that anything may take. Readers look at the database every now and then anyway."""

# What both kinds of connection understand. Parsers, retries and the like are made for one kind only.
_SHARED = (
    "host", "port", "db", "username", "password", "credential_provider", "path", "protocol", "client_name",
    "ssl_keyfile", "ssl_certfile", "ssl_password", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data",
    "ssl_check_hostname", "ssl_min_version", "ssl_ciphers",
)  # fmt: skip

# What a URL may say of an application's own connections, and what does not matter for these: how long they wait and how
# often they try again is decided here, and messages are bytes.
_OURS = (
    "decode_responses", "encoding", "encoding_errors", "socket_timeout", "socket_connect_timeout", "socket_read_size",
    "socket_keepalive", "retry_on_timeout", "retry_on_error", "max_connections", "timeout", "health_check_interval",
    "legacy_responses",
)  # fmt: skip


Connect = Callable[[], AbstractAsyncContextManager[redis.asyncio.Redis]]


class Source(NamedTuple):
    """Where connections come from.

    client: publishes, from any thread.
    connect: makes asynchronous clients, each of which is a context and ends with it.
    scope: what sets this project apart from others on the same server, which pub/sub does not do by itself: it knows
        no database numbers, and no prefixes of keys.
    """

    client: redis.Redis
    connect: Connect
    scope: str


def from_url(url: str) -> Source:
    """Return the connections for a Redis URL.

    Raises:
        ImproperlyConfigured: it is none, or has options that connections do not take.
    """
    try:
        options = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        raise ImproperlyConfigured(f"This is no URL of a Redis: {error}") from error
    kind = options.pop("connection_class", redis.Connection)
    unknown = sorted(key for key in options if not (key in _SHARED or key in _OURS or key.startswith("ssl_")))
    if unknown:
        raise ImproperlyConfigured(f"The URL of Redis has options that are not known: {', '.join(unknown)}.")
    if not str(options.get("protocol", 2)).isdecimal():  # redis before 8 takes any word, and fails when it connects
        raise ImproperlyConfigured(f"The URL of Redis has a protocol that is no number: {options['protocol']}.")
    shared = {key: value for key, value in options.items() if key not in _OURS}
    return _from_pool(kind, shared, _scope(shared, ""))


def from_cache(alias: str) -> Source:
    """The same for a cache alias whose backend is django-redis: its TLS, password, Sentinel and database are kept.

    Raises:
        ImproperlyConfigured: the alias is not django-redis's.
    """
    try:
        from django.core.cache import caches
        from django_redis import get_redis_connection

        pool = get_redis_connection(alias, write=True).connection_pool
    except (ImportError, NotImplementedError, AttributeError) as error:
        raise ImproperlyConfigured(f"The cache {alias!r} is not one of django-redis: {error}") from error
    shared = {key: pool.connection_kwargs[key] for key in _SHARED if key in pool.connection_kwargs}
    scope = _scope(shared, caches[alias].key_prefix)
    if hasattr(pool, "sentinel_manager"):
        return _from_sentinel(pool, shared, scope)
    return _from_pool(pool.connection_class, shared, scope)


def _from_pool(kind: type[Any], shared: dict[str, Any], scope: str) -> Source:
    # Clients that close their pools with themselves.
    client = redis.Redis.from_pool(redis.ConnectionPool(connection_class=kind, **shared, **_publishing()))
    asynchronous = getattr(redis.asyncio.connection, kind.__name__)

    def connect() -> redis.asyncio.Redis:
        return redis.asyncio.Redis.from_pool(
            redis.asyncio.ConnectionPool(connection_class=asynchronous, **shared, **_listening())
        )

    return Source(client, connect, scope)


def _from_sentinel(pool: Any, shared: dict[str, Any], scope: str) -> Source:
    known = [sentinel.connection_pool for sentinel in pool.sentinel_manager.sentinels]
    addresses = [(found.connection_kwargs["host"], found.connection_kwargs["port"]) for found in known]
    own = _without_address({key: value for key, value in known[0].connection_kwargs.items() if key in _SHARED})
    own |= _tls(known[0])
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
            async with sentinels.master_for(pool.service_name, **shared, **_listening()) as found:
                yield found
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
    # Once more where a connection turns out to have ended while it was not used, and never after silence.
    retry = redis.retry.Retry(redis.backoff.NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": retry}


def _listening() -> dict[str, Any]:
    # Who listens has to know of every break, as news are lost in it.
    retry = redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0)
    return {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": retry}
