"""What a failed attempt tells: of the message and its handler, of another transaction, or of the connection."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from threading import current_thread, main_thread

from django.db import Error, connections

from ...protocol.errors import TransactionConflict
from ...runtime.database_errors import FailureKind, diagnose
from .cursors import Claim

MAX_LOST = 10
"""How often the connection may be lost at one position of a stream until this counts as a failure of the handler."""

MAX_REMEMBERED = 10_000
"""Positions with lost connections that a process remembers."""


class Cause(Enum):
    """The cause of a failed attempt."""

    HANDLER = "the handler, or the message"
    BUSY = "another transaction; the same attempt may succeed in a moment"
    LOST = "the connection was lost"


def find_cause(error: BaseException, connection: AttemptsConnection) -> Cause:
    """Return the cause of an attempt's error. Called after the rollback, in the thread of the attempt."""
    for one in _origins(error):
        if isinstance(one, TransactionConflict) or (isinstance(one, Error) and diagnose(one) is FailureKind.BUSY):
            return Cause.BUSY
    # An exception of another kind, such as SystemExit, makes the transaction close the connection.
    return Cause.LOST if isinstance(error, Exception) and connection.is_lost() else Cause.HANDLER


def is_of_handler(error: BaseException) -> bool:
    """Return whether an exception comes from the handler. Signal handlers raise exceptions, too, in the main thread.

    A cancelled task and sys.exit() are failures of the handler.
    """
    is_any_threads = isinstance(error, Exception | SystemExit | asyncio.CancelledError)
    return is_any_threads or current_thread() is not main_thread()


def _origins(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all errors that it comes from."""
    seen: set[int] = set()
    rest = [error]
    while rest:
        one = rest.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        if isinstance(one, BaseExceptionGroup):
            rest.extend(one.exceptions)
        context = None if one.__suppress_context__ else one.__context__
        rest.extend(origin for origin in (one.__cause__, context) if origin is not None)


class AttemptsConnection:
    """The connection of the present attempt, and how often connections were lost at a position of a stream.

    A database that restarts says nothing of a message. But a message may be too large for a statement, or a handler may
    close its connection, so that every attempt loses it.

    Args:
        using: alias of the database of the streams. A handler may use others as well.
    """

    def __init__(self, using: str) -> None:
        self._using = using
        self._driver_connection: object = None
        self._counts: Counter[tuple[int, int | None]] = Counter()

    def begin(self) -> None:
        """Remember the connection at the beginning of an attempt. After it, a new one may be in its place already."""
        self._driver_connection = connections[self._using].connection

    def is_lost(self) -> bool:
        """Return whether the attempt has lost its connection, or one to another database."""
        own = connections[self._using]
        if own.connection is not self._driver_connection or not own.is_usable():
            return True
        others = (
            one for one in connections.all(initialized_only=True) if one.alias != self._using and one.errors_occurred
        )
        return any(one.connection is None or not one.is_usable() for one in others)

    def is_lost_too_often(self, held: Claim) -> bool:
        """Count a lost connection. Return whether it counts as a failure of the handler."""
        if len(self._counts) > MAX_REMEMBERED:
            self._counts.clear()
        self._counts[held.link_id, held.position] += 1
        return self._counts[held.link_id, held.position] > MAX_LOST
