"""Settings: one dict, `DURABLE_STREAMS`, read lazily through one typed object.

    from django_durable_streams.conf import config
    config().page_bytes

The object is made anew whenever Django's settings change, so `override_settings` works.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

SETTING = "DURABLE_STREAMS"

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting with its default; the key in `DURABLE_STREAMS` is the name in capitals."""

    max_append_bytes: int = 16 * MIB
    """Largest body of a POST or PUT. More is refused with 413."""

    page_bytes: int = 1 * MIB
    """A read returns whole appends up to this many bytes, and at least one."""

    cache_bytes: int = 32 * MIB
    """Memory that one process spends on data it has read, so as not to read it again."""

    long_poll_timeout: float = 30.0
    """Seconds that a long-poll waits for data."""

    sse_duration: float = 60.0
    """Seconds after which an SSE response ends, so that CDNs can collapse readers (section 5.8)."""

    sse_max_bytes: int = 16 * MIB
    """Bytes after which an SSE response ends: some servers buffer what a reader does not take."""

    sse_keep_alive: float = 15.0
    """Seconds between comments on an idle SSE response, for proxies that cut quiet connections."""

    fallback_interval: float = 0.25
    """Seconds between looks at the database for readers whom no message has woken."""

    wakeup: Mapping[str, Any] = field(
        default_factory=lambda: {"BACKEND": "django_durable_streams.engine.wakeup.base.InProcessWakeup"}
    )
    """How readers of other processes are woken: the dotted path of a BACKEND, and its options. Without Redis they
    find out by themselves, within `FALLBACK_INTERVAL`."""

    write_lanes: int = 2
    """Threads of a process that commit appends, each with a database connection. SQLite always has one."""

    queue_size: int = 10_000
    """Operations that may wait in one lane. More are refused with 503."""

    gc_threshold: int = 10_000
    """Objects that a process which serves streams may make between two runs of Python's garbage collector; 0 leaves
    the collector alone. With Python's own 700, every batch of requests runs it, over everything that waits."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may use the streams: `https://app.example.com`, or `*` for every page."""

    cache_scope: str = "private"
    """`public` lets shared caches keep reads; `private` only the reader's own."""


def _read() -> Config:
    given: dict[str, Any] = getattr(settings, SETTING, {})
    known = {known.name.upper(): known.name for known in fields(Config)}
    values = {known[key]: value for key, value in given.items() if key in known}
    if "cors_origins" in values:
        values["cors_origins"] = tuple(values["cors_origins"])
    return Config(**values)


config = lru_cache(maxsize=1)(_read)
"""Return the settings in force."""


def names() -> list[str]:
    """Return every key that `DURABLE_STREAMS` may have."""
    return [known.name.upper() for known in fields(Config)]


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == SETTING:
        config.cache_clear()


setting_changed.connect(_forget, dispatch_uid="durable_streams.conf")
