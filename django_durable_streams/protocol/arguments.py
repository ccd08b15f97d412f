"""Checks of the values of an operation, the same for HTTP, whose headers are parsed before, and for Python.

Each function returns a valid value, or raises the error for the client or caller. A `name` is that of the header or
argument, for the message. So a value that HTTP refuses does not reach the database from Python, and the reverse. The
one exception is a TTL of 0: clients may send it (section 5.1), and in Python it is a mistake for None.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from . import content, paths
from .errors import DurableStreamsError, InvalidHeader, InvalidOffset, InvalidPath
from .offsets import Offset, Sentinel
from .offsets import decode as decode_offset

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest producer epoch and sequence number: JavaScript counts exactly up to it (section 5.2.1)."""

MAX_TTL_SECONDS = 100 * 366 * 24 * 3600
"""A century. A stream without a TTL lives longer."""

MAX_NAME_LENGTH = 256
"""Characters in a Producer-Id and a Stream-Seq."""

MAX_SUB_OFFSET = 10**16 - 1
"""The largest number of messages or bytes after the offset of a fork."""

# Control characters, and unpaired surrogates, which no database stores.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def text(name: str, value: Any, error: type[DurableStreamsError]) -> str:
    """Return a text as a plain `str`, because drivers and encoders do not know subclasses such as `SafeString`.

    Raises:
        error: the value is no `str`.
    """
    if not isinstance(value, str):
        raise error(f"{name} must be a str, not {type(value).__name__}.")
    return str.__str__(value)


def path(value: Any) -> str:
    """Return the path of a stream (section 6).

    Raises:
        InvalidPath, StreamNotFound: no stream can have this path.
    """
    return paths.validate(text("path", value, InvalidPath))


def content_type(value: Any) -> str:
    """Return the content type of a stream (section 9).

    Raises:
        InvalidHeader: the value is no content type.
    """
    return content.validate(text("content_type", value, InvalidHeader))


def offset(value: Any) -> Offset | Sentinel:
    """Return the parsed offset or sentinel (section 8).

    Raises:
        InvalidOffset: the value is no offset.
    """
    return decode_offset(text("offset", value, InvalidOffset))


def integer(name: str, value: Any, smallest: int, largest: int, largest_text: str = "") -> int:
    """Return a whole number from `smallest` to `largest`. `largest_text` writes the latter in the message.

    Raises:
        InvalidHeader: the value is no whole number, or out of these bounds.
    """
    if type(value) is not int or not smallest <= value <= largest:
        raise InvalidHeader(f"{name} must be a whole number from {smallest} to {largest_text or largest}.")
    return value


def ttl(value: Any, name: str = "ttl", smallest: int = 1) -> int:
    """Return a TTL in seconds (section 5.1).

    Raises:
        InvalidHeader: the value is not from `smallest` seconds to a century.
    """
    if type(value) is not int or not smallest <= value <= MAX_TTL_SECONDS:
        raise InvalidHeader(f"{name} must be from {smallest} to {MAX_TTL_SECONDS} seconds.")
    return value


def expiry(value: Any, now: datetime, name: str = "expires_at") -> datetime:
    """Return the absolute expiry of a stream, in UTC (section 5.1).

    Raises:
        InvalidHeader: the value is no datetime, has no time zone, is not a date in UTC, or is not after `now`.
    """
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise InvalidHeader(f"{name} must be a datetime with a time zone, such as timezone.now() + timedelta(days=1).")
    try:
        moment = value.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidHeader(f"{name} is not a date of the calendar.") from error
    if moment <= now:
        raise InvalidHeader(f"{name} is in the past.")
    return moment


def lifetime(seconds: Any, moment: Any, now: datetime) -> tuple[int | None, datetime | None]:
    """Return the TTL in seconds and the expiry of a stream, of which at most one may be set.

    Raises:
        InvalidHeader: both are set, or one is invalid.
    """
    if seconds is not None and moment is not None:
        raise InvalidHeader("Give ttl or expires_at, not both.")
    return (None if seconds is None else ttl(seconds)), (None if moment is None else expiry(moment, now))


def opaque(name: str, value: Any) -> str:
    """Return an opaque name, such as a `Producer-Id` or a `Stream-Seq`, unchanged.

    Raises:
        InvalidHeader: the value is no text, is empty, has over 256 characters, or has control characters.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_NAME_LENGTH or _FORBIDDEN.search(value) is not None:
        raise InvalidHeader(f"{name} must have 1 to {MAX_NAME_LENGTH} characters, none of them control characters.")
    return str.__str__(value)


def sub_offset(value: Any, name: str = "sub_offset") -> int:
    """Return how far after its offset a fork is cut: in messages for JSON streams, else in bytes (section 4.2).

    Raises:
        InvalidHeader: the value is no whole number, is negative, or has over 16 digits.
    """
    return integer(name, value, 0, MAX_SUB_OFFSET)


def fork_offset(token: Any, name: str = "offset") -> Offset | None:
    """Return the offset at which a fork is cut. None: the source's tail.

    Raises:
        InvalidOffset: the token is not an offset that a stream returned.
    """
    return None if token is None else exact_offset(token, name, " Leave it out to fork at the tail.")


def exact_offset(token: Any, name: str, remedy: str = "") -> Offset:
    """Return a parsed offset that is no sentinel. `remedy` ends the message.

    Raises:
        InvalidOffset: the token is not an offset that a stream returned.
    """
    parsed = offset(token)
    if isinstance(parsed, Sentinel):
        raise InvalidOffset(f"{name} must be an offset that a stream returned.{remedy}")
    return parsed
