"""Whether `DURABLE_STREAMS` says what can be understood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_origin, get_type_hints

from django.apps import AppConfig
from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.checks import CheckMessage, Error, register
from django.core.exceptions import ImproperlyConfigured

from .. import conf
from ..access.addresses import networks
from ..access.allowed import Allowed
from ..access.rates import RateLimits
from ..engine.wakeup import make_wakeup

MAY_BE_ZERO = frozenset({"GC_THRESHOLD", "MAX_LIVE_READERS", "REMEMBER_SECONDS", "CACHE_BYTES"})
"""Numbers that need not be greater than zero."""

CACHE_SCOPES = ("private", "public")

_TYPES: dict[Any, tuple[Any, str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    tuple: ((list, tuple), "a list"),
    Mapping: (Mapping, "a dict"),
}


@register()
def check_settings(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """E001: no dict. E002: a key that means nothing. E003: a value of the wrong type. E004: a value that cannot be."""
    given = getattr(settings, conf.SETTING, {})
    if not isinstance(given, dict):
        return [Error(f"{conf.SETTING} must be a dict.", id="durable_streams.E001")]
    known = conf.names()
    found: list[CheckMessage] = [
        Error(
            f"{conf.SETTING} has an unknown key: {key!r}.",
            hint=_suggestion(str(key), known),
            id="durable_streams.E002",
        )
        for key in given
        if key not in known
    ]
    mistyped = _mistyped(given)
    return [*found, *mistyped, *([] if mistyped else _impossible(given))]


def _suggestion(key: str, known: list[str]) -> str:
    near = get_close_matches(key.upper(), known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(known)}."


def _mistyped(given: dict[str, Any]) -> list[CheckMessage]:
    """E003."""
    found: list[CheckMessage] = []
    for name, hint in get_type_hints(conf.Config).items():
        key = name.upper()
        expected = _TYPES.get(get_origin(hint) or hint)
        if key not in given or expected is None:
            continue
        kind, words = expected
        value = given[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            # Most of all, a single text where several are expected: each of its letters would be one.
            hint = f"Write [{value!r}]." if isinstance(value, str) and words == "a list" else f"It is {value!r}."
            found.append(Error(f"{key} must be {words}.", hint=hint, id="durable_streams.E003"))
        elif words == "a list" and not all(isinstance(item, str) for item in value):
            found.append(Error(f"{key} must be a list of texts.", hint=f"It is {value!r}.", id="durable_streams.E003"))
    return found


def _impossible(given: dict[str, Any]) -> list[CheckMessage]:
    """E004."""
    found = [
        _error(f"{key} must be greater than 0.")
        for key, value in given.items()
        if isinstance(value, int | float) and key in conf.names() and value <= 0 and not _is_zero(key, value)
    ]
    config = conf.config()
    if config.max_body_memory < config.max_append_bytes:
        found.append(_error("MAX_BODY_MEMORY is below MAX_APPEND_BYTES: the largest bodies would never be taken."))
    if config.cache_scope not in CACHE_SCOPES:
        found.append(_error("CACHE_SCOPE is 'private' or 'public'."))
    try:
        RateLimits(config.rate_limits, config.rate_limit_cache)
    except ValueError as error:
        found.append(_error(f"RATE_LIMITS: {error}"))
    if config.rate_limits:
        try:
            caches[config.rate_limit_cache]
        except InvalidCacheBackendError as error:
            found.append(_error(f"RATE_LIMIT_CACHE: {error}"))
    try:
        networks(config.trusted_proxies)
    except ValueError as error:
        found.append(_error(f"TRUSTED_PROXIES: {error}"))
    try:
        Allowed(config)
    except ValueError as error:
        found.append(_error(f"PATH_PATTERNS: {error}"))
    try:
        make_wakeup("default").stop()
    except (ImproperlyConfigured, ImportError, TypeError, ValueError) as error:
        found.append(_error(f"WAKEUP: {error}"))
    return found


def _is_zero(key: str, value: float) -> bool:
    return value == 0 and key in MAY_BE_ZERO


def _error(message: str) -> CheckMessage:
    return Error(message, id="durable_streams.E004")
