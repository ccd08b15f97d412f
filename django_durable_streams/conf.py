"""Settings: one dict, `DURABLE_STREAMS`, read lazily through one typed object.

    from django_durable_streams.conf import config
    config().page_bytes

The object is made again whenever Django's settings change. With an unknown key or an invalid value there is no object:
`findings` lists the problems, for the system checks and for the exception that stops a server at its start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import cache, lru_cache
from typing import Any, NamedTuple, get_origin, get_type_hints

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

SETTING = "DURABLE_STREAMS"

MIB = 1024 * 1024
HOUR = 3600.0
_kinds_of = cache(get_type_hints)  # it parses all annotations, and tests change settings often


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting with its default. The key in `DURABLE_STREAMS` is the name in capitals."""

    max_append_bytes: int = 16 * MIB
    """Largest body of a POST or PUT, in bytes. A larger body is refused with 413."""

    max_body_memory: int = 64 * MIB
    """Bytes of incomplete request bodies in one process, all requests together. Beyond the limit, bodies that arrive in
    parts are refused with 503."""

    receive_timeout: float = 60.0
    """Seconds in which the whole body of a request must arrive. Otherwise the request is refused with 408."""

    max_response_memory: int = 256 * MIB
    """Bytes of responses that clients have not taken yet, in one process. Beyond the limit, the clients that have taken
    nothing of a large response for longest are cut off, and new large responses are refused with 503. Data that
    responses share counts once."""

    send_timeout: float = 60.0
    """Seconds within which a client must take the next 64 KiB of a response, or its rest. Otherwise it is cut off."""

    page_bytes: int = 1 * MIB
    """A read returns whole appends up to this many bytes, and at least one."""

    cache_bytes: int = 32 * MIB
    """Memory of one process for its segment cache, in bytes."""

    long_poll_timeout: float = 25.0
    """Seconds that a long-poll waits for data."""

    sse_duration: float = 60.0
    """Seconds after which an SSE response ends, so that CDNs can collapse readers (section 5.8)."""

    sse_max_bytes: int = 16 * MIB
    """Bytes after which an SSE response ends, because some servers buffer data that a reader does not take."""

    sse_keep_alive: float = 15.0
    """Seconds between comments on an idle SSE response, for proxies that cut idle connections."""

    poll_interval: float = 0.25
    """How often to poll the database for readers that received no wake-up, in seconds."""

    wakeup: Mapping[str, Any] = field(
        default_factory=lambda: {"BACKEND": "django_durable_streams.engine.wakeup.base.InProcessWakeup"}
    )
    """How a commit wakes the readers of other processes: the dotted path of a BACKEND, and its options. Without Redis
    these readers find new data by polling, within `POLL_INTERVAL`."""

    writer_threads: int = 1
    """Committers of a process: threads, each with a database connection. SQLite always has one. With more, fewer
    requests share a commit. That is slower, unless the database is far away and has idle processors."""

    json_encoder: str = "django.core.serializers.json.DjangoJSONEncoder"
    """Dotted path of a `json.JSONEncoder` for values of Python code in JSON streams. Others are refused."""

    queue_size: int = 10_000
    """Operations that may wait for one committer. More are refused with 503."""

    queue_bytes: int = 128 * MIB
    """Bytes of data that these operations may carry. More are refused with 503."""

    gc_threshold: int = 10_000
    """Objects that a process which serves streams may make between two runs of Python's garbage collector; 0 leaves
    the collector alone. With Python's own 700, every batch of requests runs it, over everything that waits."""

    gc_freeze: bool = False
    """Whether a process which serves streams exempts all objects that exist at its start from Python's garbage
    collector (`gc.freeze`). That shortens each full run, and garbage cycles that exist then are never freed."""

    permission_classes: Any = "django_durable_streams.permissions.ModelPermissions"
    """The permission class: a dotted path, a dict with CLASS and its options, or a list of these. A request is allowed
    if one of them allows it."""

    auth_cache_seconds: float = 5.0
    """Seconds for which the ASGI application caches the user of a session and the user's Django permissions. A
    permission that another process revokes works for so long at most."""

    reauthorize_interval: float = 10.0
    """Seconds between two checks of a live reader's permission."""

    rate_limits: Mapping[str, str] = field(default_factory=dict)
    """Request rates for each user, or for each address without login, by action (create, read, append, close, delete):
    `{"append": "100/s", "create": "1000/h"}`. More requests are refused with 429."""

    rate_limit_cache: str = "default"
    """Alias of the cache that counts requests for the rate limits."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose `X-Forwarded-For` is trusted."""

    max_live_readers: int = 0
    """Live readers of one process. More are refused with 503. 0: no limit."""

    retention: Mapping[str, Any] = field(default_factory=dict)
    """What is kept of streams, by pattern of their paths: `{"chat/**": {"age": 86400, "bytes": 10_000_000}}`. Data is
    trimmed as soon as one of `age` (seconds), `bytes` and `messages` allows it. The first pattern that matches counts.
    A stream may have rules of its own (`Stream.retain`)."""

    key_compaction: Mapping[str, Any] = field(default_factory=dict)
    """JSON streams of the State Protocol, by pattern of their paths, that keep the newest message of each key:
    `{"state/**": {"delay": 60, "newest_bytes": 0, "tombstones": 86400}}`. The first pattern that matches counts."""

    registry_path: str = ""
    """Path of the stream that tells of created, closed and deleted streams, such as `__registry__`. Empty: none."""

    websocket_max_streams: int = 100
    """Streams that one WebSocket may follow at once."""

    websocket_max_frame_bytes: int = 1 * MIB
    """Largest frame that a WebSocket takes from its client, in bytes. An append is one frame."""

    path_patterns: tuple[str, ...] = ()
    """Patterns of paths at which HTTP clients may create streams, such as `chat/*`. Empty: all paths."""

    content_types: tuple[str, ...] = ()
    """Content types with which HTTP clients may create streams. Empty: all content types."""

    url_prefix: str = ""
    """The beginning of stream URLs in links: `/streams/` or `https://streams.example.com/v1/stream/`. Empty: the place
    where the URLs are included, or else `/v1/stream/`, the default of the ASGI application."""

    uvicorn_fast_path: bool = True
    """Whether uvicorn's connections answer plain stream requests themselves, where the application is served alone."""

    subscription_delivery: bool = True
    """Whether processes that serve streams also deliver wakes. Without it, run `manage.py streams_worker`."""

    consumer_task_backend: str = ""
    """Alias of the backend in Django's `TASKS` that runs consumers. Empty: `manage.py streams_worker` runs them."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may use the streams: `https://app.example.com`, or `*` for all origins."""

    cors_allow_headers: tuple[str, ...] = ()
    """Request headers that pages of other origins may send, besides those of the protocol, CSRF and tracing."""

    cache_scope: str = "private"
    """`public` lets caches, also shared ones, reuse data that everybody may read for a minute. `private` makes every
    cache ask the server each time. Data that not everybody may read is always private."""

    webhook_allowed_hosts: tuple[str, ...] = ()
    """Hosts to which webhooks may go although they are local, or without HTTPS: names, `.suffixes`, addresses and
    networks. Link-local addresses and metadata services of clouds are always refused."""

    webhook_timeout: float = 10.0
    """Seconds for one webhook: name, connection, request and response. The lease of the wake may end it earlier."""

    webhook_key_secret: str = field(default="", repr=False)
    """A random text that encrypts the private keys of webhooks in the database. Empty: they are not encrypted."""

    ai_runs_in: str = "process"
    """Where an AI answer with a dotted source is written: `process` is the process that starts it, `worker` is
    `manage.py streams_worker`, and `tasks` is Django's task framework."""

    ai_task_backend: str = "default"
    """Alias of the backend in Django's setting `TASKS` that writes AI answers, if `AI_RUNS_IN` is `tasks`."""

    ai_lease: float = 10.0
    """Seconds after which an AI answer whose process has vanished is continued or closed by another one."""

    ai_idle_timeout: float = 300.0
    """Seconds for which the source of an AI answer may be silent, before the answer ends as failed. 0: no limit."""

    ai_max_runs: int = 200
    """AI answers that one process writes at once. Workers leave more in the queue, others refuse them. 0: no limit."""

    ai_permission_class: str = "django_durable_streams.contrib.ai.permissions.OwnChats"
    """The dotted path of the class that decides who may use which chat."""


RANGES: Mapping[str, tuple[float, float]] = {
    # A database takes rows of a gigabyte at the most, and a driver may need twice as much on the way.
    "MAX_APPEND_BYTES": (1, 512 * MIB),
    "PAGE_BYTES": (1, 512 * MIB),
    "LONG_POLL_TIMEOUT": (0.001, HOUR),
    "SSE_DURATION": (0.001, 24 * HOUR),
    "SSE_KEEP_ALIVE": (0.001, HOUR),
    # A process that polls more often does nothing else.
    "POLL_INTERVAL": (0.001, HOUR),
    "WRITER_THREADS": (1, 64),
    "CACHE_BYTES": (0, math.inf),
    "GC_THRESHOLD": (0, 2**31 - 1),
    "MAX_LIVE_READERS": (0, math.inf),
    "AUTH_CACHE_SECONDS": (0, 24 * HOUR),
    # Receivers refuse older signatures.
    "WEBHOOK_TIMEOUT": (0.1, 240),
    "AI_LEASE": (1, HOUR),
    "AI_IDLE_TIMEOUT": (0, 24 * HOUR),
    "AI_MAX_RUNS": (0, math.inf),
}
"""The smallest and the largest valid number, by key. A number without an entry must be greater than zero."""

CHOICES: Mapping[str, tuple[str, ...]] = {
    "CACHE_SCOPE": ("private", "public"),
    "AI_RUNS_IN": ("process", "worker", "tasks"),
}
"""Valid texts, by key. A text without an entry may have any value."""

SECRETS = frozenset({"WEBHOOK_KEY_SECRET"})
"""Keys whose values no message shows."""

_TYPES: dict[Any, tuple[Any, str]] = {
    bool: (bool, "True or False"),
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    str: (str, "a text"),
    tuple: ((list, tuple), "a list"),
    Mapping: (Mapping, "a dict"),
}


class Finding(NamedTuple):
    """A problem with the setting: the id of its system check, the message, and what to do."""

    id: str
    message: str
    hint: str = ""


def findings(value: Any) -> list[Finding]:
    """Return the problems of a value of `DURABLE_STREAMS` that the value itself shows.

    E001: the value is no dict. E002: unknown key. E003: wrong type. E004: invalid value.
    """
    if not isinstance(value, Mapping):
        return [Finding("durable_streams.E001", f"{SETTING} must be a dict.", f"It is {value!r}.")]
    valid_keys = names()
    problems = [
        Finding("durable_streams.E002", f"{SETTING} has an unknown key: {key!r}.", _suggestion(str(key), valid_keys))
        for key in value
        if key not in valid_keys
    ]
    for name, kind in _kinds_of(Config).items():
        key = name.upper()
        if key in value and (problem := _type_problem(key, kind, value[key]) or _value_problem(key, value[key])):
            problems.append(problem)
    return problems


def _suggestion(key: str, valid_keys: list[str]) -> str:
    near = get_close_matches(key.upper(), valid_keys, n=1)
    return f"Did you mean {near[0]}?" if near else f"Known keys: {', '.join(valid_keys)}."


def _type_problem(key: str, hint: Any, value: Any) -> Finding | None:
    expected = _TYPES.get(get_origin(hint) or hint)
    if expected is None:
        return None
    kind, words = expected
    # Its type, not its class: lazy objects claim the class of their value, and have a part of its operations.
    if not issubclass(type(value), kind) or (isinstance(value, bool) and kind is not bool):
        if key in SECRETS:
            return Finding("durable_streams.E003", f"{key} must be {words}.")
        # The usual mistake is one text instead of a list: each of its letters would be an item.
        shown = f"Write [{value!r}]." if isinstance(value, str) and words == "a list" else f"It is {value!r}."
        return Finding("durable_streams.E003", f"{key} must be {words}.", shown)
    if words == "a list" and not all(issubclass(type(item), str) for item in value):
        return Finding("durable_streams.E003", f"{key} must be a list of texts.", f"It is {value!r}.")
    return None


def _value_problem(key: str, value: Any) -> Finding | None:
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


def refuse(problems: list[Finding]) -> None:
    """Raise one exception for all problems, if there are any.

    Raises:
        ImproperlyConfigured: the message lists each problem and what to do.
    """
    if problems:
        lines = [f"{problem.message} {problem.hint} ({problem.id})".replace("  ", " ") for problem in problems]
        raise ImproperlyConfigured("\n".join([f"The setting {SETTING} cannot be used.", *lines]))


def project_value() -> Any:
    """Return the value of the setting in the project, which may be invalid."""
    return getattr(settings, SETTING, {})


def _read() -> Config:
    value = project_value()
    refuse(findings(value))
    tuples = {name.upper() for name, kind in _kinds_of(Config).items() if get_origin(kind) is tuple}
    values: dict[str, Any] = {key.lower(): tuple(item) if key in tuples else item for key, item in value.items()}
    result = Config(**values)
    return result if project_value() == value else _read()  # in the end, as a test may change them until then


config = lru_cache(maxsize=1)(_read)
"""Return the settings in force.

Raises:
    ImproperlyConfigured: the setting is invalid. The message says why.
"""


def names() -> list[str]:
    """Return all valid keys of `DURABLE_STREAMS`."""
    return [setting.name.upper() for setting in fields(Config)]


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == SETTING:
        config.cache_clear()


setting_changed.connect(_forget, dispatch_uid="durable_streams.conf")
