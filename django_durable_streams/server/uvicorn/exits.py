"""Counts the requests that leave the fast path, by the reason: an operator may be able to remove it.

Knows heads of requests, and decides nothing.
"""

from __future__ import annotations

from functools import lru_cache

from ...conf import config
from .. import request_numbers
from .request_heads import MAX_BYTES, Head

_HEADERS = {
    b"\r\nx-forwarded-": "proxy",
    b"\r\ntransfer-encoding:": "chunked",
    b"\r\nexpect:": "expect",
    b"\r\nupgrade:": "upgrade",
}

REASONS = (*_HEADERS.values(), "head", "partial_head", "path", "size", "body")
"""`head`: another head that the fast path does not parse. `partial_head`: the end of the head has not arrived yet, or
the head is too long. `path`: not below the prefix of the streams. `size`: the body is too large. `body`: of a method
without one."""


def count_exit(head: Head | None, data: bytes, end: int, prefix: str) -> None:
    """Count a request.

    Args:
        head: the parsed head. None: it was not parsed.
        data: what has arrived.
        end: where the head ends in it, or -1.
        prefix: the path below which the streams are.
    """
    if head is not None:
        reason = "path" if not head.path.startswith(prefix) else "body"
        reason = "size" if reason == "body" and head.content_length > config().max_append_bytes else reason
    else:
        reason = _reason(data[:end]) if 0 < end < MAX_BYTES else "partial_head"
    request_numbers.fast_path_exits.here()[reason] += 1


@lru_cache(maxsize=256)
def _reason(head: bytes) -> str:
    lower = head.lower()
    return next((reason for start, reason in _HEADERS.items() if start in lower), "head")
