"""Names of the protocol's headers, and strict parsers of their values (specification, sections 5 and 13.2).

Names are lower-case bytes, as ASGI passes them. A parser takes the value as text, and returns its meaning or raises the
error for the client. Parsers of headers that come with every append take bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone

from . import arguments
from .arguments import MAX_SAFE_INTEGER, MAX_TTL_SECONDS
from .errors import Header, InvalidHeader, InvalidOffset
from .offsets import Offset

STREAM_NEXT_OFFSET = b"stream-next-offset"
STREAM_FIRST_OFFSET = b"stream-first-offset"
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
TRANSFER_ENCODING = b"transfer-encoding"
UPGRADE = b"upgrade"
CONNECTION = b"connection"
CONTENT_ENCODING = b"content-encoding"
ACCEPT_ENCODING = b"accept-encoding"
CACHE_CONTROL = b"cache-control"
ETAG = b"etag"
IF_MATCH = b"if-match"
IF_NONE_MATCH = b"if-none-match"
LAST_EVENT_ID = b"last-event-id"
LOCATION = b"location"
RETRY_AFTER = b"retry-after"
AUTHORIZATION = b"authorization"
ALLOW = b"allow"

HOST = b"host"
ORIGIN = b"origin"
COOKIE = b"cookie"
FORWARDED_FOR = b"x-forwarded-for"
FORWARDED_PROTO = b"x-forwarded-proto"
VARY = b"vary"
CONTENT_DISPOSITION = b"content-disposition"

_SINGLE = frozenset({HOST, AUTHORIZATION, CONTENT_TYPE, CONTENT_LENGTH, ORIGIN, LAST_EVENT_ID, IF_MATCH})
_SINGLE_PREFIXES = (b"stream-", b"producer-")
_JOINABLE = frozenset(
    {
        AUTHORIZATION,
        CONTENT_TYPE,
        ORIGIN,
        LAST_EVENT_ID,
        IF_MATCH,
        STREAM_CLOSED,
        STREAM_TTL,
        STREAM_EXPIRES_AT,
        STREAM_FORK_OFFSET,
        STREAM_FORK_SUB_OFFSET,
        PRODUCER_EPOCH,
        PRODUCER_SEQ,
    }
)
"""Headers with one value that has no comma outside of quotes, so lines that were joined can be told. Opaque values may
have commas. `Host` and `Content-Length` are left out: servers and proxies take requests apart by them, and all have to
read the same (RFC 9112, section 11.2)."""


_PARTS = re.compile(rb'(?:"(?:[^"\\]|\\.?)*(?:"|\Z)|[^,"])+', re.DOTALL)
"""The parts between commas outside of quotes. An unclosed quote extends to the end, so no byte is read twice."""


def is_single(name: bytes) -> bool:
    """Whether a request header has one value, and is not a list."""
    return name in _SINGLE or name.startswith(_SINGLE_PREFIXES)


def by_name(pairs: Sequence[Header]) -> dict[bytes, bytes]:
    """Return request headers by name, the same at all entry points.

    A header with one value may be repeated with the same value, in several lines or in one line with commas, because
    servers and proxies join lines (RFC 9110, section 5.3). Lines of any other header are joined, cookies as RFC 6265
    has it, section 5.4. So two parts of the server never use two different values of a header.

    Raises:
        InvalidHeader: a header with one value came with different ones.
    """
    fields = dict(pairs)
    if len(fields) != len(pairs):
        return _merge_repeated(pairs)
    for name in _JOINABLE.intersection(fields):  # faster than a look at each header
        if b"," in fields[name]:
            fields[name] = single_value(name, fields[name])
    return fields


def _merge_repeated(pairs: Sequence[Header]) -> dict[bytes, bytes]:
    merged: dict[bytes, bytes] = {}
    for name, line in pairs:
        value, earlier = single_value(name, line), merged.get(name)
        if earlier is None:
            merged[name] = value
        elif not is_single(name):
            merged[name] = earlier + (b"; " if name == COOKIE else b", ") + value
        elif earlier.strip(b" \t") != value.strip(b" \t"):
            raise _different_values(name)
    return merged


def single_value(name: bytes, value: bytes) -> bytes:
    """Return the one value of a header whose lines were perhaps joined by commas.

    Lists, values that may contain commas, and headers that no server may join are returned unchanged.

    Raises:
        InvalidHeader: a header with one value came with different ones.
    """
    if b"," not in value or name not in _JOINABLE:
        return value
    parts: list[bytes] = _PARTS.findall(value)
    values = {part.strip(b" \t") for part in parts}
    if len(values) == 1 and len(b",".join(parts)) == len(value):  # otherwise a line was empty
        return values.pop()
    if name == AUTHORIZATION:  # some schemes have parameters
        return value
    raise _different_values(name)


def _different_values(name: bytes) -> InvalidHeader:
    return InvalidHeader(f"{name.decode('latin-1').title()} came several times with different values.")


_INTEGER = re.compile(r"0|[1-9][0-9]*")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)


def is_coded(value: str) -> bool:
    """Whether a `Content-Encoding` says that the body is compressed or encoded otherwise."""
    return any(coding.strip(" \t").lower() not in ("", "identity") for coding in value.split(","))


def is_true(value: str) -> bool:
    """Whether a `Stream-Closed` value means closure: `true` in any case, nothing else (section 4.1)."""
    return value.lower() == "true"


def ttl(value: str, smallest: int = 0) -> int:
    """Return a `Stream-TTL` in seconds (section 5.1). A stream with 0 expires as soon as it is created.

    Raises:
        InvalidHeader: not a decimal integer without sign, leading zeros and fraction, or not from `smallest` to a
            century.
    """
    if _INTEGER.fullmatch(value) is None:
        raise InvalidHeader("Stream-TTL must be a whole number of seconds in decimal digits, such as 3600.")
    # The length first: `int` of a million digits takes seconds.
    return arguments.ttl(int(value) if len(value) <= 12 else MAX_TTL_SECONDS + 1, "Stream-TTL", smallest)


def expires_at(value: str, now: datetime) -> datetime:
    """Return a `Stream-Expires-At` as an aware time in UTC (section 5.1), cut to microseconds.

    Raises:
        InvalidHeader: not an RFC 3339 timestamp, not a date of the calendar, or not after `now`.
    """
    match = _RFC3339.fullmatch(value)
    if match is None:
        raise InvalidHeader("Stream-Expires-At must be an RFC 3339 timestamp, such as 2030-01-31T12:00:00Z.")
    year, month, day, hour, minute, second = (int(part) for part in match.groups()[:6])
    microsecond = int((match[7] or "0")[:6].ljust(6, "0"))
    # RFC 3339 writes a leap second as :60. Python has none, so this uses the second before.
    second = min(second, 59) if second == 60 else second
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    try:
        zone = timezone(-offset if match[8] == "-" else offset)
        moment = datetime(year, month, day, hour, minute, second, microsecond, zone)
    except (ValueError, OverflowError) as error:
        raise InvalidHeader("Stream-Expires-At is not a date of the calendar.") from error
    return arguments.expiry(moment, now, "Stream-Expires-At")


def format_time(moment: datetime) -> str:
    """Return an aware time as RFC 3339 in UTC, with a fraction only if it has one."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def sub_offset(value: str) -> int:
    """Return a `Stream-Fork-Sub-Offset`: messages in JSON mode, else bytes (section 4.2).

    Raises:
        InvalidHeader: not a decimal integer without sign and leading zeros.
    """
    if _INTEGER.fullmatch(value) is None or len(value) > 16:
        raise InvalidHeader("Stream-Fork-Sub-Offset must be a whole number in decimal digits, 0 or more.")
    return int(value)


def if_match(value: str) -> Offset:
    """Return the offset at which an append expects the tail: an `If-Match` with or without quotes.

    Raises:
        InvalidHeader: not exactly one offset, such as a list, a weak tag, `*`, `-1` or `now`.
    """
    token = value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    try:
        return arguments.exact_offset(token, "If-Match")
    except InvalidOffset as error:
        raise InvalidHeader("If-Match must be one offset, exactly as a Stream-Next-Offset of the stream.") from error


def text(value: bytes) -> str:
    """Return a header's value as text, without the white space around it."""
    return value.decode("latin-1").strip(" \t")  # a no-break space belongs to the value


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


opaque = arguments.opaque
"""Return an opaque name, such as a `Producer-Id` or a `Stream-Seq`, unchanged."""
