"""Checks of settings that several worker processes need, and the scripts of pages."""

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
"""Variables that tell uvicorn, gunicorn and granian their number of workers. Command options are unknown here."""

LONGEST_KEEP_ALIVE = 30.0
"""Seconds. The scripts of pages take 45 seconds without a byte for a lost network, and a network may delay some."""


@register()
@needs_settings
def check_deployment(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W009: several workers without wake-ups. W010: rate limits without a shared cache."""
    problems: list[CheckMessage] = []
    worker_count = _worker_count()
    if worker_count > 1 and _is_backend(config().wakeup.get("BACKEND"), InProcessWakeup):
        problems.append(
            Warning(
                f"{worker_count} workers serve streams, but they do not wake each other's readers.",
                hint=f"Readers poll the database every POLL_INTERVAL ({config().poll_interval:g} s). Set WAKEUP to "
                "RedisWakeup, and commits of all workers reach them immediately.",
                id="durable_streams.W009",
            )
        )
    if config().rate_limits:
        backend = settings.CACHES.get(config().rate_limit_cache, {}).get("BACKEND")
        if _is_backend(backend, DummyCache):
            message = "The cache that counts RATE_LIMITS stores nothing, so the limits have no effect."
            problems.append(_rate_limit_warning(message))
        elif worker_count > 1 and _is_backend(backend, LocMemCache):
            message = f"Each of {worker_count} workers counts RATE_LIMITS by itself, so the limits do not hold."
            problems.append(_rate_limit_warning(message))
    return problems


@register()
@needs_settings
def check_keep_alive(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """W032: pages take quiet connections for lost ones."""
    seconds = config().sse_keep_alive
    if seconds <= LONGEST_KEEP_ALIVE:
        return []
    return [
        Warning(
            f"SSE_KEEP_ALIVE is {seconds:g}. Pages take 45 seconds without a byte for a lost network, and connect "
            "again. resumingFetch then reads its whole answer again.",
            hint=f"Set it to {LONGEST_KEEP_ALIVE:g} or less. Silence this check if no page uses the scripts.",
            id="durable_streams.W032",
        )
    ]


def _rate_limit_warning(message: str) -> CheckMessage:
    return Warning(message, hint="Set RATE_LIMIT_CACHE to a cache that all processes share.", id="durable_streams.W010")


def _worker_count() -> int:
    """Return the number of workers that the environment asks for, or 1."""
    values = [os.environ.get(name, "") for name in WORKER_VARIABLES]
    return max([int(value) for value in values if value.isdigit()], default=1)


def _is_backend(path: Any, kind: type) -> bool:
    try:
        backend = import_string(path) if isinstance(path, str) else None
    except ImportError:
        return False
    return isinstance(backend, type) and issubclass(backend, kind)
