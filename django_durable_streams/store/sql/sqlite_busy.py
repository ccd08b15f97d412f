"""Waiting for SQLite's one lock, which other processes hold by turns.

SQLite lets those sleep who find it locked, longer each time, up to a tenth of a second; somebody who writes all the
time then keeps the others out for a second and more. Here they ask again at once, and get it within a commit or a few.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import OperationalError

PATIENCE = 1.0
"""Seconds in which somebody asks again, unless the connection itself has waited for so long."""

PAUSE = 0.0002
"""Seconds between two times: a commit takes about twice as long."""

T = TypeVar("T")


def patiently(work: Callable[[], T], waits: Callable[[], None] | None = None, seconds: float | None = None) -> T:
    """Do what changes nothing where the database is locked, and ask again while it is.

    Args:
        waits: is called before it asks again for the first time.
        seconds: how long to ask again, PATIENCE by default.

    Raises:
        django.db.OperationalError: it still was in the end, or something else went wrong.
    """
    until = time.monotonic() + (PATIENCE if seconds is None else seconds)
    while True:
        try:
            return work()
        except OperationalError as error:
            if not _is_locked(error) or time.monotonic() >= until:
                raise
        if waits is not None:
            waits()
            waits = None
        time.sleep(PAUSE)


def _is_locked(error: OperationalError) -> bool:
    code = getattr(error.__cause__, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_BUSY
