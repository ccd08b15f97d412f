"""Pending batches: the tasks that one event loop submits together. Knows no worker and no kind of task."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from .results import ResultCallback

T = TypeVar("T")


class PendingBatch(Generic[T]):
    """The tasks that one event loop submits together, and the callbacks for their results.

    Args:
        room: how many tasks and bytes may be queued before the backlog is asked again.
    """

    __slots__ = ("callbacks", "loop", "room", "size", "spans", "tasks", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int, room: tuple[int, int] = (0, 0)) -> None:
        self.loop = loop
        self.thread = thread
        self.room = room
        self.tasks: list[T] = []
        self.callbacks: list[ResultCallback] = []
        self.spans: list[object] | None = None  # of the requests, if they are traced
        self.size = 0
        """Bytes of data that the tasks carry."""


def split_by_batch(
    batches: Iterable[PendingBatch[T]], values: Sequence[object]
) -> Iterator[tuple[PendingBatch[T], Sequence[object]]]:
    """Yield each pending batch with the values of its own tasks."""
    first = 0
    for batch in batches:
        last = first + len(batch.tasks)
        yield batch, values[first:last]
        first = last
