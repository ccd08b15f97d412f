"""Writing for many requests at once: group commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from django.db import DataError, Error, InterfaceError, OperationalError, connections

from ..protocol.errors import BadRequest, DurableStreamsError, ServiceUnavailable
from ..store import writing
from ..store.operations import Commit, Operation
from .lane import Lane

logger = logging.getLogger(__name__)

BATCH_SIZE = 512
"""Most operations in one transaction."""


class WriteLane(Lane[Operation]):
    """A lane that applies operations in one transaction and tells of the commit.

    Args:
        committed: is called in the lane's thread with what a transaction changed, once that is committed.
        turn: held around each transaction: whose turn it is to write, where only one can.
    """

    def __init__(
        self,
        name: str,
        using: str,
        queue_size: int,
        committed: Callable[[list[Commit]], None],
        turn: AbstractContextManager[object],
    ) -> None:
        self._committed = committed
        self._turn = turn
        super().__init__(name, using, self._apply, queue_size, BATCH_SIZE)

    def _apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        outcomes = self._try(operations)
        if isinstance(outcomes, Exception):
            outcomes = self._apart(operations, outcomes)
        return outcomes

    def _try(self, operations: Sequence[Operation]) -> Sequence[object] | Exception:
        """Apply operations together; return the error where that changed nothing."""
        try:
            with self._turn:
                outcomes, commits = writing.apply(operations, self._using)
        except writing.CommitUncertain:
            logger.exception("The connection was lost during a commit of %d operations.", len(operations))
            connections[self._using].close()
            return [_unavailable("The database did not confirm this. Try again.")] * len(operations)
        except (Error, ValueError) as error:
            if isinstance(error, (OperationalError, InterfaceError)):
                connections[self._using].close()
            return error
        if commits:
            self._committed(commits)
        return outcomes

    def _apart(self, operations: Sequence[Operation], error: Exception) -> Sequence[object]:
        """Apply operations one by one, so that none fails for another's sake."""
        outcomes: list[object] = []
        for operation in operations:
            outcome = self._try([operation])
            if isinstance(outcome, OperationalError | InterfaceError):
                logger.error("The database does not answer: %s", outcome)
                # No use in asking again for each of the others.
                rest = len(operations) - len(outcomes)
                return outcomes + [_unavailable("The database does not answer. Try again.")] * rest
            outcomes.append(_refusal(outcome) if isinstance(outcome, Exception) else outcome[0])
        return outcomes


def _refusal(error: Exception) -> DurableStreamsError:
    if isinstance(error, DataError | ValueError):
        logger.warning("The database cannot store this: %s", error)
        return BadRequest("The request has something that cannot be stored.")
    logger.error("The database refused an operation: %s", error)
    return _unavailable("The database refused this. Try again.")


def _unavailable(detail: str) -> ServiceUnavailable:
    return ServiceUnavailable(detail, ((b"retry-after", b"1"),))
