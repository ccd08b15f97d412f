"""How many messages a handler gets at once: a fixed number, or as many as it handles in a short time."""

from __future__ import annotations

from typing import Literal

BatchSize = int | Literal["auto"]

AUTO_SECONDS = 0.1
"""The time that an automatic batch may take. On SQLite all appends wait for the transaction of a batch."""

FIRST_SIZE = 10
MAX_SIZE = 10_000


class BatchSizer:
    """The size of the next batch of one consumer. Its attribute `size` is a number of messages.

    Args:
        batch_size: as the consumer declares it.
    """

    def __init__(self, batch_size: BatchSize) -> None:
        self._is_automatic = batch_size == "auto"
        self.size = FIRST_SIZE if batch_size == "auto" else batch_size

    def note(self, messages: int, seconds: float) -> None:
        """Learn from a batch that was handled: twice as many after a full and fast one, fewer after a slow one."""
        if not self._is_automatic:
            return
        if seconds > AUTO_SECONDS:
            self.size = max(int(messages * AUTO_SECONDS / seconds), 1)
        elif messages >= self.size and seconds < AUTO_SECONDS / 2:
            self.size = min(2 * self.size, MAX_SIZE)
