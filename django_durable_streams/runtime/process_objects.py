"""One object for each database in this process: made at its first use, stopped with the engines, forgotten by a fork.

The objects own threads, so a child process has to make objects of its own. Knows neither engines nor the objects.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from threading import Lock
from typing import Generic, Protocol, TypeVar

from . import lifecycle

logger = logging.getLogger(__name__)


class Stoppable(Protocol):
    """What ends with the engines."""

    def stop(self) -> None:
        """End the threads. May block for some seconds."""


T = TypeVar("T", bound=Stoppable)


class ProcessObjects(Generic[T]):
    """The objects of one kind, by a key: the alias of a database, or another name. Safe to use from any thread.

    Make it at the import of a module: it lives as long as the process.

    Args:
        before_engines: whether the objects stop while the engines still work, because their end appends to streams.
            Otherwise they stop after the engines, in the order in which their kinds were made.
    """

    def __init__(self, *, before_engines: bool = False) -> None:
        self._objects: dict[str, T] = {}
        self._lock = Lock()
        if before_engines:
            lifecycle.call_before_stop(self.stop)
        else:
            lifecycle.call_at_stop(self.stop)
        os.register_at_fork(after_in_child=self._forget)

    def get(self, key: str, make: Callable[[], T]) -> T:
        """Return the object of a key. `make` is called if there is none, by one thread at a time."""
        existing = self._objects.get(key)
        if existing is not None:
            return existing
        with self._lock:
            existing = self._objects.get(key)
            if existing is None:
                existing = self._objects[key] = make()
            return existing

    def existing(self, key: str) -> T | None:
        """Return the object of a key, if there is one."""
        return self._objects.get(key)

    def all(self) -> list[T]:
        """Return all objects of this process."""
        return list(self._objects.values())

    def stop(self) -> None:
        """Stop all objects, also if one of them fails. The next use makes new ones."""
        with self._lock:
            objects = self.all()
            self._objects.clear()
        for one in objects:
            try:
                one.stop()
            except Exception:  # the others, and the engines, have to end as well
                logger.exception("%s could not be stopped. The end of the process goes on.", type(one).__name__)

    def _forget(self) -> None:
        self._objects.clear()
        self._lock = Lock()
