"""How long streams live: sliding TTLs and absolute expiry (specification, section 5.1).

A sliding TTL starts anew with every read. To write each of those would turn reads into writes, so a deadline is set a
little later than the TTL asks (the grace), and a read writes only when the remaining time falls short of the TTL:
at most once per grace period and stream. A stream never ends early, and at most the grace late.
"""

from __future__ import annotations

from datetime import datetime, timedelta

MIN_GRACE = 0.5
"""Seconds. Below the second within which expiry has to show."""

MAX_GRACE = 60.0


def deadline(ttl: int | None, expires_at: datetime | None, now: datetime) -> datetime | None:
    """Return when a stream that is used `now` ends, or None for never. `ttl` is in seconds."""
    if ttl is not None:
        return now + timedelta(seconds=ttl + min(max(ttl / 100, MIN_GRACE), MAX_GRACE))
    return expires_at


def needs_touch(ttl: int | None, current: datetime | None, now: datetime) -> bool:
    """Whether a read `now` has to move the deadline for the stream to live its whole TTL from now."""
    return ttl is not None and current is not None and current < now + timedelta(seconds=ttl)
