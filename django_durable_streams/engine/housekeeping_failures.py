"""What housekeeping could not do: remembered so that all else goes on, tried again later, and logged once.

Knows nothing of what the work is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import Error, InterfaceError, OperationalError
from django.db.models import ProtectedError, RestrictedError

from ..runtime.database_errors import FailureKind, diagnose
from ..store.chunk_rows import CorruptChunk

logger = logging.getLogger(__name__)

FIRST_DELAY, MAX_DELAY = 10.0, 3600.0
"""Seconds until what has failed is tried again: twice as long each time."""

MAX_REMEMBERED = 10_000
"""Items of one kind of work that are remembered. What is forgotten is only tried again sooner."""

MAX_LOGGED = 10
"""Messages of one kind of work in an hour."""

HOUR = 3600.0

_SIGNALED = 1644
"""Number that MySQL and MariaDB give to what a trigger raises."""


def passes(error: Exception) -> bool:
    """Whether an error says nothing about the rows at hand: the database is away, or busy, or has no room."""
    if isinstance(error, Error) and diagnose(error) is FailureKind.BUSY:
        return True
    return isinstance(error, OperationalError | InterfaceError) and error.args[:1] != (_SIGNALED,)


@dataclass
class _Failure:
    until: float
    delay: float


class HousekeepingFailures:
    """Items that one kind of work has failed for.

    Args:
        work: what could not be done with an item, for messages: "purge the rows of".
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._items: dict[int, _Failure] = {}
        self._logged: list[float] = []

    def add(self, item: int, name: str, error: Exception) -> None:
        """Take note that the work has failed for an item.

        Args:
            name: of the item, for people.
        """
        now = time.monotonic()
        known = self._items.pop(item, None)
        delay = FIRST_DELAY if known is None else min(2 * known.delay, MAX_DELAY)
        self._items[item] = _Failure(now + delay, delay)
        if len(self._items) > MAX_REMEMBERED:
            del self._items[next(iter(self._items))]
        if known is None:
            self._log(name, error, now)

    def clear(self, items: Iterable[int]) -> None:
        """Take note that the work is done for some items."""
        if self._items:
            for item in items:
                self._items.pop(item, None)

    def waiting(self) -> set[int]:
        """Return the items that are not to be tried yet."""
        now = time.monotonic()
        return {item for item, setback in self._items.items() if setback.until > now}

    def take_due(self) -> set[int]:
        """Return the items that are to be tried again now, once: until the same time has passed again."""
        now = time.monotonic()
        found = {item for item, setback in self._items.items() if setback.until <= now}
        for item in found:
            self._items[item].until = now + self._items[item].delay
        return found

    def _log(self, name: str, error: Exception, now: float) -> None:
        self._logged = [then for then in self._logged if then > now - HOUR]
        if len(self._logged) >= MAX_LOGGED:
            return
        self._logged.append(now)
        last = " There were many of these: no more are logged for an hour." if len(self._logged) == MAX_LOGGED else ""
        logger.error(
            "Housekeeping could not %s %s: %s %s All else goes on. It is tried again in %d s, then less often.%s",
            self._work,
            name,
            _sentence(error),
            _advice(error),
            FIRST_DELAY,
            last,
            exc_info=None if isinstance(error, Error | CorruptChunk) else error,
        )


def _sentence(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, ProtectedError | RestrictedError) else str(error)
    first, *_ = [*text.strip().splitlines(), ""]
    return f"{type(error).__name__}: {first.rstrip('.')}."


def _advice(error: Exception) -> str:
    if isinstance(error, ProtectedError | RestrictedError):
        rows = error.protected_objects if isinstance(error, ProtectedError) else error.restricted_objects
        models = sorted({row._meta.label for row in rows})
        return f"Delete the rows of {', '.join(models)} that refer to it, or give their foreign key another on_delete."
    if isinstance(error, CorruptChunk):
        return "Something has changed its rows: restore them from a backup, or delete the stream."
    if isinstance(error, Error):
        return "A constraint or a trigger of the database refuses it: change that, or the rows that it is about."
    return "The traceback says where: a receiver of Django's signals, most likely."
