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

    write_lanes: int = 1
    """Threads of a process that commit appends, each with a database connection. SQLite always has one. With more of
    them fewer requests share a commit, which is slower unless the database has processors to spare and is far away."""

    queue_size: int = 10_000
    """Operations that may wait in one lane. More are refused with 503."""

    gc_threshold: int = 10_000
    """Objects that a process which serves streams may make between two runs of Python's garbage collector; 0 leaves
    the collector alone. With Python's own 700, every batch of requests runs it, over everything that waits."""

    permission: Any = "django_durable_streams.permissions.ModelPermissions"
    """Who may do what: the dotted path of a permission class, a dict with CLASS and its options, or a list of these,
    of which any may allow."""

    remember_seconds: float = 5.0
    """Seconds for which the ASGI application remembers who a session's user is and what Django's permissions allow
    that user. What is revoked in another process works at most so long."""

    live_check_interval: float = 10.0
    """Seconds between looks whether a live reader may still read."""

    rate_limits: Mapping[str, str] = field(default_factory=dict)
    """How often a user, or the address of those who are not logged in, may do something: by action (create, read,
    append, close, delete), as in `{"append": "100/s", "create": "1000/h"}`. More is refused with 429."""

    rate_limit_cache: str = "default"
    """Alias of the cache in which requests are counted."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of the proxies whose `X-Forwarded-For` is believed."""

    max_live_readers: int = 0
    """Live readers of one process. More are refused with 503. 0 is no limit."""

    path_patterns: tuple[str, ...] = ()
    """Patterns of the paths at which streams may be created over HTTP, such as `chat/*`. Empty: everywhere."""

    content_types: tuple[str, ...] = ()
    """Content types that streams may be created with over HTTP. Empty: all."""

    url_prefix: str = ""
    """What the URLs of streams begin with in links: `/streams/` or `https://streams.example.com/v1/stream/`. Empty: the
    place at which the URLs are included, or else `/v1/stream/`, where the ASGI application has them."""

    direct: bool = True
    """Under uvicorn, answer plain stream requests on the connection itself, past the making of scopes and tasks, where
    the `DurableStreams` application is all that the server serves."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may use the streams: `https://app.example.com`, or `*` for every page."""

    cors_allow_headers: tuple[str, ...] = ()
    """Request headers that pages of other origins may send besides the protocol's, the CSRF token's and tracing's."""

    cache_scope: str = "private"
    """`public` lets caches, shared ones too, keep data that everybody may read, for a minute without asking. `private`
    has every cache ask each time. What not everybody may read is always private."""


def _read() -> Config:
    given: dict[str, Any] = getattr(settings, SETTING, {})
    known = {known.name.upper(): known.name for known in fields(Config)}
    values = {known[key]: value for key, value in given.items() if key in known}
    for name in ("trusted_proxies", "path_patterns", "content_types", "cors_origins", "cors_allow_headers"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
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
