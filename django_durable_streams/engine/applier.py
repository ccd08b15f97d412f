"""The applier: it applies a batch of operations over one connection, and isolates failures.

A batch is one transaction. If it fails, its operations are applied one by one, so that no operation fails because of
another one. Knows neither the queue from which the operations come nor their callers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.db import Error, IntegrityError, connections

from ..protocol.errors import BadRequest, ServiceUnavailable
from ..runtime.after_commit import follow_up
from ..runtime.connection import DedicatedConnection
from ..runtime.database_errors import FailureKind, diagnose
from ..runtime.monitor import DatabaseMonitor
from ..runtime.write_lock import WriteLock
from ..store.operations import Commit, Operation
from ..store.write import group_commit
from ..store.write.batch import LOCKED, Outcome
from ..store.write.commit_context import CommitContext
from ..store.write.row_cache import RowCache

logger = logging.getLogger(__name__)

T = TypeVar("T")

Applied = tuple[Sequence[object], list[Commit]]
"""The outcomes of the operations of a transaction, and its commits."""

MAX_LOST_CONNECTIONS = 3
"""Connections that one batch may lose before the rest of it is refused. One of its operations may kill them."""

MAX_FILE_WAIT = 30.0
"""Seconds for which a batch waits while another process holds the lock of a whole database, as on SQLite."""


class Applier:
    """Applies operations. The outcome of each is a result, an error, or LOCKED.

    Args:
        connection: the connection of the thread that calls the applier.
        monitor: says whether the database answers.
        write_lock: held around each transaction.
        committed: is called with the commits of each transaction, after it has committed.
        lock_ms: how long to wait for locks, in milliseconds.
        context: the thread, as the write path sees it. It gets a row cache for the connection.
    """

    def __init__(
        self,
        connection: DedicatedConnection,
        monitor: DatabaseMonitor,
        write_lock: WriteLock,
        committed: Callable[[list[Commit]], None],
        lock_ms: int,
        context: CommitContext | None = None,
    ) -> None:
        self.connection = connection
        self._monitor = monitor
        self._write_lock = write_lock
        self._committed = committed
        self._lock_ms = lock_ms
        self._context = CommitContext() if context is None else context
        self._row_cache = self._context.row_cache = RowCache()
        self._has_row_locks = connections[connection.using].features.has_select_for_update
        self._stopping = False

    def apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        """Apply operations and return their outcomes. LOCKED: another transaction holds the stream's row.

        On a database with one lock for all rows, this method itself waits for the lock.
        """
        until = time.monotonic() + MAX_FILE_WAIT
        while (outcomes := self._apply(operations)) is None:
            if self._stopping or time.monotonic() >= until:
                return [ServiceUnavailable("Another process holds the database's lock. Try again.")] * len(operations)
        return outcomes

    def apply_when_free(
        self, path: str, operations: Callable[[], Sequence[Operation]], seconds: float
    ) -> Sequence[object]:
        """Wait for a stream's row, with a place in the database's queue, and apply the stream's operations.

        Args:
            operations: returns the operations. It is called when the row is locked, so that one wait serves all
                operations that have arrived by then.
            seconds: how long to wait.

        Returns:
            The outcomes of the operations. The first is LOCKED if the row was not free in time.
        """
        lock_ms = max(int(seconds * 1000), 1)

        def transact() -> Applied:
            return group_commit.apply_when_free(path, operations, self.connection.using, lock_ms)

        if self._stopping or not self._monitor.answers:
            return self._refusals(len(operations()))
        with self.connection:
            outcomes = self._try_twice(transact, lambda: len(operations()))
            if not isinstance(outcomes, Exception):
                return outcomes
            if self._stopping:
                return self._refusals(len(operations()))
            if diagnose(outcomes) is FailureKind.BUSY:
                return [LOCKED]
            refusal = self._monitor.problem_reporter.refusal(outcomes)
            if refusal is not None:
                return [refusal] * len(operations())
            return self._apply_each(operations(), lock_ms)

    def run(self, work: Callable[[], T]) -> T:
        """Do other work that writes, over the same connection.

        Raises:
            django.db.Error: the database cannot be reached, or the work failed.
        """
        with self.connection, self._write_lock.hold():
            self.connection.open()
            return work()

    def stop(self) -> None:
        """Stop to wait for locks. Safe to call from any thread."""
        self._stopping = True
        self.connection.cut()

    def _apply(self, operations: Sequence[Operation]) -> Sequence[object] | None:
        """Apply operations. None: another process holds the lock of the whole database, and nothing has changed."""
        if not self._monitor.answers:
            return self._refusals(len(operations))
        with self.connection:
            outcomes = self._try_twice(lambda: self._transact(operations), lambda: len(operations))
            if isinstance(outcomes, Exception):
                refusal = self._monitor.problem_reporter.refusal(outcomes)
                if refusal is not None:
                    return [refusal] * len(operations)
                if diagnose(outcomes) is FailureKind.BUSY and not self._has_row_locks:
                    return None
                return self._apply_each(operations)
            return self._repeat_with_read(operations, outcomes) if self._row_cache.was_stale else outcomes

    def _try_twice(self, transact: Callable[[], Applied], count: Callable[[], int]) -> Sequence[object] | Exception:
        """Do the same as `_try`, and once more over a new connection if the first was lost before the commit.

        The first connection may have been dead for long.
        """
        outcomes = self._try(transact, count)
        if not isinstance(outcomes, Exception) or diagnose(outcomes) is not FailureKind.AWAY:
            return outcomes
        return self._try(transact, count) if self._reconnect() else self._refusals(count())

    def _try(self, transact: Callable[[], Applied], count: Callable[[], int]) -> Sequence[object] | Exception:
        """Do a transaction and return its outcomes. If it has changed nothing, return its error.

        Args:
            transact: does the transaction.
            count: returns the number of operations, which are all refused if the outcome of the commit is unknown.
        """
        try:
            if not self._row_cache.is_alone:
                self._context.before_wait()
            with self._write_lock.hold(self._context.before_wait):
                self.connection.open()
                outcomes, commits = transact()
        except group_commit.CommitUncertain as error:
            if isinstance(error.__cause__, Error) and diagnose(error.__cause__) is not FailureKind.AWAY:
                return error.__cause__  # the database refused the commit
            logger.error(
                "The connection was lost during a commit of %d operations. Their outcome is unknown, so they get 503.",
                count(),
            )
            self.connection.close()
            return [ServiceUnavailable("The database did not confirm this. Try again.")] * count()
        except (Error, ValueError) as error:
            if diagnose(error) in (FailureKind.AWAY, FailureKind.SETUP):
                self.connection.close()  # a new connection may work
            return error
        if commits:
            follow_up("Readers learn of the commit by polling.", self._committed, commits)
        return outcomes

    def _transact(self, operations: Sequence[Operation], lock_ms: int | None = None) -> Applied:
        """Apply operations in a transaction.

        Args:
            lock_ms: how long to wait for locked rows, in milliseconds. None: not at all.
        """
        return group_commit.apply(
            operations,
            self.connection.using,
            context=self._context,
            wait=lock_ms is not None,
            lock_ms=self._lock_ms if lock_ms is None else lock_ms,
        )

    def _repeat_with_read(self, operations: Sequence[Operation], outcomes: Sequence[object]) -> Sequence[object]:
        """Apply the LOCKED operations once more, and read their rows first, because the row cache was stale."""
        self._row_cache.was_stale = False
        rest = [operation for operation, outcome in zip(operations, outcomes, strict=True) if outcome is LOCKED]
        redone = self._try(lambda: self._transact(rest), lambda: len(rest))
        if isinstance(redone, Exception):
            return outcomes
        new_outcomes = iter(redone)
        return [next(new_outcomes) if outcome is LOCKED else outcome for outcome in outcomes]

    def _apply_each(self, operations: Sequence[Operation], lock_ms: int | None = None) -> Sequence[object]:
        """Apply operations one by one, in the order of their stream.

        If an operation has to wait, later operations of its stream wait too. If an operation could not be applied,
        later ones are refused as well, because its client may send it again.
        """
        outcomes: list[object] = []
        stopped: dict[str, object] = {}
        lost_connections = 0
        for operation in operations:
            outcome = stopped.get(operation.path)
            if outcome is None:
                outcome = self._apply_one(operation, lock_ms)
                if outcome is LOCKED or isinstance(outcome, ServiceUnavailable):
                    stopped[operation.path] = outcome
                if isinstance(outcome, ServiceUnavailable):
                    lost_connections += 1
                    if lost_connections == MAX_LOST_CONNECTIONS or not self._reconnect():
                        return [*outcomes, *self._refusals(len(operations) - len(outcomes))]
            outcomes.append(outcome)
        return outcomes

    def _apply_one(self, operation: Operation, lock_ms: int | None) -> object:
        def transact() -> Applied:
            return self._transact([operation], lock_ms)

        tries = 1
        while isinstance(outcomes := self._try(transact, lambda: 1), IntegrityError) and tries < group_commit.TRIES:
            tries += 1
        return _outcome_of_error(outcomes) if isinstance(outcomes, Exception) else outcomes[0]

    def _refusals(self, count: int) -> list[object]:
        return [self._monitor.refusal()] * count

    def _reconnect(self) -> bool:
        """Connect if there is no connection. Return whether there is one now."""
        try:
            if self._monitor.answers and not self._stopping:
                self.connection.open()
                return True
        except Error as error:
            self.connection.close()
            self._monitor.suspect(error)
        return False


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
