"""Applying operations over one line: together and, where that fails, so that none fails for another's sake."""

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
"""What became of the operations of a transaction, and what it has changed."""

MOST_LOST = 3
"""Connections that one batch may lose before the rest of it is refused: some operation may be what kills them."""

MAX_FILE_WAIT = 30.0
"""Seconds for which a batch waits while another process holds all of a database, as it can with SQLite's."""


class Applier:
    """Applies operations, and says of each what became of it: a result, an error, or LOCKED.

    Args:
        line: the connection of the thread that does it.
        pulse: whether the database answers.
        turn: held around each transaction: whose turn it is to write, where only one can.
        committed: is called with what a transaction changed, once that is committed.
        lock_ms: how long to wait for locks, in milliseconds.
        context: what the write path asks and tells the thread. Its row cache is that of the connection.
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
        """Apply operations and return their outcomes. Those of streams whose rows others hold are LOCKED.

        Where a database has one lock for all of it, it is this that waits: what comes later waits behind.
        """
        until = time.monotonic() + MAX_FILE_WAIT
        while (outcomes := self._apply(operations)) is None:
            if self._stopping or time.monotonic() >= until:
                return [ServiceUnavailable("Another process holds the database. Try again.")] * len(operations)
        return outcomes

    def apply_when_free(
        self, path: str, operations: Callable[[], Sequence[Operation]], seconds: float
    ) -> Sequence[object]:
        """Wait for a stream's row, keeping a place among all who do, and apply its operations.

        Args:
            operations: returns them. It is called when the row is there, so that one wait serves all that came by then.
            seconds: how long to wait.

        Returns:
            The outcomes of the operations, of which the first is LOCKED where the row was not to be had.
        """
        lock_ms = max(int(seconds * 1000), 1)

        def transact() -> Applied:
            return group_commit.apply_when_free(path, operations, self.connection.using, lock_ms)

        if self._stopping or not self._monitor.answers:
            return self._away(len(operations()))
        with self.connection:
            outcomes = self._try_twice(transact, lambda: len(operations()))
            if not isinstance(outcomes, Exception):
                return outcomes
            if self._stopping:
                return self._away(len(operations()))
            if diagnose(outcomes) is FailureKind.BUSY:
                return [LOCKED]
            refusal = self._monitor.problem_reporter.refusal(outcomes)
            if refusal is not None:
                return [refusal] * len(operations())
            return self._apart(operations(), lock_ms)

    def run(self, work: Callable[[], T]) -> T:
        """Have something else written over the line.

        Raises:
            django.db.Error: there is no connection to be had.
        """
        with self.connection, self._write_lock.hold():
            self.connection.open()
            return work()

    def stop(self) -> None:
        """Wait no more for what others hold. Safe to call from any thread."""
        self._stopping = True
        self.connection.cut()

    def _apply(self, operations: Sequence[Operation]) -> Sequence[object] | None:
        """Apply operations; return None, with nothing changed, where somebody holds all of the database."""
        if not self._monitor.answers:
            return self._away(len(operations))
        with self.connection:
            outcomes = self._try_twice(lambda: self._transact(operations), lambda: len(operations))
            if isinstance(outcomes, Exception):
                refusal = self._monitor.problem_reporter.refusal(outcomes)
                if refusal is not None:
                    return [refusal] * len(operations)
                if diagnose(outcomes) is FailureKind.BUSY and not self._has_row_locks:
                    return None
                return self._apart(operations)
            return self._again(operations, outcomes) if self._row_cache.was_stale else outcomes

    def _try_twice(self, transact: Callable[[], Applied], count: Callable[[], int]) -> Sequence[object] | Exception:
        """The same as `_try`, and once more over another connection where the first was lost before the commit.

        That connection may have been dead for long.
        """
        outcomes = self._try(transact, count)
        if not isinstance(outcomes, Exception) or diagnose(outcomes) is not FailureKind.AWAY:
            return outcomes
        return self._try(transact, count) if self._reconnect() else self._away(count())

    def _try(self, transact: Callable[[], Applied], count: Callable[[], int]) -> Sequence[object] | Exception:
        """Do a transaction and return its outcomes, or the error where that changed nothing.

        Args:
            count: returns how many operations are refused where nobody knows what became of the transaction.
        """
        try:
            if not self._row_cache.is_alone:
                self._context.before_wait()
            with self._write_lock.hold(self._context.before_wait):
                self.connection.open()
                outcomes, commits = transact()
        except group_commit.CommitUncertain as error:
            if isinstance(error.__cause__, Error) and diagnose(error.__cause__) is not FailureKind.AWAY:
                return error.__cause__  # it said no
            logger.error("The connection was lost during a commit of %d operations.", count())
            self.connection.close()
            return [ServiceUnavailable("The database did not confirm this. Try again.")] * count()
        except (Error, ValueError) as error:
            if diagnose(error) in (
                FailureKind.AWAY,
                FailureKind.SETUP,
            ):  # another connection may lead to where it is right
                self.connection.close()
            return error
        if commits:
            follow_up("Nobody was told of it.", self._committed, commits)
        return outcomes

    def _transact(self, operations: Sequence[Operation], lock_ms: int | None = None) -> Applied:
        """Apply operations in a transaction.

        Args:
            lock_ms: how long to wait for rows that others hold, in milliseconds. None: not at all.
        """
        return group_commit.apply(
            operations,
            self.connection.using,
            context=self._context,
            wait=lock_ms is not None,
            lock_ms=self._lock_ms if lock_ms is None else lock_ms,
        )

    def _again(self, operations: Sequence[Operation], outcomes: Sequence[object]) -> Sequence[object]:
        """Apply those operations with a look at their streams that were LOCKED because they had not had one."""
        self._row_cache.was_stale = False
        rest = [operation for operation, outcome in zip(operations, outcomes, strict=True) if outcome is LOCKED]
        redone = self._try(lambda: self._transact(rest), lambda: len(rest))
        if isinstance(redone, Exception):
            return outcomes
        found = iter(redone)
        return [next(found) if outcome is LOCKED else outcome for outcome in outcomes]

    def _apart(self, operations: Sequence[Operation], lock_ms: int | None = None) -> Sequence[object]:
        """Apply operations one by one. A stream's requests keep their order.

        So behind one that waits, those that follow on its stream wait too; and behind one that could not be done, they
        are not done either: its client sends it again, and would send it behind them.
        """
        outcomes: list[object] = []
        stopped: dict[str, object] = {}
        lost = 0
        for operation in operations:
            outcome = stopped.get(operation.path)
            if outcome is None:
                outcome = self._one(operation, lock_ms)
                if outcome is LOCKED or isinstance(outcome, ServiceUnavailable):
                    stopped[operation.path] = outcome
                if isinstance(outcome, ServiceUnavailable):
                    lost += 1
                    if lost == MOST_LOST or not self._reconnect():
                        return [*outcomes, *self._away(len(operations) - len(outcomes))]
            outcomes.append(outcome)
        return outcomes

    def _one(self, operation: Operation, lock_ms: int | None) -> object:
        def transact() -> Applied:
            return self._transact([operation], lock_ms)

        tries = 1
        while isinstance(outcomes := self._try(transact, lambda: 1), IntegrityError) and tries < group_commit.TRIES:
            tries += 1
        return _meaning(outcomes) if isinstance(outcomes, Exception) else outcomes[0]

    def _away(self, count: int) -> list[object]:
        return [self._monitor.refusal()] * count

    def _reconnect(self) -> bool:
        """Connect, if there is no connection; return whether there is one."""
        try:
            if self._monitor.answers and not self._stopping:
                self.connection.open()
                return True
        except Error as error:
            self.connection.close()
            self._monitor.suspect(error)
        return False


def _meaning(error: Exception) -> Outcome:
    """Return what an error is for the one operation that met it."""
    match diagnose(error):
        case FailureKind.BUSY:
            return LOCKED
        case FailureKind.AWAY | FailureKind.SETUP:
            logger.error("The database could not do this: %s", error)
            return ServiceUnavailable("The database could not do this. Try again.")
        case FailureKind.REFUSED:
            logger.warning("The database does not take this: %s", error)
            return BadRequest("The request has something that cannot be stored.")
