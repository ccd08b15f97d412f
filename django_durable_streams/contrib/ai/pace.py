"""How often the answers of a process commit: seldom where there are many, and where the process is busy.

An optimisation: each commit of an answer takes processor time in the writer, in the committer and for each reader.

- Invariant: the interval of an answer is at most the last of STRETCHES times that of a process that is not busy.
- Why it holds: it depends on the number of answers and on a factor of STRETCHES alone.
- Gain: 2,000 readers of 200 answers, 60,000 tokens a second, take 57 % of a core with the last factor. So their process
  has time for new readers (`python -m benchmarks.answers`).
- Switch off: let `Pace.interval` return `default_interval`.

Knows neither answers nor readers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from ...api.writer_options import default_interval

PHASES = 4
"""Groups of answers that commit one after the other within the interval. The answers of a group share a commit, and the
readers of one group do not wait for those of all."""

STRETCHES = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
"""Factors of the interval."""

BUSY, CALM = 0.9, 0.65
"""Parts of one core, which Python's threads share. Above the first, the next factor holds. Below the second, the one
before holds. That takes a third more time at most, so the pace does not go back and forth."""

SAMPLE_SECONDS = 0.5
"""How long a load is measured. A shorter time would be no measure."""


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
        self._step = 0
        self._sampled_at, self._used_before = clock(), used()

    def interval(self, count: int) -> float:
        """Return the seconds between two commits of each of so many answers, as the process is now."""
        passed = self._clock() - self._sampled_at
        if passed >= SAMPLE_SECONDS:
            used = self._used()
            load = (used - self._used_before) / passed
            self._sampled_at, self._used_before = self._sampled_at + passed, used
            if load > BUSY:
                self._step = min(self._step + 1, len(STRETCHES) - 1)
            elif load < CALM:
                self._step = max(self._step - 1, 0)
        return default_interval(count) * STRETCHES[self._step]
