"""A thread that handles what others put into its queue, one item after another.

The thread starts with the first item. It outlives every error of its work, whatever code of the project raises. Limits
on the queue are for its owner. Knows nothing of the items.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class QueueThread(Generic[T]):
    """A queue and its thread. Safe to use from any thread.

    Args:
        name: of the thread.
        handle: handles an item, in the thread.
        rest: is called in the thread after `idle_seconds` without an item, and before the thread ends.
        idle_seconds: None: the thread never rests.
    """

    def __init__(
        self,
        name: str,
        handle: Callable[[T], object],
        rest: Callable[[], object] = lambda: None,
        idle_seconds: float | None = None,
    ) -> None:
        self._name = name
        self._handle = handle
        self._rest = rest
        self._idle_seconds = idle_seconds
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        return self._queue.qsize()

    @property
    def is_running(self) -> bool:
        """Whether the thread has started and was not stopped."""
        return self._thread is not None

    def put(self, item: T) -> None:
        """Have the thread handle an item.

        Raises:
            RuntimeError: the thread cannot start, such as when Python is about to end. The next item tries again.
        """
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = Thread(target=self._run, name=self._name, daemon=True)
                    thread.start()
                    self._thread = thread
        self._queue.put(item)

    def take_waiting(self) -> Iterator[T]:
        """Yield the items that wait now, which `handle` then has to handle. Only in the thread."""
        while not self._queue.empty():
            item = self._queue.get()
            if item is None:
                self._queue.put(None)
                return
            yield item

    def stop(self, seconds: float) -> None:
        """End the thread after the items that wait, or leave it after some seconds. Another item starts a new one."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join(seconds)

    def _run(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=self._idle_seconds)
            except Empty:
                self._guarded(self._rest)
                continue
            if item is None:
                break
            self._guarded(self._handle, item)
        self._guarded(self._rest)

    def _guarded(self, work: Callable[..., object], *arguments: T) -> None:
        try:
            work(*arguments)
        except BaseException:  # the thread must outlive every bug
            logger.exception("The thread %s met an error. It goes on.", self._name)
