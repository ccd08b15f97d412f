"""Whose turn it is to write, where only one can: threads of a process that write to SQLite.

SQLite has those who collide sleep for milliseconds, and somebody who comes rarely may not get through to the file
between two who come all the time. A lock of the process wakes the next one at once.

Nobody's turn lasts through a fork. SQLite keeps in the memory of a process which of its connections hold what, so a
child that was forked in the middle of somebody's transaction would find the database locked for as long as it lives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, local

from django.db import connections


FORK_SECONDS = 2.0
"""How long a fork waits for a turn to end. The thread that forks may itself be the one whose turn it is."""


class Turn:
    """What to hold around a transaction that writes, and that nobody has begun yet.

    Args:
        is_one: whether only one can write at a time. Otherwise it is always everybody's turn.
    """

    def __init__(self, *, is_one: bool) -> None:
        self.is_one = is_one
        self._lock = Lock() if is_one else None

    @contextmanager
    def taken(self, waits: Callable[[], None] | None = None) -> Iterator[None]:
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
    def taken_at_once(self) -> Iterator[bool]:
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


    def hold(self) -> bool:
        """Hold it, and return whether it is held, which is not so if it does not end in time. See `let_go`."""
        return self._lock is not None and self._lock.acquire(timeout=FORK_SECONDS)

    def let_go(self) -> None:
        """End what `hold` has begun."""
        if self._lock is not None:
            self._lock.release()


_turns: dict[str, Turn] = {}


def turn(using: str) -> Turn:
    """Return the turn of a database's writers in this process."""
    found = _turns.get(using)
    if found is None:
        found = _turns.setdefault(using, Turn(is_one=connections[using].vendor == "sqlite"))
    return found


_forking = local()


def _hold_all() -> None:
    _forking.turns = [found for found in list(_turns.values()) if found.hold()]


def _let_go_of_all() -> None:
    for found in _forking.turns:
        found.let_go()


# A child has none of the threads that would release their locks.
os.register_at_fork(before=_hold_all, after_in_parent=_let_go_of_all, after_in_child=_turns.clear)
