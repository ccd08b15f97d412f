"""Subscriptions as values, and the errors of requests about them (specification, sections 6 and 7).

`normalise` checks a configuration, whether it comes from a client or from Python. `subscription_bodies` reads the
bodies of requests. Knows neither the database nor how a request is allowed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from . import arguments
from .errors import DurableStreamsError, Header, InvalidHeader, InvalidPath, StreamNotFound
from .globs import glob
from .offsets import Offset, Sentinel

WEBHOOK = "webhook"
PULL_WAKE = "pull-wake"

INVALID_REQUEST = "INVALID_REQUEST"
WEBHOOK_URL_REJECTED = "WEBHOOK_URL_REJECTED"
SUBSCRIPTION_NOT_FOUND = "SUBSCRIPTION_NOT_FOUND"
SUBSCRIPTION_ALREADY_EXISTS = "SUBSCRIPTION_ALREADY_EXISTS"
FENCED = "FENCED"
ALREADY_CLAIMED = "ALREADY_CLAIMED"
NO_PENDING_WORK = "NO_PENDING_WORK"
INVALID_OFFSET = "INVALID_OFFSET"
TOKEN_INVALID = "TOKEN_INVALID"
TOKEN_EXPIRED = "TOKEN_EXPIRED"

MIN_LEASE_MS = 1_000
MAX_LEASE_MS = 600_000
DEFAULT_LEASE_MS = 30_000

MAX_URL_LENGTH = 2048
"""Characters of a webhook's URL."""

MAX_DESCRIPTION_LENGTH = 4096
"""Characters of a description."""

MAX_STREAMS = 1000
"""Streams that one request names, because one short transaction writes their links. A wake names no more either."""

MAX_GENERATION = 2**63 - 1

_CHALLENGE = ((b"www-authenticate", b'Bearer error="invalid_token"'),)


class SubscriptionError(DurableStreamsError):
    """A request about a subscription is refused.

    Args:
        code: the stable name of the error for programs, such as `FENCED`.
        status: HTTP status.
        message: one or two sentences for people.
        headers: response headers for clients.
        extra: more fields for programs.
    """

    title = "Subscription error"
    content_type = b"application/json"

    def __init__(
        self, code: str, status: int, message: str, *, headers: tuple[Header, ...] = (), **extra: object
    ) -> None:
        super().__init__(message, headers)
        self.error_code = code
        self.status = status
        self.extra = extra

    def problem(self) -> bytes:
        """Return the body of the response: an object with the one field `error`."""
        return msgspec.json.encode({"error": {"code": self.error_code, "message": self.detail, **self.extra}})


def invalid_request(message: str) -> SubscriptionError:
    """Return the error for a request that cannot be understood."""
    return SubscriptionError(INVALID_REQUEST, 400, message)


def own_wake_stream() -> SubscriptionError:
    """Return the error for a wake stream that is to wake its own subscription: each event would cause the next one."""
    return invalid_request("The wake stream of a subscription must not be one of its streams.")


def registry_as_wake_stream() -> SubscriptionError:
    """Return the error for wake events that are to go to the registry, which only the server writes."""
    return invalid_request("The wake stream must not be the registry of streams: only the server writes to it.")


def webhook_url_rejected(message: str) -> SubscriptionError:
    """Return the error for a webhook's URL to which this server sends nothing."""
    return SubscriptionError(WEBHOOK_URL_REJECTED, 400, message)


def subscription_not_found() -> SubscriptionError:
    """Return the error for an id without a subscription."""
    return SubscriptionError(SUBSCRIPTION_NOT_FOUND, 404, "There is no subscription with this id.")


def subscription_already_exists() -> SubscriptionError:
    """Return the error for a creation with another configuration."""
    return SubscriptionError(
        SUBSCRIPTION_ALREADY_EXISTS,
        409,
        "A subscription with this id has another configuration. Delete it first, or use another id.",
    )


def fenced() -> SubscriptionError:
    """Return the error for a request of an earlier wake, or of a lease that is over."""
    return SubscriptionError(FENCED, 409, "The wake is over, or a newer one has begun. Nothing was acknowledged.")


def already_claimed(holder: str, generation: int) -> SubscriptionError:
    """Return the error for a claim while a worker holds the lease."""
    return SubscriptionError(
        ALREADY_CLAIMED, 409, "Another worker holds the lease.", current_holder=holder, generation=generation
    )


def no_pending_work() -> SubscriptionError:
    """Return the error for a claim while all streams are acknowledged to their ends."""
    return SubscriptionError(NO_PENDING_WORK, 409, "No stream of the subscription has new data.")


def paused() -> SubscriptionError:
    """Return the error for a claim while an operator has paused the subscription: workers wait, as without work."""
    return SubscriptionError(NO_PENDING_WORK, 409, "The subscription is paused. Wait for the next wake event.")


def invalid_offset(message: str) -> SubscriptionError:
    """Return the error for an acknowledgement that the stream's state does not allow."""
    return SubscriptionError(INVALID_OFFSET, 409, message)


def token_invalid() -> SubscriptionError:
    """Return the error for a missing token, or one that does not belong to this subscription and purpose."""
    message = "The token of the wake is missing or invalid. Send it as Authorization: Bearer."
    return SubscriptionError(TOKEN_INVALID, 401, message, headers=_CHALLENGE)


def token_expired() -> SubscriptionError:
    """Return the error for a token whose time is over."""
    return SubscriptionError(TOKEN_EXPIRED, 401, "The token of the wake has expired.", headers=_CHALLENGE)


class SubscriptionConfig(NamedTuple):
    """How a subscription is configured (section 6.2). A value from `normalise` is valid.

    Fields that do not apply are empty: the URL of a pull-wake subscription, and the wake stream of a webhook.
    """

    kind: str
    """`webhook` or `pull-wake`."""
    pattern: str = ""
    streams: tuple[str, ...] = ()
    webhook_url: str = ""
    wake_stream: str = ""
    lease_ms: int = DEFAULT_LEASE_MS
    description: str = ""

    def digest(self) -> str:
        """Return the SHA-256 of the configuration, in hexadecimal digits. Equal configurations have equal ones."""
        return hashlib.sha256(msgspec.json.encode(tuple(self))).hexdigest()


class Ack(NamedTuple):
    """How far a worker has processed a stream, inclusive."""

    path: str
    offset: Offset | Sentinel


class WakeRequest(NamedTuple):
    """The body of a callback, an ack or a release: which wake it is about, and what it acknowledges."""

    wake_id: str
    generation: int
    acks: tuple[Ack, ...]
    done: bool


def opaque(name: str, value: Any) -> str:
    """Return an opaque name, such as a worker's, unchanged.

    Raises:
        SubscriptionError: the value is no text, is empty, has over 256 characters, or has control characters (400).
    """
    try:
        return arguments.opaque(name, value)
    except InvalidHeader as error:
        raise invalid_request(error.detail) from error


def subscription_id(value: Any) -> str:
    """Return the id of a subscription, unchanged.

    Raises:
        SubscriptionError: no subscription can have this id, because its URL would not be its own (400).
    """
    name = opaque("The id of a subscription", value)
    # Clients resolve "." and "..", some proxies turn a backslash into a slash, and servers put U+FFFD for bytes that
    # are not UTF-8.
    if name in (".", "..") or any(character in name for character in "/\\\ufffd"):
        raise invalid_request("The id of a subscription is UTF-8, has no slash and no backslash, and is not . or .. .")
    return name


def stream_path(value: Any) -> str:
    """Return the path of a stream without slashes at its ends.

    Raises:
        SubscriptionError: no stream can have this path (400).
    """
    try:
        return arguments.path(value.strip("/") if isinstance(value, str) else value)
    except (InvalidPath, StreamNotFound) as error:
        raise invalid_request(error.detail) from error


def stream_paths(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the paths of streams without slashes at their ends: sorted, each once.

    Raises:
        SubscriptionError: no stream can have one of these paths, or there are too many (400).
    """
    if isinstance(values, str):
        raise invalid_request("streams must be a list of paths.")
    chosen = tuple(sorted({stream_path(value) for value in values}))
    if len(chosen) > MAX_STREAMS:
        raise invalid_request(f"A request names at most {MAX_STREAMS} streams. Send several requests.")
    return chosen


def normalise(config: SubscriptionConfig) -> SubscriptionConfig:
    """Return the same configuration in its one normal form.

    It does not look at the address of a webhook's URL.

    Raises:
        SubscriptionError: the configuration is invalid (400).
    """
    kind, lease_ms = config.kind, config.lease_ms
    if kind not in (WEBHOOK, PULL_WAKE):
        raise invalid_request(f"type must be {WEBHOOK} or {PULL_WAKE}.")
    pattern, streams = _pattern(config.pattern), stream_paths(config.streams)
    if not pattern and not streams:
        raise invalid_request("Give a pattern, or streams, or both.")
    if kind == WEBHOOK:
        webhook_url, wake_stream = _url(config.webhook_url), ""
    else:
        webhook_url, wake_stream = "", _wake_stream(config.wake_stream, pattern, streams)
    if type(lease_ms) is not int or not MIN_LEASE_MS <= lease_ms <= MAX_LEASE_MS:
        raise invalid_request(f"lease_ttl_ms must be a whole number from {MIN_LEASE_MS} to {MAX_LEASE_MS}.")
    description = _description(config.description)
    return SubscriptionConfig(kind, pattern, streams, webhook_url, wake_stream, lease_ms, description)


def _pattern(value: Any) -> str:
    try:
        text = arguments.text("pattern", value, InvalidPath).strip("/")
        return glob(text).text if text else ""
    except (InvalidPath, StreamNotFound) as error:
        raise invalid_request(error.detail) from error


def _url(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise invalid_request("A webhook subscription needs webhook.url.")
    if len(value) > MAX_URL_LENGTH or not value.isprintable():
        raise invalid_request(f"webhook.url must have at most {MAX_URL_LENGTH} characters, none of them invisible.")
    return str.__str__(value)


def _wake_stream(value: Any, pattern: str, streams: tuple[str, ...]) -> str:
    if not value:
        raise invalid_request("A pull-wake subscription needs wake_stream.")
    path = stream_path(value)
    if path in streams or (pattern and glob(pattern).matches(path)):
        raise own_wake_stream()
    return path


def _description(value: Any) -> str:
    # PostgreSQL stores no NUL, and no database an unpaired surrogate.
    if not isinstance(value, str) or len(value) > MAX_DESCRIPTION_LENGTH or "\0" in value or not _is_unicode(value):
        raise invalid_request(f"description must be text of at most {MAX_DESCRIPTION_LENGTH} characters without NUL.")
    return str.__str__(value)


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
