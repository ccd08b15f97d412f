"""How often the answers of a process commit: seldom where there are many, and where the process is busy.

An optimisation: each commit of an answer takes processor time in the writer, in the committer and for each reader.

- Invariant: text is committed at most MAX_STRETCH intervals after it was written, if the database keeps pace.
- Why it holds: the interval depends on the number of answers and on a factor, which never exceeds MAX_STRETCH.
- Gain: a process that is busy with its readers, or with new ones, gets time for them. Without the factor, answers and
  readers of a busy process delay each other (`python -m benchmarks.answers`).
- Switch off: let `Pace.interval` return `interval_of`.

Knows neither answers nor readers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL = 0.05
"""Seconds between two commits of an answer."""

MAX_PORTIONS = 2000
"""Portions that the answers of a process commit in a second. With more answers, each of them commits less often."""

PHASES = 4
"""Groups of answers that commit one after the other within the interval. The answers of a group share a commit, and the
readers of one group do not wait for those of all."""

BUSY, CALM = 0.85, 0.35
"""Parts of one core. Above the first the interval doubles, and below the second it halves. Python's threads share about
one core. Half of the interval takes twice the time at most, so the pace does not go back and forth."""

MAX_STRETCH = 4

SAMPLE_SECONDS = 0.5


def interval_of(count: int) -> float:
    """Return the seconds between two commits of each of so many answers of a process that is not busy."""
    return max(INTERVAL, count / MAX_PORTIONS)


class Pace:
    """The pace of the answers of this process.

    Args:
        clock: returns the time in seconds.
        used: returns the processor time of this process in seconds.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.process_time
    ) -> None:
        self._clock = clock
        self._used = used
        self._stretch = 1
        self._sampled_at, self._used_before = clock(), used()

    def interval(self, count: int) -> float:
        """Return the seconds between two commits of each of so many answers, as the process is now."""
        passed = self._clock() - self._sampled_at
        if passed >= SAMPLE_SECONDS:
            used = self._used()
            load = (used - self._used_before) / passed
            self._sampled_at, self._used_before = self._sampled_at + passed, used
            if load > BUSY:
                self._stretch = min(2 * self._stretch, MAX_STRETCH)
            elif load < CALM:
                self._stretch = max(self._stretch // 2, 1)
        return interval_of(count) * self._stretch
