"""The limit of waiting tasks, by number and by bytes. A task counts from its submission until its result is there.

One backlog counts all places in which an operation may wait: a pending batch, a batch worker's queue, a batch at work,
and the lock wait queue.
"""

from __future__ import annotations

from threading import Lock

from ..protocol.errors import ServiceUnavailable


class Backlog:
    """Counts tasks and their data. Safe to use from any thread.

    Args:
        max_tasks: number of tasks that may wait.
        max_bytes: bytes of data that may wait. One task may exceed this limit while no other task with data waits.
    """

    def __init__(self, max_tasks: int, max_bytes: int) -> None:
        self.tasks = 0
        self.bytes = 0
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._lock = Lock()

    def check(self, tasks: int, bytes_queued: int, size: int) -> None:
        """Check that one more task may wait.

        Args:
            tasks: number of tasks that the caller has queued and not yet added here.
            bytes_queued: bytes of data of these tasks.
            size: bytes of data that the new task carries.

        Raises:
            ServiceUnavailable: too many tasks, or too much data, wait already (503 with `Retry-After`).
        """
        waiting_bytes = self.bytes + bytes_queued
        if self.tasks + tasks >= self._max_tasks or (waiting_bytes and waiting_bytes + size > self._max_bytes):
            raise ServiceUnavailable("Too many requests are waiting. Try again.")

    def room(self) -> tuple[int, int]:
        """Return how many more tasks and bytes may wait. Meanwhile other threads may take of it, or give back."""
        return self._max_tasks - self.tasks, self._max_bytes - self.bytes

    def add(self, tasks: int, size: int) -> None:
        """Count tasks that wait from now on. `size` is their data in bytes, in total."""
        with self._lock:
            self.tasks += tasks
            self.bytes += size

    def remove(self, tasks: int, size: int) -> None:
        """Stop counting tasks whose results are there."""
        self.add(-tasks, -size)
