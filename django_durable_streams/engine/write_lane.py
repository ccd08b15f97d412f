"""Writing for many requests at once: group commit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from django.db import Error, connections

from ..protocol.errors import BadRequest, DurableStreamsError, ServiceUnavailable
from ..store import writing
from ..store.batch import LOCKED
from ..store.operations import Commit, Operation
from .database import LockTimeout, Trouble, diagnose
from .lane import Lane, Parcel, settle
from .patience import Patience, Waiting

logger = logging.getLogger(__name__)

BATCH_SIZE = 512
"""Most operations in one transaction, about."""

LANE_LOCK_MS = 1000
"""How long a lane waits for a lock, in milliseconds: for the path of a stream that somebody else is creating."""

PATIENT_LOCK_MS = 100
"""How long the patient thread waits for one stream's row before it tries the next."""


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
        self._lock_timeout = LockTimeout(using, LANE_LOCK_MS)
        self._patient_timeout = LockTimeout(using, PATIENT_LOCK_MS)
        self._patience = Patience(f"{name}-patient", using, self._attempt, settle)
        super().__init__(name, using, self._apply, queue_size, BATCH_SIZE)

    def stop(self) -> None:
        super().stop()
        self._patience.stop()

    def _apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        """Apply operations together; where that fails, one by one, so that none fails for another's sake."""
        self._prepare(self._lock_timeout)
        outcomes = self._try(operations, wait=False)
        return self._apart(operations) if isinstance(outcomes, Exception) else outcomes

    def _answer(self, parcel: Parcel[Operation], values: Sequence[object]) -> None:
        if not any(value is LOCKED for value in values):
            super()._answer(parcel, values)
            return
        now = time.monotonic()
        answered = []
        waiting = []
        for operation, future, value in zip(parcel.tasks, parcel.futures, values, strict=True):
            if value is LOCKED:
                waiting.append(Waiting(operation, parcel.loop, future, now))
            else:
                answered.append((future, value))
        self._patience.add(waiting)
        if answered:
            futures, done = zip(*answered, strict=True)
            settle(parcel.loop, futures, done)

    def _attempt(self, operations: Sequence[Operation]) -> Sequence[object] | None:
        """Apply operations on one stream, waiting for its row; None where it is still held. For the patient thread."""
        self._prepare(self._patient_timeout)
        outcomes = self._try(operations, wait=True)
        if not isinstance(outcomes, Exception):
            return outcomes
        return None if diagnose(outcomes) is Trouble.BUSY else self._apart(operations, wait=True)

    def _prepare(self, timeout: LockTimeout) -> None:
        try:
            timeout.prepare()
        except Error:  # what follows finds the same, and says so
            connections[self._using].close()

    def _try(self, operations: Sequence[Operation], *, wait: bool) -> Sequence[object] | Exception:
        """Apply operations together; return the error where that changed nothing."""
        try:
            with self._turn:
                held = () if wait else self._patience.held(operation.path for operation in operations)
                outcomes, commits = writing.apply(operations, self._using, wait=wait, held=held)
        except writing.CommitUncertain:
            logger.exception("The connection was lost during a commit of %d operations.", len(operations))
            connections[self._using].close()
            return [_unavailable("The database did not confirm this. Try again.")] * len(operations)
        except (Error, ValueError) as error:
            if diagnose(error) is Trouble.AWAY:
                connections[self._using].close()
            return error
        if commits:
            self._committed(commits)
        return outcomes

    def _apart(self, operations: Sequence[Operation], *, wait: bool = False) -> Sequence[object]:
        outcomes: list[object] = []
        for operation in operations:
            outcome = self._try([operation], wait=wait)
            if not isinstance(outcome, Exception):
                outcomes.append(outcome[0])
                continue
            trouble = diagnose(outcome)
            if trouble is Trouble.AWAY:
                logger.error("The database does not answer: %s", outcome)
                # No use in asking again for each of the others.
                rest = len(operations) - len(outcomes)
                return outcomes + [_unavailable("The database does not answer. Try again.")] * rest
            if trouble is Trouble.BUSY:
                outcomes.append(_unavailable("The database is busy. Try again.") if wait else LOCKED)
            else:
                outcomes.append(_refusal(outcome))
        return outcomes


def _refusal(error: Exception) -> DurableStreamsError:
    logger.warning("The database does not take this: %s", error)
    return BadRequest("The request has something that cannot be stored.")


def _unavailable(detail: str) -> ServiceUnavailable:
    return ServiceUnavailable(detail, ((b"retry-after", b"1"),))
