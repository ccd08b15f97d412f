"""The write lock: one thread of a process writes to SQLite at a time, because SQLite has one writer at a time.

Without it SQLite lets a colliding thread sleep for milliseconds, and a thread that writes rarely may starve beside one
that writes all the time. A lock of the process wakes the next thread at once. Other databases need no such lock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from threading import Lock
from types import TracebackType

from django.db import connections

from .process_forks import wait_at_fork


class WriteLock:
    """Held around a transaction that writes, from before its begin.

    Args:
        is_one: whether the database has one writer at a time. Otherwise the lock is always free.
    """

    def __init__(self, *, is_one: bool) -> None:
        self.is_one = is_one
        self._lock = Lock() if is_one else None
        if self._lock is not None:
            self._held = _Held(self._lock)
            wait_at_fork(self._lock, is_inner=True)

    def hold(self, waits: Callable[[], None] | None = None) -> AbstractContextManager[object]:
        """Hold the lock in the block. `waits` is called before this waits for another thread.

        Only threads of the service may pass `waits`, because no signal handler runs there.
        """
        if self._lock is None:
            return nullcontext()
        # A signal handler may raise after any call in Python. The lock's own methods leave it no moment in which the
        # lock is held, and the block has not begun.
        if waits is None:
            return self._lock
        if not self._lock.acquire(blocking=False):
            waits()
            self._lock.acquire()
        return self._held

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        """Hold the lock in the block if no other thread does. Yields whether it is held."""
        if self._lock is None:
            yield True
            return
        is_held = self._lock.acquire(blocking=False)
        try:
            yield is_held
        finally:
            if is_held:
                self._lock.release()


class _Held:
    """A lock that is held already, until the end of the block. A generator would take five more calls a batch."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lock.release()


_write_locks: dict[str, WriteLock] = {}


def write_lock(using: str) -> WriteLock:
    """Return this process's write lock of a database."""
    lock = _write_locks.get(using)
    if lock is None:
        lock = _write_locks.setdefault(using, WriteLock(is_one=connections[using].vendor == "sqlite"))
    return lock


# A lock that another thread holds at the moment of a fork would never be released in the child.
os.register_at_fork(after_in_child=_write_locks.clear)
