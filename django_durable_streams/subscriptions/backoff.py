"""The time until another attempt, after attempts that have failed (specification, section 7.1)."""

from __future__ import annotations

import random

MIN_BACKOFF, MAX_BACKOFF = 1.0, 60.0
"""Seconds until another attempt, after the first failure and at most."""

MIN_REMINDER, MAX_REMINDER = 60.0, 3600.0
"""Seconds until a wake that nobody claims is written to its wake stream again, after the first time and at most."""

JITTER = 0.2
"""Part by which such a time varies, so that receivers that failed together are not called together."""


def backoff(failures: int) -> float:
    """Return the seconds until another attempt, after a number of failures."""
    return _doubled(MIN_BACKOFF, MAX_BACKOFF, failures)


def reminder(notices: int) -> float:
    """Return the seconds until a wake is written again, after a number of times."""
    return _doubled(MIN_REMINDER, MAX_REMINDER, notices)


def _doubled(least: float, most: float, times: int) -> float:
    seconds = min(least * 2.0 ** min(times - 1, 10), most)
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)
