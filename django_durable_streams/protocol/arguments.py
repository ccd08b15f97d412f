"""What the values of a request have to be, whoever makes it: HTTP, once a header is read, and Python.

Every function takes a value under the name by which its giver knows it, and returns it, or raises the error that the
client, or the caller, gets. So a value that the one refuses never reaches the database by the other.
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
"""The largest producer epoch and sequence number: what JavaScript counts exactly (section 5.2.1)."""

MAX_TTL_SECONDS = 100 * 366 * 24 * 3600
"""A century. Longer lives are better said by leaving the TTL out."""

MAX_NAME_LENGTH = 256
"""Characters in a Producer-Id and a Stream-Seq."""

MAX_SUB_OFFSET = 10**16 - 1
"""The largest number of messages or bytes past the offset of a fork."""

# Control characters, and halves of surrogate pairs, which no database stores.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def text(name: str, value: Any, error: type[DurableStreamsError]) -> str:
    """Return a text as a plain `str`: drivers and encoders know no subclass, such as a template's safe text.

    Raises:
        error: it is none.
    """
    if not isinstance(value, str):
        raise error(f"{name} must be a str, not {type(value).__name__}.")
    return str.__str__(value)


def path(value: Any) -> str:
    """Return the path of a stream (section 6).

    Raises:
        InvalidPath, StreamNotFound: no stream can have it.
    """
    return paths.validate(text("path", value, InvalidPath))


def content_type(value: Any) -> str:
    """Return the content type of a stream.

    Raises:
        InvalidHeader: it is none.
    """
    return content.validate(text("content_type", value, InvalidHeader))


def offset(value: Any) -> Offset | Sentinel:
    """Return what an offset says (section 8).

    Raises:
        InvalidOffset: it is none.
    """
    return decode_offset(text("offset", value, InvalidOffset))


def integer(name: str, value: Any, smallest: int, largest: int, largest_text: str = "") -> int:
    """Return a whole number between two others.

    Raises:
        InvalidHeader: it is none, or out of these bounds.
    """
    if type(value) is not int or not smallest <= value <= largest:
        raise InvalidHeader(f"{name} must be a whole number from {smallest} to {largest_text or largest}.")
    return value


def ttl(value: Any, name: str = "ttl") -> int:
    """Return a TTL in seconds (section 5.1).

    Raises:
        InvalidHeader: not from one second to a century.
    """
    if type(value) is not int or not 0 < value <= MAX_TTL_SECONDS:
        raise InvalidHeader(f"{name} must be from 1 to {MAX_TTL_SECONDS} seconds.")
    return value


def expiry(value: Any, now: datetime, name: str = "expires_at") -> datetime:
    """Return the absolute end of a stream, in UTC (section 5.1).

    Raises:
        InvalidHeader: no datetime, one without a time zone, no date of the calendar in UTC, or not after `now`.
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
    """Return the TTL and the expiry of a stream, of which there may be one.

    Raises:
        InvalidHeader: both are given, or one is none.
    """
    if seconds is not None and moment is not None:
        raise InvalidHeader("Give ttl or expires_at, not both.")
    return (None if seconds is None else ttl(seconds)), (None if moment is None else expiry(moment, now))


def opaque(name: str, value: Any) -> str:
    """Return an opaque name, such as a producer's or a `Stream-Seq`, as it came.

    Raises:
        InvalidHeader: no text, empty, over 256 characters, or with characters that are none of text.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_NAME_LENGTH or _FORBIDDEN.search(value) is not None:
        raise InvalidHeader(f"{name} must have 1 to {MAX_NAME_LENGTH} characters, none of them control characters.")
    return str.__str__(value)


def sub_offset(value: Any, name: str = "sub_offset") -> int:
    """Return how far behind its offset a fork is cut: in messages for JSON streams, else in bytes (section 4.2).

    Raises:
        InvalidHeader: no whole number, or a negative one, or one of over 16 digits.
    """
    return integer(name, value, 0, MAX_SUB_OFFSET)


def fork_offset(token: Any, name: str = "offset") -> Offset | None:
    """Return where a fork is cut; None for the source's tail.

    Raises:
        InvalidOffset: it is no offset that a stream has returned.
    """
    if token is None:
        return None
    found = offset(token)
    if isinstance(found, Sentinel):
        raise InvalidOffset(f"{name} is an offset that a stream has returned; leave it out for the tail.")
    return found
