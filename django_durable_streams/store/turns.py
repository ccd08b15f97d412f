"""Whose turn it is to write, where only one can: threads of a process that write to SQLite.

SQLite has those who collide sleep for milliseconds, and somebody who comes rarely may not get through to the file
between two who come all the time. A lock of the process wakes the next one at once.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

from django.db import connections

_turns: dict[str, AbstractContextManager[object]] = {}


def turn(using: str) -> AbstractContextManager[object]:
    """Return what to hold around a transaction that writes, and that nobody has begun yet."""
    found = _turns.get(using)
    if found is None:
        found = _turns.setdefault(using, Lock() if connections[using].vendor == "sqlite" else nullcontext())
    return found


# A lock that another thread held at the moment of a fork would be held for ever in the child.
os.register_at_fork(after_in_child=_turns.clear)
