"""Settings: one dict, `DURABLE_STREAMS`, read lazily through one typed object.

    from django_durable_streams.conf import config
    config().page_bytes

The object is made anew whenever Django's settings change, so `override_settings` works. There is none where the setting
has a key that is unknown or a value that cannot be: `findings` says what is wrong, for the system checks and for the
exception that nothing which serves streams starts without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple, get_origin, get_type_hints

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

SETTING = "DURABLE_STREAMS"

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting with its default; the key in `DURABLE_STREAMS` is the name in capitals."""

    max_append_bytes: int = 16 * MIB
    """Largest body of a POST or PUT. More is refused with 413."""

    max_body_memory: int = 64 * MIB
    """Bytes of request bodies that one process holds before they are complete, all requests together. Over it, bodies
    that come in parts are refused with 503."""

    receive_timeout: float = 60.0
    """Seconds within which the whole body of a request has to arrive. After them it is refused with 408."""

    send_timeout: float = 60.0
    """Seconds for which a client may take nothing of what it is sent. After them its connection is closed."""

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

    poll_interval: float = 0.25
    """Seconds between looks at the database for readers whom no message has woken."""

    wakeup: Mapping[str, Any] = field(
        default_factory=lambda: {"BACKEND": "django_durable_streams.engine.wakeup.base.InProcessWakeup"}
    )
    """How readers of other processes are woken: the dotted path of a BACKEND, and its options. Without Redis they
    find out by themselves, within `POLL_INTERVAL`."""

    writer_threads: int = 1
    """Threads of a process that commit appends, each with a database connection. SQLite always has one. With more of
    them fewer requests share a commit, which is slower unless the database has processors to spare and is far away."""

    json_encoder: str = "django.core.serializers.json.DjangoJSONEncoder"
    """What says in JSON what Python appends to JSON streams and JSON has no words for, such as a date: the dotted path
    of a `json.JSONEncoder`. What it does not know is refused."""

    queue_size: int = 10_000
    """Operations that may wait in one lane. More are refused with 503."""

    queue_bytes: int = 128 * MIB
    """Data that may wait with them. More is refused with 503."""

    gc_threshold: int = 10_000
    """Objects that a process which serves streams may make between two runs of Python's garbage collector; 0 leaves
    the collector alone. With Python's own 700, every batch of requests runs it, over everything that waits."""

    gc_freeze: bool = False
    """Whether a process which serves streams exempts all objects that exist at its start from Python's garbage
    collector (`gc.freeze`). That shortens each full run, and garbage cycles that exist then are never freed."""

    permission_classes: Any = "django_durable_streams.permissions.ModelPermissions"
    """Who may do what: the dotted path of a permission class, a dict with CLASS and its options, or a list of these,
    of which any may allow."""

    auth_cache_seconds: float = 5.0
    """Seconds for which the ASGI application remembers who a session's user is and what Django's permissions allow
    that user. What is revoked in another process works at most so long."""

    reauthorize_interval: float = 10.0
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

    uvicorn_fast_path: bool = True
    """Under uvicorn, answer plain stream requests on the connection itself, past the making of scopes and tasks, where
    the `DurableStreams` application is all that the server serves."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may use the streams: `https://app.example.com`, or `*` for every page."""

    cors_allow_headers: tuple[str, ...] = ()
    """Request headers that pages of other origins may send besides the protocol's, the CSRF token's and tracing's."""

    cache_scope: str = "private"
    """`public` lets caches, shared ones too, keep data that everybody may read, for a minute without asking. `private`
    has every cache ask each time. What not everybody may read is always private."""


class Range(NamedTuple):
    """The least and the most that a number may be."""

    least: float
    most: float


HOUR = 3600.0

RANGES: Mapping[str, Range] = {
    # A database takes rows of a gigabyte at the most, and a driver may need twice as much on the way.
    "MAX_APPEND_BYTES": Range(1, 512 * MIB),
    "PAGE_BYTES": Range(1, 512 * MIB),
    "LONG_POLL_TIMEOUT": Range(0.001, HOUR),
    "SSE_DURATION": Range(0.001, 24 * HOUR),
    "SSE_KEEP_ALIVE": Range(0.001, HOUR),
    # More often than that, looking is all that a process does.
    "POLL_INTERVAL": Range(0.001, HOUR),
    "WRITER_THREADS": Range(1, 64),
    "CACHE_BYTES": Range(0, math.inf),
    "GC_THRESHOLD": Range(0, 2**31 - 1),
    "MAX_LIVE_READERS": Range(0, math.inf),
    "AUTH_CACHE_SECONDS": Range(0, 24 * HOUR),
}
"""What numbers may be. One that is not here has to be greater than zero."""

CHOICES: Mapping[str, tuple[str, ...]] = {"CACHE_SCOPE": ("private", "public")}
"""What texts may be of which there are few."""

_TYPES: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    tuple: ((list, tuple), "a list"),
    Mapping: (Mapping, "a dict"),
}


class Finding(NamedTuple):
    """What is wrong with the setting: the id of the system check that says so, the message, and what to do."""

    id: str
    message: str
    hint: str = ""


def findings(given: Any) -> list[Finding]:
    """Return what is wrong with a value of `DURABLE_STREAMS`, as far as that can be seen from the value itself.

    E001: no dict. E002: an unknown key. E003: a value of the wrong type. E004: a value that cannot be.
    """
    if not isinstance(given, Mapping):
        return [Finding("durable_streams.E001", f"{SETTING} must be a dict.", f"It is {given!r}.")]
    known = names()
    found = [
        Finding("durable_streams.E002", f"{SETTING} has an unknown key: {key!r}.", _suggestion(str(key), known))
        for key in given
        if key not in known
    ]
    for name, kind in get_type_hints(Config).items():
        key = name.upper()
        if key in given:
            problem = _mistyped(key, kind, given[key]) or _impossible(key, given[key])
            found += [problem] if problem is not None else []
    return found


def _suggestion(key: str, known: list[str]) -> str:
    near = get_close_matches(key.upper(), known, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(known)}."


def _mistyped(key: str, hint: Any, value: Any) -> Finding | None:
    expected = _TYPES.get(get_origin(hint) or hint)
    if expected is None:
        return None
    kind, words = expected
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        # Most of all, a single text where several are expected: each of its letters would be one.
        shown = f"Write [{value!r}]." if isinstance(value, str) and words == "a list" else f"It is {value!r}."
        return Finding("durable_streams.E003", f"{key} must be {words}.", shown)
    if words == "a list" and not all(isinstance(item, str) for item in value):
        return Finding("durable_streams.E003", f"{key} must be a list of texts.", f"It is {value!r}.")
    return None


def _impossible(key: str, value: Any) -> Finding | None:
    shown = f"It is {value!r}."
    if key in CHOICES and value not in CHOICES[key]:
        return Finding("durable_streams.E004", f"{key} must be {' or '.join(map(repr, CHOICES[key]))}.", shown)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if key in RANGES:
        least, most = RANGES[key]
        fits = least <= value <= most and value != math.inf
        words = f"from {least:g} to {most:g}" if math.isfinite(most) else f"{least:g} or more"
    else:
        fits, words = 0 < value < math.inf, "greater than 0"
    return None if fits else Finding("durable_streams.E004", f"{key} must be {words}.", shown)


def refuse(found: list[Finding]) -> None:
    """Raise what is wrong as one exception, if anything is.

    Raises:
        ImproperlyConfigured: says of each finding what it is and what to do.
    """
    if found:
        lines = [f"{one.message} {one.hint} ({one.id})".replace("  ", " ") for one in found]
        raise ImproperlyConfigured("\n".join([f"The setting {SETTING} cannot be used.", *lines]))


def given() -> Any:
    """Return the setting as the project has it."""
    return getattr(settings, SETTING, {})


def _read() -> Config:
    value = given()
    refuse(findings(value))
    kinds = get_type_hints(Config)
    values: dict[str, Any] = {}
    for key, item in value.items():
        name = key.lower()
        values[name] = tuple(item) if get_origin(kinds[name]) is tuple else item
    return Config(**values)


config = lru_cache(maxsize=1)(_read)
"""Return the settings in force.

Raises:
    ImproperlyConfigured: they cannot be used; says why.
"""


def names() -> list[str]:
    """Return every key that `DURABLE_STREAMS` may have."""
    return [known.name.upper() for known in fields(Config)]


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == SETTING:
        config.cache_clear()


setting_changed.connect(_forget, dispatch_uid="durable_streams.conf")
