"""Rules for caches and CDNs: cursors, entity tags and `Cache-Control` (specification, section 10)."""

from __future__ import annotations

import random
import re
from enum import Enum
from functools import lru_cache

CURSOR_EPOCH = 1_728_432_000
"""2024-10-09T00:00:00Z in Unix seconds, from which intervals are counted (section 10.1)."""

CURSOR_INTERVAL = 20
"""Length of an interval in seconds."""

MAX_JITTER = 3600
"""Most seconds by which a cursor is moved ahead."""


class Caching(Enum):
    """What the protocol allows caches to do with a response. `cache_control` also considers who may read it."""

    NEVER = "true only now: not stored"
    REVALIDATE = "it may change: stored, and used only after asking the server"
    DATA = "bytes at a position, which never change"
    KEYS = "public keys, which everybody may have for some minutes (section 6.5)"

    # Members are singletons. Enum's own hash is written in Python, and costs time at each request.
    __hash__ = object.__hash__


NO_STORE = b"no-store"
NO_CACHE = b"no-cache"
PRIVATE = b"private, no-cache"
PUBLIC = b"public, max-age=60, stale-while-revalidate=300"
KEYS = b"public, max-age=300"


def cache_control(caching: Caching, *, everybody_reads: bool, shared: bool) -> bytes:
    """Return the `Cache-Control` of the response to a read (section 10.1).

    Responses that not everybody may read are revalidated each time. So no cache shows them to another user, or after
    the stream or the permission is gone. Caches reuse data without revalidation only if the project wants it, and then
    show deleted data for a minute more.

    Args:
        caching: what the protocol allows.
        everybody_reads: whether everybody may read all streams.
        shared: whether the project lets shared caches reuse data (CACHE_SCOPE).
    """
    if caching is Caching.NEVER:
        return NO_STORE
    if caching is Caching.KEYS:
        return KEYS
    if not everybody_reads:
        return PRIVATE
    if caching is Caching.REVALIDATE:
        return NO_CACHE
    return PUBLIC if shared else PRIVATE


# Other values of clients are no cursors of this server. Python reads and writes numbers of this length fast.
_CURSOR = re.compile(r"[0-9]{1,256}")
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


def interval(now: float) -> int:
    """Return the number of the cursor interval at a time in Unix seconds."""
    return int(now - CURSOR_EPOCH) // CURSOR_INTERVAL


def cursor_floor(client_cursor: str | None, now: float) -> int:
    """Return the smallest cursor for the response to a client that sent `client_cursor` (section 10.1).

    If the client's cursor has reached the current interval, the new one is greater by a random amount. So no cache can
    return the same response to a client forever. All clients with the same cursor get the same amount within an
    interval, so they can share a response.
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


def etag(generation: int, start: int, end: int, closed: bool, removed: int = 0) -> bytes:
    """Return the entity tag of a read.

    Args:
        generation: generation of the stream, so that a later stream at the same path has other tags.
        start: position at which the read starts, in bytes.
        end: position after the last returned byte.
        closed: whether the response says that the stream is closed (section 10.1, "ETag and Stream Closure").
        removed: bytes between both positions that key compaction has removed.
    """
    gone = b":%x" % removed if removed else b""
    return b'"%x:%x:%x%s%s"' % (generation, start, end, gone, b":c" if closed else b"")


def matches(if_none_match: str, tag: bytes) -> bool:
    """Whether an `If-None-Match` value matches `tag`: a star, or a list with it, weak or not (RFC 9110, 13.1.2)."""
    name = tag.decode("latin-1")
    return if_none_match == name or if_none_match.strip() == "*" or name in _ENTITY_TAG.findall(if_none_match)
