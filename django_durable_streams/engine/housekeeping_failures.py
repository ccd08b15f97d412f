"""Failures of housekeeping: each failed item is remembered, tried again later, and logged once.

Knows nothing of the work itself, nor of what an item is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import Error, InterfaceError, OperationalError
from django.db.models import ProtectedError, RestrictedError

from ..protocol.errors import ServiceUnavailable
from ..runtime.database_errors import FailureKind, diagnose
from ..store.chunk_rows import CorruptChunk
from ..store.sql import CommitUncertain

logger = logging.getLogger(__name__)

FIRST_DELAY, MAX_DELAY = 10.0, 3600.0
"""Seconds until a failed item is tried again, at first and at most. The time doubles with each failure."""

MAX_REMEMBERED = 10_000
"""Items of one kind of work that are remembered. A forgotten item is only tried again sooner."""

MAX_LOGGED = 10
"""Log messages about one kind of work in an hour."""

HOUR = 3600.0

_RAISED_BY_TRIGGER = 1644
"""The error number of MySQL and MariaDB for errors that a trigger raises."""


def passes(error: Exception) -> bool:
    """Return whether an error is not about the rows at hand: the database is away or busy, or its disk is full."""
    if isinstance(error, CommitUncertain) and isinstance(error.__cause__, Error):
        error = error.__cause__  # the connection was lost during the commit
    if isinstance(error, Error) and diagnose(error) is FailureKind.BUSY:
        return True
    return isinstance(error, OperationalError | InterfaceError) and error.args[:1] != (_RAISED_BY_TRIGGER,)


@dataclass
class _Failure:
    until: float
    delay: float


class HousekeepingFailures:
    """The items for which one kind of work has failed.

    Args:
        work: a verb phrase for log messages, before the name of an item: "purge the rows of".
    """

    def __init__(self, work: str) -> None:
        self._work = work
        self._items: dict[int, _Failure] = {}
        self._logged: list[float] = []

    def add(self, item: int, name: str, error: Exception) -> None:
        """Record that the work has failed for an item.

        Args:
            name: the name of the item for log messages.
        """
        now = time.monotonic()
        previous = self._items.pop(item, None)
        delay = FIRST_DELAY if previous is None else min(2 * previous.delay, MAX_DELAY)
        self._items[item] = _Failure(now + delay, delay)
        if len(self._items) > MAX_REMEMBERED:
            del self._items[next(iter(self._items))]
        if previous is None:
            self._log(name, error, now)

    def clear(self, items: Iterable[int]) -> None:
        """Record that the work is done for items."""
        if self._items:
            for item in items:
                self._items.pop(item, None)

    def waiting(self) -> set[int]:
        """Return the items that must not be tried yet."""
        now = time.monotonic()
        return {item for item, failure in self._items.items() if failure.until > now}

    def take_due(self) -> set[int]:
        """Return the items to try again now. Each is returned again only after its delay has passed once more."""
        now = time.monotonic()
        due = {item for item, failure in self._items.items() if failure.until <= now}
        for item in due:
            self._items[item].until = now + self._items[item].delay
        return due

    def _log(self, name: str, error: Exception, now: float) -> None:
        self._logged = [then for then in self._logged if then > now - HOUR]
        if len(self._logged) >= MAX_LOGGED:
            return
        self._logged.append(now)
        last = " Many streams failed, so no more are logged for an hour." if len(self._logged) == MAX_LOGGED else ""
        logger.error(
            "Housekeeping could not %s %s: %s %s All other work goes on. It is tried again in %d s, then less often.%s",
            self._work,
            name,
            _sentence(error),
            _advice(error),
            FIRST_DELAY,
            last,
            exc_info=None if isinstance(error, Error | CorruptChunk | ServiceUnavailable) else error,
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
    if isinstance(error, CorruptChunk | ServiceUnavailable):
        return "Its rows are damaged: restore them from a backup, or delete the stream."
    if isinstance(error, Error):
        return "A constraint or a trigger of the database refuses it: change the constraint or trigger, or the rows."
    return "The traceback shows the place. Most likely it is a receiver of Django's signals."
