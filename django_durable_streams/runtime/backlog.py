"""How much waits to be done: bounded by number and by bytes, from the moment it is queued until it is answered.

One backlog counts for all places in which an operation may wait: an event loop's parcel, a lane's queue, a batch, and
the queue behind a locked row.
"""

from __future__ import annotations

from threading import Lock

from ..protocol.errors import ServiceUnavailable


class Backlog:
    """Counts tasks and their data. Safe to use from any thread.

    Args:
        max_tasks: tasks that may wait.
        max_bytes: data that may wait with them. A single task may exceed it where nothing else with data waits.
    """

    def __init__(self, max_tasks: int, max_bytes: int) -> None:
        self.tasks = 0
        self.bytes = 0
        self._max_tasks = max_tasks
        self._max_bytes = max_bytes
        self._lock = Lock()

    def check(self, tasks: int, bytes_queued: int, size: int) -> None:
        """See that one more task may wait.

        Args:
            tasks: tasks that the caller has queued and not yet added here; `bytes_queued` is their data.
            size: bytes of data that the new task carries.

        Raises:
            ServiceUnavailable: too much waits already (503, carries `Retry-After`).
        """
        waiting = self.bytes + bytes_queued
        if self.tasks + tasks >= self._max_tasks or (waiting and waiting + size > self._max_bytes):
            raise ServiceUnavailable("Too many requests are waiting. Try again.")

    def add(self, tasks: int, size: int) -> None:
        """Take note of tasks that wait from now on, with so many bytes of data in total."""
        with self._lock:
            self.tasks += tasks
            self.bytes += size

    def remove(self, tasks: int, size: int) -> None:
        """Take note of tasks that are answered."""
        self.add(-tasks, -size)
