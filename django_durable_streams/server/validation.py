"""Checks whether streams can be served with the project's settings, for servers that start and for the system checks.

Does not ask the database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django.core.cache import InvalidCacheBackendError, caches
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, router

from ..access.addresses import networks
from ..access.creation_policy import CreationPolicy
from ..access.loading import make_permissions
from ..access.rates import RateLimits
from ..access.webhook_hosts import allowed_hosts
from ..conf import Config, Finding, config, refuse
from ..engine.wakeup import make_wakeup
from ..models import Stream
from ..protocol import paths
from ..protocol.errors import DurableStreamsError
from ..protocol.key_compaction import key_compaction_patterns
from ..protocol.retention import retention_patterns
from ..store.encoding import json_encoder
from .cors import is_origin


def check_configuration() -> None:
    """Check that streams can be served with the project's settings.

    Raises:
        ImproperlyConfigured: they cannot be. The message says why and what to do. Django's own errors come through,
            such as for a database that does not exist, or for a missing driver.
    """
    settings = config()
    refuse(config_findings(settings))
    make_permissions(settings.permission_classes)
    connections[router.db_for_write(Stream)]


def config_findings(settings: Config) -> list[Finding]:
    """Return the problems of settings whose types are right (E004)."""
    return [finding for part in _PARTS for finding in part(settings)]


def _rates(settings: Config) -> Iterator[Finding]:
    try:
        RateLimits(settings.rate_limits, settings.rate_limit_cache)
    except ValueError as error:
        yield _finding("RATE_LIMITS", error)
    if settings.rate_limits:
        try:
            caches[settings.rate_limit_cache]
        except InvalidCacheBackendError as error:
            yield _finding("RATE_LIMIT_CACHE", error)


def _bodies(settings: Config) -> Iterator[Finding]:
    if settings.max_body_memory < settings.max_append_bytes:
        yield Finding(
            "durable_streams.E004",
            "MAX_BODY_MEMORY is below MAX_APPEND_BYTES, so the largest bodies are always refused.",
        )


def _proxies(settings: Config) -> Iterator[Finding]:
    try:
        networks(settings.trusted_proxies)
    except ValueError as error:
        yield _finding("TRUSTED_PROXIES", error)


def _creation_policy(settings: Config) -> Iterator[Finding]:
    try:
        CreationPolicy(settings)
    except ValueError as error:
        yield _finding("PATH_PATTERNS", error)


def _retention(settings: Config) -> Iterator[Finding]:
    try:
        retention_patterns(settings.retention)
    except DurableStreamsError as error:
        yield _finding("RETENTION", error)


def _key_compaction(settings: Config) -> Iterator[Finding]:
    try:
        key_compaction_patterns(settings.key_compaction)
    except DurableStreamsError as error:
        yield _finding("KEY_COMPACTION", error)


def _registry(settings: Config) -> Iterator[Finding]:
    try:
        if settings.registry_path:
            paths.validate(settings.registry_path)
    except DurableStreamsError as error:
        yield _finding("REGISTRY_PATH", error)


def _origins(settings: Config) -> Iterator[Finding]:
    for origin in settings.cors_origins:
        if not is_origin(origin):
            yield Finding(
                "durable_streams.E004",
                f"CORS_ORIGINS: {origin!r} is not an origin as browsers send it.",
                "Write it like https://app.example.com: in small letters, without a path and without a default port.",
            )


def _wakeup(settings: Config) -> Iterator[Finding]:
    try:
        make_wakeup("default").stop()
    except (ImproperlyConfigured, ImportError, TypeError, ValueError) as error:
        yield _finding("WAKEUP", error)


def _encoder(settings: Config) -> Iterator[Finding]:
    try:
        json_encoder(settings.json_encoder)
    except (ImportError, TypeError) as error:
        yield _finding("JSON_ENCODER", error)


MIN_SECRET_LENGTH = 32
"""Characters of WEBHOOK_KEY_SECRET. The key that is made of it is as random as the text."""


def _webhooks(settings: Config) -> Iterator[Finding]:
    try:
        allowed_hosts(settings.webhook_allowed_hosts)
    except ValueError as error:
        yield _finding("WEBHOOK_ALLOWED_HOSTS", error)
    if 0 < len(settings.webhook_key_secret) < MIN_SECRET_LENGTH:
        yield Finding(
            "durable_streams.E004",
            f"WEBHOOK_KEY_SECRET must have {MIN_SECRET_LENGTH} characters or more, or be empty.",
            "Make one with `python -c 'import secrets; print(secrets.token_urlsafe(48))'`.",
        )


_PARTS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    _bodies,
    _rates,
    _proxies,
    _creation_policy,
    _retention,
    _key_compaction,
    _registry,
    _origins,
    _encoder,
    _wakeup,
    _webhooks,
)


def _finding(key: str, error: Exception) -> Finding:
    return Finding("durable_streams.E004", f"{key}: {error}")
