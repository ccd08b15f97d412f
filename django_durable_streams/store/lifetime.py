"""The lifetime of streams: sliding TTLs and absolute expiry (section 5.1).

Each read restarts a sliding TTL. A write for each of these reads would be too much, so a deadline is a little later
than the TTL requires: the grace. A read writes only when the remaining time is shorter than the TTL, which is at most
once for each grace and stream. A stream never ends early, and it ends at most the grace late.
"""

from __future__ import annotations

from datetime import datetime, timedelta

MIN_GRACE = 0.5
"""Seconds. Less than the second within which readers must see the expiry."""

MAX_GRACE = 60.0
"""Seconds."""


def deadline(ttl: int | None, expires_at: datetime | None, now: datetime) -> datetime | None:
    """Return the time at which a stream ends that is used `now`, or None for never. `ttl` is in seconds."""
    if ttl is not None:
        return now + timedelta(seconds=ttl + min(max(ttl / 100, MIN_GRACE), MAX_GRACE))
    return expires_at


def needs_touch(ttl: int | None, current: datetime | None, now: datetime) -> bool:
    """Return whether a read `now` must write a new deadline, so that the stream lives for its whole TTL from now."""
    return ttl is not None and current is not None and current < now + timedelta(seconds=ttl)
