"""Whether several processes know of each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.locmem import LocMemCache
from django.core.checks import CheckMessage, Warning, register
from django.utils.module_loading import import_string

from ..conf import config
from ..engine.wakeup.base import InProcessWakeup
from .requiring import needs_settings

WORKER_VARIABLES = ("WEB_CONCURRENCY", "GRANIAN_WORKERS")
"""What uvicorn, gunicorn and granian take their number of workers from. Options of commands are not seen here."""


@register()
@needs_settings
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W009: several workers without wake-ups. W010: rates that every process counts for itself, or nobody does."""
    found: list[CheckMessage] = []
    workers = _workers()
    if workers > 1 and _is(config().wakeup.get("BACKEND"), InProcessWakeup):
        found.append(
            Warning(
                f"{workers} workers serve streams, and do not tell each other what they have committed.",
                hint=f"Readers find it within POLL_INTERVAL ({config().poll_interval:g} s), by asking the "
                "database. Set WAKEUP to RedisWakeup and they have it at once.",
                id="durable_streams.W009",
            )
        )
    if config().rate_limits:
        backend = settings.CACHES.get(config().rate_limit_cache, {}).get("BACKEND")
        if _is(backend, DummyCache):
            found.append(_uncounted("The cache that RATE_LIMITS are counted in keeps nothing, so they limit nobody."))
        elif workers > 1 and _is(backend, LocMemCache):
            found.append(
                _uncounted(f"Each of {workers} workers counts RATE_LIMITS for itself: {workers} times as many pass.")
            )
    return found


def _uncounted(message: str) -> CheckMessage:
    return Warning(
        message, hint="Name a cache that all processes share in RATE_LIMIT_CACHE.", id="durable_streams.W010"
    )


def _workers() -> int:
    """How many workers the environment asks for, as far as it can be known."""
    given = [os.environ.get(name, "") for name in WORKER_VARIABLES]
    return max([int(value) for value in given if value.isdigit()], default=1)


def _is(path: Any, kind: type) -> bool:
    try:
        found = import_string(path) if isinstance(path, str) else None
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, kind)
