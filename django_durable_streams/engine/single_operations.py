"""Operations that are applied again: one by one after a failure, or with a read where the row cache was stale.

So no operation fails because of another one, and each stream keeps the order of its operations. Knows neither the queue
from which the operations come nor their callers.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from django.db import IntegrityError

from ..protocol.errors import BadRequest, ServiceUnavailable
from ..runtime.database_errors import FailureKind, diagnose
from ..store.operations import Operation
from ..store.write import group_commit
from ..store.write.batch import LOCKED, Outcome

logger = logging.getLogger(__name__)

MAX_LOST_CONNECTIONS = 3
"""Connections that one batch may lose before the rest of it is refused. One of its operations may kill them."""

MAX_VAIN_WAITS = 3
"""Operations of one batch that may wait in vain before the rest of it is LOCKED. Somebody may hold a whole table."""


class Transactions(Protocol):
    """A way to apply operations in one transaction: the applier."""

    def try_together(self, operations: Sequence[Operation], lock_ms: int | None) -> Sequence[object] | Exception:
        """Apply operations in one transaction and return their outcomes. If nothing has changed, return the error."""

    def reconnect(self) -> bool:
        """Connect if there is no connection. Return whether there is one now."""

    def refuse(self, count: int) -> list[object]:
        """Return the outcomes of operations that are not tried, because the database does not answer."""


def apply_each(
    transactions: Transactions, operations: Sequence[Operation], lock_ms: int | None = None
) -> Sequence[object]:
    """Apply operations one by one, in the order of their stream.

    If an operation has to wait, later operations of its stream wait too. If an operation could not be applied, later
    ones are refused as well, because its client may send it again. After some failures the rest is not tried.

    Args:
        lock_ms: how long to wait for locked rows, in milliseconds. None: not at all.
    """
    outcomes: list[object] = []
    stopped: dict[str, object] = {}
    lost_connections = vain_waits = 0
    for number, operation in enumerate(operations):
        outcome = stopped.get(operation.path)
        if outcome is None:
            if vain_waits == MAX_VAIN_WAITS:
                return [*outcomes, *(stopped.get(one.path, LOCKED) for one in operations[number:])]
            attempt = _try_one(transactions, operation, lock_ms)
            outcome = _outcome_of_error(attempt) if isinstance(attempt, Exception) else attempt[0]
            vain_waits += isinstance(attempt, Exception) and outcome is LOCKED
            if outcome is LOCKED or isinstance(outcome, ServiceUnavailable):
                stopped[operation.path] = outcome
            if isinstance(outcome, ServiceUnavailable):
                lost_connections += 1
                if lost_connections == MAX_LOST_CONNECTIONS or not transactions.reconnect():
                    return [*outcomes, *transactions.refuse(len(operations) - len(outcomes))]
        outcomes.append(outcome)
    return outcomes


def repeat_locked(
    transactions: Transactions, operations: Sequence[Operation], outcomes: Sequence[object]
) -> Sequence[object]:
    """Apply the LOCKED operations once more, and read their rows first, because the row cache was stale."""
    rest = [operation for operation, outcome in zip(operations, outcomes, strict=True) if outcome is LOCKED]
    redone = transactions.try_together(rest, None)
    if isinstance(redone, Exception):
        return outcomes
    new_outcomes = iter(redone)
    return [next(new_outcomes) if outcome is LOCKED else outcome for outcome in outcomes]


def _try_one(transactions: Transactions, operation: Operation, lock_ms: int | None) -> Sequence[object] | Exception:
    outcomes = transactions.try_together([operation], lock_ms)
    tries = 1
    while isinstance(outcomes, IntegrityError) and tries < group_commit.TRIES:
        outcomes = transactions.try_together([operation], lock_ms)
        tries += 1
    return outcomes


def _outcome_of_error(error: Exception) -> Outcome:
    """Return the outcome of a single operation that has met an error."""
    match diagnose(error):
        case FailureKind.BUSY:
            return LOCKED
        case FailureKind.AWAY | FailureKind.SETUP:
            logger.error("The database could not do this, so one operation gets 503: %s", error)
            return ServiceUnavailable("The database could not do this. Try again.")
        case FailureKind.REFUSED:
            logger.warning("The database does not take this, so one operation gets 400: %s", error)
            return BadRequest("The request contains data that the database cannot store.")
