"""How long a batch waits for more tasks where several processes write to the same rows.

The optimisation: each process has a part of the clients only. Half of them wait for the batch under way, and the others
for the next one, so batches are small, and each waits for commits of the other processes. So a batch is answered at
once, and the next one waits for the next tasks of these clients. Meanwhile another process has the rows anyway.

Invariant: a batch waits at most as long as the one before it took, and only while tasks keep coming. No result waits
meanwhile: a batch whose results may be held back is followed by no wait. Tasks keep their order.

Gain: two workers on one stream on PostgreSQL append a third more, in batches twice as large, than with answers at once
and no wait (docs/decisions/postgresql-pipeline.md). Off: `BatchWorker.competes`.

Knows no task and no database.
"""

from __future__ import annotations

import time

FROM_TASKS = 4
"""After a batch with fewer tasks the next one begins at once."""

MAX_SECONDS = 0.05
"""The longest wait of a batch."""

GAPS = 4
"""The wait ends if no task comes for this part of its time. A fixed time would be too short on a busy machine."""


class Collector:
    """The wait before a batch of one worker. Used by the worker's thread."""

    __slots__ = ("_gap", "_until", "_wanted")

    def __init__(self) -> None:
        self._wanted = 0
        self._until = 0.0
        self._gap = 0.0

    def start(self, done: int, waiting: int, seconds: float) -> None:
        """Let the next batch wait. Call this when the results of a batch were delivered.

        Args:
            done: the number of tasks in the batch.
            waiting: the number of tasks that wait already.
            seconds: how long the batch took.
        """
        self._wanted = done + waiting if done >= FROM_TASKS else 0
        longest = min(seconds, MAX_SECONDS)
        self._gap = longest / GAPS
        self._until = time.perf_counter() + longest

    def stop(self) -> None:
        """Let the next batch begin at once. Call this when the results of a batch are held back."""
        self._wanted = 0

    def seconds_left(self, count: int) -> float:
        """Return how long a batch with so many tasks waits for one more. 0: it begins without a wait."""
        if count >= self._wanted:
            return 0.0
        return max(min(self._until - time.perf_counter(), self._gap), 0.0)
