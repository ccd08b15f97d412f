"""How to wait for SQLite's one write lock, which other processes take by turns.

SQLite's own busy handler sleeps longer after each attempt, up to a tenth of a second. A process that writes all the
time then delays the others by a second and more. Here the attempts follow each other at once, and succeed within one
commit of the other process, or a few.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import OperationalError

RETRY_SECONDS = 1.0
"""For how long attempts are repeated. An attempt for which the connection itself has waited so long is the last."""

RETRY_PAUSE_SECONDS = 0.0002
"""Time between two attempts. A commit takes about twice as long."""

T = TypeVar("T")


def retry_while_locked(
    work: Callable[[], T], before_wait: Callable[[], None] | None = None, seconds: float | None = None
) -> T:
    """Do work that changes nothing while the database is locked, and repeat it for as long as that is so.

    Args:
        work: the work. It raises an OperationalError while the database is locked.
        before_wait: called once, before the second attempt.
        seconds: for how long to repeat it; RETRY_SECONDS by default.

    Raises:
        django.db.OperationalError: the database was still locked at the end, or there is another problem.
    """
    until = time.monotonic() + (RETRY_SECONDS if seconds is None else seconds)
    while True:
        try:
            return work()
        except OperationalError as error:
            if not _is_locked(error) or time.monotonic() >= until:
                raise
        if before_wait is not None:
            before_wait()
            before_wait = None
        time.sleep(RETRY_PAUSE_SECONDS)


def _is_locked(error: OperationalError) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_BUSY
