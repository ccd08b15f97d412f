"""When to look at which watched streams: often where nothing else tells of news, and rarely while news arrive.

Knows neither the database nor who waits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta

from django.utils import timezone

from ..store.stream_info import StreamInfo

MAX_INTERVAL = 5.0
"""Seconds between two looks at a stream, at the most, while a subscriber hears of all news."""

HOLD_SECONDS = 60.0
"""How long nobody relies on news after some did not come: a process without Redis commits, or one that has lost it."""

SOON = timedelta(seconds=4 * MAX_INTERVAL)
"""A stream that ends so soon is always looked at often: it may have to be touched, or its readers told."""


class PollSchedule:
    """The streams that one event loop watches, and when each was looked at last."""

    def __init__(self) -> None:
        # Those that were looked at longest ago come first.
        self._looked_at: dict[int, float] = {}
        self._ending: set[int] = set()
        self._interval = 0.0
        self._grown_at = 0.0
        self._held_until = 0.0

    def due(self, watched: Mapping[int, StreamInfo], now: float, interval: float, *, hears: bool) -> list[int]:
        """Return the streams to look at now, and take note that they are.

        Args:
            watched: all streams that are watched now, as they were when that began.
            now: the monotonic time.
            interval: seconds between two looks where nothing tells of news.
            hears: whether all news should arrive by themselves.
        """
        self._follow(watched, now)
        self._pace(now, interval, hears)
        found = list(watched) if self._interval <= interval else self._longest_ago(now, interval)
        for stream_id in found:
            del self._looked_at[stream_id]
            self._looked_at[stream_id] = now
        return found

    def _longest_ago(self, now: float, interval: float) -> list[int]:
        """Return as many streams as keep the looks spread over the time, and those that end soon."""
        most = math.ceil(len(self._looked_at) * interval / self._interval)
        found: list[int] = []
        for stream_id, then in self._looked_at.items():
            if now - then < self._interval or len(found) >= most:
                break
            found.append(stream_id)
        found += self._ending.difference(found)
        return found

    def seen(self, info: StreamInfo) -> None:
        """Take note of how a stream was at a look."""
        if info.deadline is not None and info.deadline - timezone.now() < SOON:
            self._ending.add(info.id)
        else:
            self._ending.discard(info.id)

    def missed(self, now: float) -> None:
        """Take note that a look has found what no news had told of."""
        self._held_until = now + HOLD_SECONDS

    def _follow(self, watched: Mapping[int, StreamInfo], now: float) -> None:
        for stream_id in [known for known in self._looked_at if known not in watched]:
            del self._looked_at[stream_id]
            self._ending.discard(stream_id)
        for stream_id, info in watched.items():
            if stream_id not in self._looked_at:
                self._looked_at[stream_id] = now
                self.seen(info)

    def _pace(self, now: float, interval: float, hears: bool) -> None:
        if not hears or now < self._held_until or self._interval < interval:
            self._interval, self._grown_at = interval, now
        elif now - self._grown_at >= 2 * self._interval:
            self._interval, self._grown_at = max(min(2 * self._interval, MAX_INTERVAL), interval), now
