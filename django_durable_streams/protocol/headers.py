"""Names of the protocol's headers and the strict reading of their values (specification, sections 5 and 13.2).

Names are lower-case bytes, as ASGI passes them. A reader takes the value as text and returns what it means, or raises
the error that the client should get. What comes with every append is read from the bytes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

from .errors import InvalidHeader

STREAM_NEXT_OFFSET = b"stream-next-offset"
STREAM_UP_TO_DATE = b"stream-up-to-date"
STREAM_CURSOR = b"stream-cursor"
STREAM_CLOSED = b"stream-closed"
STREAM_SEQ = b"stream-seq"
STREAM_TTL = b"stream-ttl"
STREAM_EXPIRES_AT = b"stream-expires-at"
STREAM_FORKED_FROM = b"stream-forked-from"
STREAM_FORK_OFFSET = b"stream-fork-offset"
STREAM_FORK_SUB_OFFSET = b"stream-fork-sub-offset"
STREAM_SSE_DATA_ENCODING = b"stream-sse-data-encoding"
PRODUCER_ID = b"producer-id"
PRODUCER_EPOCH = b"producer-epoch"
PRODUCER_SEQ = b"producer-seq"
PRODUCER_EXPECTED_SEQ = b"producer-expected-seq"
PRODUCER_RECEIVED_SEQ = b"producer-received-seq"

CONTENT_TYPE = b"content-type"
CONTENT_LENGTH = b"content-length"
CONTENT_ENCODING = b"content-encoding"
ACCEPT_ENCODING = b"accept-encoding"
CACHE_CONTROL = b"cache-control"
ETAG = b"etag"
IF_NONE_MATCH = b"if-none-match"
LOCATION = b"location"
RETRY_AFTER = b"retry-after"
AUTHORIZATION = b"authorization"
ALLOW = b"allow"

SINGLE = frozenset(
    {
        AUTHORIZATION,
        CONTENT_TYPE,
        CONTENT_LENGTH,
        STREAM_CLOSED,
        STREAM_SEQ,
        STREAM_TTL,
        STREAM_EXPIRES_AT,
        STREAM_FORKED_FROM,
        STREAM_FORK_OFFSET,
        STREAM_FORK_SUB_OFFSET,
        PRODUCER_ID,
        PRODUCER_EPOCH,
        PRODUCER_SEQ,
    }
)
"""Request headers that mean nothing when they come twice; a doubled one is refused."""

LISTS = {IF_NONE_MATCH: b", ", CONTENT_ENCODING: b", ", b"cookie": b"; ", b"x-forwarded-for": b", "}
"""Request headers that may come in several lines, and what joins them."""

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest producer epoch and sequence number: what JavaScript counts exactly (section 5.2.1)."""

MAX_TTL_SECONDS = 100 * 366 * 24 * 3600
"""A century. Longer lives are better said by leaving the TTL out."""

MAX_NAME_LENGTH = 256
"""Characters in a Producer-Id and a Stream-Seq."""

_INTEGER = re.compile(r"0|[1-9][0-9]*")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_coded(value: str) -> bool:
    """Whether a `Content-Encoding` says that a body has to be decoded before it is what was meant."""
    return any(coding.strip(" \t").lower() not in ("", "identity") for coding in value.split(","))


def is_true(value: str) -> bool:
    """Whether a `Stream-Closed` value means closure: `true` in any case, nothing else (section 4.1)."""
    return value.lower() == "true"


def ttl(value: str) -> int:
    """Return a `Stream-TTL` in seconds (section 5.1).

    Raises:
        InvalidHeader: not a positive decimal integer without sign, zeros in front, or fraction, or over a century.
    """
    if _INTEGER.fullmatch(value) is None:
        raise InvalidHeader("Stream-TTL must be a whole number of seconds in decimal digits, such as 3600.")
    # The length first: turning a million digits into a number takes seconds.
    seconds = int(value) if len(value) <= 12 else MAX_TTL_SECONDS + 1
    if not 0 < seconds <= MAX_TTL_SECONDS:
        raise InvalidHeader(f"Stream-TTL must be from 1 to {MAX_TTL_SECONDS} seconds.")
    return seconds


def expires_at(value: str, now: datetime) -> datetime:
    """Return a `Stream-Expires-At` as an aware time in UTC (section 5.1). Digits below a microsecond are dropped.

    Raises:
        InvalidHeader: not an RFC 3339 timestamp, no date of the calendar, or not after `now`.
    """
    match = _RFC3339.fullmatch(value)
    if match is None:
        raise InvalidHeader("Stream-Expires-At must be an RFC 3339 timestamp, such as 2030-01-31T12:00:00Z.")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    microsecond = int((match[7] or "0")[:6].ljust(6, "0"))
    # RFC 3339 writes leap seconds as :60; clocks here have none, so it is the second before.
    second = min(second, 59) if second == 60 else second
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    try:
        zone = timezone(-offset if match[8] == "-" else offset)
        moment = datetime(year, month, day, hour, minute, second, microsecond, zone).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidHeader("Stream-Expires-At is not a date of the calendar.") from error
    if moment <= now:
        raise InvalidHeader("Stream-Expires-At is in the past.")
    return moment


def format_time(moment: datetime) -> str:
    """Return an aware time as RFC 3339 in UTC, with a fraction only where there is one."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def sub_offset(value: str) -> int:
    """Return a `Stream-Fork-Sub-Offset`: messages in JSON mode, else bytes (section 4.2).

    Raises:
        InvalidHeader: not a decimal integer without sign and zeros in front.
    """
    if _INTEGER.fullmatch(value) is None or len(value) > 16:
        raise InvalidHeader("Stream-Fork-Sub-Offset must be a whole number in decimal digits, 0 or more.")
    return int(value)


def text(value: bytes) -> str:
    """Return a header's value as text, without the white space around it."""
    return value.decode("latin-1").strip(" \t")  # no-break spaces are text


def producer_number(name: str, value: bytes) -> int:
    """Return a `Producer-Epoch` or `Producer-Seq` (section 5.2.1). `name` is the header's, for the message.

    Raises:
        InvalidHeader: not decimal digits, or over 2^53-1.
    """
    digits = value.strip(b" \t")
    number = int(digits) if digits.isdigit() and len(digits) <= 32 else -1
    if not 0 <= number <= MAX_SAFE_INTEGER:
        raise InvalidHeader(f"{name} must be a whole number from 0 to 2^53-1 in decimal digits.")
    return number


def opaque(name: str, value: str) -> str:
    """Return an opaque name such as a `Producer-Id` or `Stream-Seq` as it came.

    Raises:
        InvalidHeader: empty, over 256 characters, or with control characters.
    """
    if not value or len(value) > MAX_NAME_LENGTH or _CONTROL.search(value) is not None:
        raise InvalidHeader(f"{name} must have 1 to {MAX_NAME_LENGTH} characters, none of them control characters.")
    return value
