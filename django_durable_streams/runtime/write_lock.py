"""Whose turn it is to write, where only one can: threads of a process that write to SQLite.

SQLite has those who collide sleep for milliseconds, and somebody who comes rarely may not get through to the file
between two who come all the time. A lock of the process wakes the next one at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

from django.db import connections

from .process_forks import wait_at_fork


class WriteLock:
    """What to hold around a transaction that writes, and that nobody has begun yet.

    Args:
        is_one: whether only one can write at a time. Otherwise it is always everybody's turn.
    """

    def __init__(self, *, is_one: bool) -> None:
        self.is_one = is_one
        self._lock = Lock() if is_one else None
        if self._lock is not None:
            wait_at_fork(self._lock, is_inner=True)

    @contextmanager
    def hold(self, waits: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold it. `waits` is called before waiting for somebody else who does."""
        if self._lock is None:
            yield
            return
        if not self._lock.acquire(blocking=False):
            if waits is not None:
                waits()
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        """Hold it if nobody else does; yields whether it is held."""
        if self._lock is None:
            yield True
            return
        is_held = self._lock.acquire(blocking=False)
        try:
            yield is_held
        finally:
            if is_held:
                self._lock.release()


_write_locks: dict[str, WriteLock] = {}


def write_lock(using: str) -> WriteLock:
    """Return the turn of a database's writers in this process."""
    found = _write_locks.get(using)
    if found is None:
        found = _write_locks.setdefault(using, WriteLock(is_one=connections[using].vendor == "sqlite"))
    return found


# A lock that another thread held at the moment of a fork would be held for ever in the child.
os.register_at_fork(after_in_child=_write_locks.clear)
