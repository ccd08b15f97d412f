"""Work that a batch worker's thread does between two batches. Knows no batch."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future as ThreadFuture
from typing import Any


class ExclusiveJob:
    """Work of another kind that a worker's thread does between two batches, for a thread that waits for it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._outcome: ThreadFuture[Any] = ThreadFuture()

    def run(self) -> None:
        """Do the work and keep its outcome."""
        try:
            self._outcome.set_result(self._work())
        except BaseException as error:
            self._outcome.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Make `result` raise an error, without doing the work."""
        self._outcome.set_exception(error)

    def result(self) -> Any:
        """Wait for the work, and return or raise its outcome."""
        return self._outcome.result()
