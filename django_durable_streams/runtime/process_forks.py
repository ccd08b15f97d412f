"""What this process is doing in SQLite, and what has to be over when it is forked. (Nothing of the forks of streams.)

SQLite keeps in the memory of a process which of its connections hold what, and guards that by mutexes. A child has both
as they were at the moment of the fork, and none of the threads that would let go: in the middle of somebody's work, the
database would be locked there, or a call never return, for as long as the child lives. So a fork waits for the locks
that are held around such work. What threads of the project do by themselves is not seen here.
"""

from __future__ import annotations

import os
import time
from threading import Lock, local
from typing import Protocol
from weakref import WeakSet

FORK_SECONDS = 2.0
"""How long a fork waits at the most: the work may itself wait for another process, or for the thread that forks."""


class WorkLock(Protocol):
    """A lock of any kind."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool: ...

    def release(self) -> None: ...


_outer: WeakSet[WorkLock] = WeakSet()
_inner: WeakSet[WorkLock] = WeakSet()
_lock = Lock()
_forking = local()


def wait_at_fork(lock: WorkLock, *, is_inner: bool = False) -> None:
    """Have forks wait for a lock that is held around work in SQLite, for as long as there is that lock.

    Args:
        is_inner: whether it is taken by threads that hold one of the others already.
    """
    with _lock:
        (_inner if is_inner else _outer).add(lock)


def _hold() -> None:
    with _lock:
        locks = [*_outer, *_inner]
    deadline = time.monotonic() + FORK_SECONDS
    _forking.held = [lock for lock in locks if lock.acquire(timeout=max(deadline - time.monotonic(), 0))]


def _let_go() -> None:
    for lock in _forking.held:
        lock.release()


def _forget() -> None:
    global _lock
    _lock = Lock()
    _outer.clear()
    _inner.clear()


os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=_forget)
