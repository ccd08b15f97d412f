"""Redis connections from what a Django project has configured: a URL, or a cache alias of django-redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.sentinel
from django.core.exceptions import ImproperlyConfigured

TIMEOUT = 1.0
"""Seconds that a publisher waits for Redis. Readers look at the database every second anyway."""

AsyncFactory = Callable[[], redis.asyncio.Redis]

# What both kinds of connection understand. Parsers, retries and the like are made for one kind only.
_SHARED = (
    "host", "port", "db", "username", "password", "path", "protocol", "client_name",
    "ssl_keyfile", "ssl_certfile", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_check_hostname",
    "ssl_min_version", "ssl_ciphers",
)  # fmt: skip


def from_url(url: str) -> tuple[redis.Redis, AsyncFactory]:
    """Return a client, and a function that makes asynchronous ones, for a Redis URL."""
    timeouts: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    client = redis.Redis.from_url(url, **timeouts)
    return client, lambda: redis.asyncio.Redis.from_url(url, socket_connect_timeout=TIMEOUT)


def from_cache(alias: str) -> tuple[redis.Redis, AsyncFactory]:
    """The same for a cache alias whose backend is django-redis: its TLS, password, Sentinel and database are kept.

    Raises:
        ImproperlyConfigured: the alias is not django-redis's.
    """
    try:
        from django_redis import get_redis_connection

        pool = get_redis_connection(alias, write=True).connection_pool
    except (ImportError, NotImplementedError, AttributeError) as error:
        raise ImproperlyConfigured(f"The cache {alias!r} is not one of django-redis: {error}") from error
    shared = {key: pool.connection_kwargs[key] for key in _SHARED if key in pool.connection_kwargs}
    timeouts: dict[str, Any] = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    if hasattr(pool, "sentinel_manager"):
        return _from_sentinel(pool, shared, timeouts)
    client = redis.Redis(
        connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **shared, **timeouts)
    )
    asynchronous = getattr(redis.asyncio.connection, pool.connection_class.__name__)

    def make() -> redis.asyncio.Redis:
        return redis.asyncio.Redis(
            connection_pool=redis.asyncio.ConnectionPool(
                connection_class=asynchronous, socket_connect_timeout=TIMEOUT, **shared
            )
        )

    return client, make


def _from_sentinel(pool: Any, shared: dict[str, Any], timeouts: dict[str, float]) -> tuple[redis.Redis, AsyncFactory]:
    manager = pool.sentinel_manager
    known = [sentinel.connection_pool.connection_kwargs for sentinel in manager.sentinels]
    addresses = [(found["host"], found["port"]) for found in known]
    own = {key: known[0][key] for key in _SHARED if key in known[0] and key not in ("host", "port")}
    shared = {key: value for key, value in shared.items() if key not in ("host", "port")}
    client: redis.Redis = manager.master_for(pool.service_name, **shared, **timeouts)

    def make() -> redis.asyncio.Redis:
        sentinel = redis.asyncio.sentinel.Sentinel(  # type: ignore[no-untyped-call]
            addresses, sentinel_kwargs={**own, "socket_connect_timeout": TIMEOUT}, **shared
        )
        found: redis.asyncio.Redis = sentinel.master_for(pool.service_name)
        return found

    return client, make
