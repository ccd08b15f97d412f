"""Forks of the process wait until no thread of the service works in SQLite. (Not about forks of streams.)

SQLite keeps the locks of its connections in the memory of the process, behind mutexes. A child process gets both in
their state at the moment of the fork, without the threads that would release them. After a fork in the middle of a
transaction the database is locked in the child, or a call never returns. So a fork waits for the Python locks that the
service holds around its work in SQLite. Work of the project's own threads is not covered.
"""

from __future__ import annotations

import os
import time
from threading import Lock, local
from typing import Protocol
from weakref import WeakSet

FORK_SECONDS = 2.0
"""A fork waits at most so long: the work may itself wait for another process, or for the thread that forks."""


class WorkLock(Protocol):
    """A lock of any kind."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


_outer: WeakSet[WorkLock] = WeakSet()
_inner: WeakSet[WorkLock] = WeakSet()
_lock = Lock()
_forking = local()


def wait_at_fork(lock: WorkLock, *, is_inner: bool = False) -> None:
    """Let forks wait for a lock that is held around work in SQLite, as long as the lock object exists.

    Args:
        is_inner: whether threads take it while they hold another one of these locks.
    """
    with _lock:
        (_inner if is_inner else _outer).add(lock)


def _acquire_all() -> None:
    # A signal handler may raise while this waits. The fork goes on, and `_release_all` follows.
    held: list[WorkLock] = []
    _forking.held = held
    with _lock:
        locks = [*_outer, *_inner]
    deadline = time.monotonic() + FORK_SECONDS
    for lock in locks:
        if lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            held.append(lock)


def _release_all() -> None:
    held, _forking.held = _forking.held, []
    for lock in held:
        lock.release()


def _forget() -> None:
    global _lock
    _lock = Lock()
    _outer.clear()
    _inner.clear()


os.register_at_fork(before=_acquire_all, after_in_parent=_release_all, after_in_child=_forget)
