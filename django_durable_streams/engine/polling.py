"""Which watched streams the next poll queries: all of them while no messages arrive, and a part of them otherwise.

- Invariant: each watched stream is polled at least every `MAX_INTERVAL` seconds, or every `POLL_INTERVAL` if that is
  longer. A lost message delays a reader by no more than that.
- Gain: a poll of 20,000 streams four times a second takes a fifth of a core (docs/decisions/one-poll.md).
- Without a subscriber, each poll queries all streams.

Knows neither the database nor the readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from django.utils import timezone

from .. import clock
from ..conf import config
from ..store.stream_info import StreamInfo

MAX_INTERVAL = 5.0
"""Longest time, in seconds, between two polls of a stream while wake-up messages arrive."""

HOLD_SECONDS = 60.0
"""Time at the full rate after a poll has found a commit without a message.

Some process commits without Redis, or has lost it."""

SOON = timedelta(seconds=4 * MAX_INTERVAL)
"""A stream that expires within this time is polled at the full rate: its TTL may need a renewal."""


class PollSchedule:
    """The watched streams of one event loop, and when each was polled last."""

    def __init__(self) -> None:
        self._polled_at: dict[int, float] = {}
        """By stream, in the order of the polls."""
        self._expiring: set[int] = set()
        self._interval = 0.0
        self._grown_at = 0.0
        self._held_until = 0.0

    def due(self, watched: Mapping[int, StreamInfo], now: float, interval: float, *, receives: bool) -> list[int]:
        """Return the streams to poll now, and record that they are polled.

        Args:
            watched: all watched streams by id, as they were when their watches began.
            now: the monotonic time, in seconds.
            interval: seconds between two polls at the full rate.
            receives: whether wake-up messages arrive now.
        """
        self._update(watched, now)
        self._pace(now, interval, receives)
        due = list(watched) if self._interval <= interval else self._polled_longest_ago(now, interval)
        for stream_id in due:
            del self._polled_at[stream_id]
            self._polled_at[stream_id] = now
        return due

    def _polled_longest_ago(self, now: float, interval: float) -> list[int]:
        """Return a share of the streams, so that the load is even, and all streams that expire soon."""
        share = math.ceil(len(self._polled_at) * interval / self._interval)
        due: list[int] = []
        for stream_id, polled_at in self._polled_at.items():
            if now - polled_at < self._interval or len(due) >= share:
                break
            due.append(stream_id)
        due += self._expiring.difference(due)
        return due

    def seen(self, info: StreamInfo) -> None:
        """Record a stream as a poll has shown it. Its watch may have ended during the query."""
        is_watched = info.id in self._polled_at
        if is_watched and info.deadline is not None and info.deadline - timezone.now() < SOON:
            self._expiring.add(info.id)
        else:
            self._expiring.discard(info.id)

    def missed(self, now: float) -> None:
        """Record that a poll has found a commit without a message."""
        self._held_until = now + HOLD_SECONDS

    def _update(self, watched: Mapping[int, StreamInfo], now: float) -> None:
        for stream_id in [polled for polled in self._polled_at if polled not in watched]:
            del self._polled_at[stream_id]
            self._expiring.discard(stream_id)
        for stream_id, info in watched.items():
            if stream_id not in self._polled_at:
                self._polled_at[stream_id] = now
                self.seen(info)

    def _pace(self, now: float, interval: float, receives: bool) -> None:
        if not receives or now < self._held_until or self._interval < interval:
            self._interval, self._grown_at = interval, now
        elif now - self._grown_at >= 2 * self._interval:
            self._interval, self._grown_at = max(min(2 * self._interval, MAX_INTERVAL), interval), now


def needs_renewal(info: StreamInfo) -> bool:
    """Return whether a stream would expire soon although it has live readers."""
    if info.ttl is None or info.deadline is None:
        return False
    margin = max(info.ttl / 2, 3 * config().poll_interval)
    remaining = (info.deadline - clock.now()).total_seconds()
    return remaining < margin
