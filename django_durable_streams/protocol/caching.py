"""What lets caches and CDNs share reads: cursors, entity tags, what may be stored (specification, section 10)."""

from __future__ import annotations

import random
import re
from enum import Enum
from functools import lru_cache

CURSOR_EPOCH = 1_728_432_000
"""2024-10-09T00:00:00Z in Unix seconds: where intervals are counted from (section 10.1)."""

CURSOR_INTERVAL = 20
"""Seconds in an interval."""

MAX_JITTER = 3600
"""Seconds by which a cursor may be moved ahead."""


class Caching(Enum):
    """What caches may do with an answer, as far as the protocol goes. Who may read it decides about the rest."""

    NEVER = "true only now: not stored"
    REVALIDATE = "it may change: stored, and used only after asking the server"
    DATA = "bytes at a position, which never change"

    # Members are one of a kind. Enum's own hash is written in Python, and felt at each request.
    __hash__ = object.__hash__


NO_STORE = b"no-store"
NO_CACHE = b"no-cache"
PRIVATE = b"private, no-cache"
PUBLIC = b"public, max-age=60, stale-while-revalidate=300"


def cache_control(caching: Caching, *, everybody_reads: bool, shared: bool) -> bytes:
    """Return the `Cache-Control` of the answer to a read (section 10.1).

    What not everybody may read is revalidated each time, so that no cache shows it to somebody else, and so that it is
    not shown once the stream or the permission is gone. Only caches that a project has asked for keep data without
    that, and show it for that much longer.

    Args:
        everybody_reads: whether the streams can be read by everybody.
        shared: whether the project wants shared caches to keep data, as CACHE_SCOPE says.
    """
    if caching is Caching.NEVER:
        return NO_STORE
    if not everybody_reads:
        return PRIVATE
    if caching is Caching.REVALIDATE:
        return NO_CACHE
    return PUBLIC if shared else PRIVATE


# A cursor is a number of some digits; anything else that a client sends is no cursor of ours.
_CURSOR = re.compile(r"[0-9]{1,15}")
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def interval(now: float) -> int:
    """Return the number of the cursor interval at `now`, in Unix seconds."""
    return int(now - CURSOR_EPOCH) // CURSOR_INTERVAL


def cursor_floor(client_cursor: str | None, now: float) -> int:
    """Return the smallest cursor that may answer a client who sent `client_cursor`.

    It is strictly greater than the client's once that has reached the current interval, by a random amount, so that
    no cache can hand a client the same URL twice for ever. The amount is drawn once in an interval for all who send the
    same: they stay together, and what answers one of them can be shared by all.
    """
    current = interval(now)
    if client_cursor is None or _CURSOR.fullmatch(client_cursor) is None:
        return current
    return _floor(int(client_cursor), current)


@lru_cache(maxsize=1024)
def _floor(sent: int, current: int) -> int:
    if sent < current:
        return current
    return sent + max(1, -(-random.randint(1, MAX_JITTER) // CURSOR_INTERVAL))


def etag(generation: int, start: int, end: int, closed: bool) -> bytes:
    """Return the entity tag of a read.

    Args:
        generation: the stream's, so that a stream made anew at a path has tags of its own.
        start: position that the read starts from, in bytes.
        end: position after what it returns.
        closed: the response says that the stream is closed (section 10.1, "ETag and Stream Closure").
    """
    return b'"%x:%x:%x%s"' % (generation, start, end, b":c" if closed else b"")


def matches(if_none_match: str, tag: bytes) -> bool:
    """Whether an `If-None-Match` value names `tag`: a star, or a list of tags, weak ones too (RFC 9110, 13.1.2)."""
    wanted = tag.decode("latin-1")
    return if_none_match == wanted or if_none_match.strip() == "*" or wanted in _ENTITY_TAG.findall(if_none_match)
