"""The committer: the writer thread that commits the operations of many requests at once.

Invariant: a stream's operations are applied in the order in which they arrive. While another transaction holds the
stream's row, they wait in the lock wait queue. They move there before the committer takes another batch, and never
back.

A batch is one transaction over one connection (`Applier`). If it fails, its operations are applied one by one
(`single_operations`). Group commit gains most of the throughput of this package (docs/decisions/group-commit.md). Knows
no SQL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TypeVar

from django.db import Error, IntegrityError, OperationalError, connections

from ..protocol.errors import ServiceUnavailable
from ..runtime.after_commit import follow_up
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker, PendingBatch, split_by_batch
from ..runtime.connection import DedicatedConnection
from ..runtime.database_errors import FailureKind, diagnose
from ..runtime.monitor import DatabaseMonitor
from ..runtime.write_lock import WriteLock
from ..store.operations import Append, Commit, Create, Operation
from ..store.write import group_commit
from ..store.write.batch import LOCKED
from ..store.write.commit_context import CommitContext
from ..store.write.row_cache import RowCache
from .compaction_tracker import CompactionTracker
from .lock_waits import LockWaitQueue, PendingOperation
from .signal_dispatcher import has_created_listeners
from .single_operations import apply_each, repeat_locked

logger = logging.getLogger(__name__)

T = TypeVar("T")

Applied = tuple[Sequence[object], list[Commit]]
"""The outcomes of the operations of a transaction, and its commits."""

MAX_FILE_WAIT = 30.0
"""Seconds for which a batch waits while another process holds the lock of a whole database, as on SQLite."""

BATCH_SIZE = 512
"""Most operations in one transaction, about."""

COMMITTER_LOCK_MS = 100
"""How long a committer waits for a lock, in milliseconds. An example is a path at which another process creates a
stream."""

LOCK_SECONDS = 1
"""The same for databases that count in seconds."""


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
        self.is_stopping = False
        """Whether to stop waiting for locks."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        """Apply operations and return their outcomes. LOCKED: another transaction holds the stream's row.

        On a database with one lock for all rows, this method itself waits for the lock.
        """
        until = time.monotonic() + MAX_FILE_WAIT
        while (outcomes := self._apply(operations)) is None:
            if self.is_stopping or time.monotonic() >= until:
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
            if self.is_stopping:  # since before the connection was made, which `stop` could not cut then
                raise OperationalError("The lock wait queue ends.")
            return group_commit.apply_when_free(path, operations, self.connection.using, lock_ms)

        if self.is_stopping or not self._monitor.answers:
            return self.refusals(len(operations()))
        with self.connection:
            outcomes = self._try_twice(transact, lambda: len(operations()))
            if not isinstance(outcomes, Exception):
                return outcomes
            if self.is_stopping:
                return self.refusals(len(operations()))
            if diagnose(outcomes) is FailureKind.BUSY:
                return [LOCKED]
            refusal = self._monitor.problem_reporter.refusal(outcomes)
            if refusal is not None:
                return [refusal] * len(operations())
            return apply_each(self, operations(), lock_ms)

    def run(self, work: Callable[[], T]) -> T:
        """Do other work that writes, over the same connection.

        Raises:
            django.db.Error: the database cannot be reached, or the work failed.
        """
        with self.connection, self._write_lock.hold():
            self.connection.open()
            return work()

    def stop(self) -> None:
        """Stop to wait for locks, and cut the connection, which may wait for one. Safe to call from any thread."""
        self.is_stopping = True
        self.connection.cut()

    def _apply(self, operations: Sequence[Operation]) -> Sequence[object] | None:
        """Apply operations. None: another process holds the lock of the whole database, and nothing has changed."""
        if not self._monitor.answers:
            return self.refusals(len(operations))
        with self.connection:
            outcomes = self._try_twice(lambda: self._transact(operations), lambda: len(operations))
            if isinstance(outcomes, Exception):
                refusal = self._monitor.problem_reporter.refusal(outcomes)
                if refusal is not None:
                    return [refusal] * len(operations)
                if diagnose(outcomes) is FailureKind.BUSY and not self._has_row_locks:
                    return None
                return apply_each(self, operations)
            if not self._row_cache.was_stale:
                return outcomes
            self._row_cache.was_stale = False
            return repeat_locked(self, operations, outcomes)

    def _try_twice(self, transact: Callable[[], Applied], count: Callable[[], int]) -> Sequence[object] | Exception:
        """Do the same as `_try`, and once more if a connection that may have been dead for long was lost before the
        commit, or if another process has just created a stream, whose row the next attempt reads."""
        outcomes = self._try(transact, count)
        if isinstance(outcomes, IntegrityError):
            return self._try(transact, count)
        if not isinstance(outcomes, Exception) or diagnose(outcomes) is not FailureKind.AWAY:
            return outcomes
        return self._try(transact, count) if self.reconnect() else self.refusals(count())

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

    def try_together(self, operations: Sequence[Operation], lock_ms: int | None) -> Sequence[object] | Exception:
        """Apply operations in one transaction and return their outcomes. If nothing has changed, return the error."""
        return self._try(lambda: self._transact(operations, lock_ms), lambda: len(operations))

    def refusals(self, count: int) -> list[object]:
        """Return the outcomes of operations that are not tried."""
        return [self._monitor.refusal()] * count

    def reconnect(self) -> bool:
        """Connect if there is no connection. Return whether there is one now."""
        try:
            if self._monitor.answers and not self.is_stopping:
                self.connection.open()
                return True
        except Error as error:
            self.connection.close()
            self._monitor.suspect(error)
        return False


class Committer(BatchWorker[Operation]):
    """A writer thread, with a lock wait queue of its own.

    Args:
        name: the name of the thread.
        monitor: says whether the database answers, and makes connections.
        backlog: limits the operations that wait in either queue.
        committed: is called in the thread with the commits of each transaction, after it has committed.
        write_lock: held around each transaction.
        compaction_tracker: says whether small chunks should be staged.
    """

    delays_results = True

    def __init__(
        self,
        name: str,
        monitor: DatabaseMonitor,
        backlog: Backlog,
        committed: Callable[[list[Commit]], None],
        write_lock: WriteLock,
        compaction_tracker: CompactionTracker,
    ) -> None:
        connection = monitor.new_connection(LOCK_SECONDS)
        self._lock_waits = LockWaitQueue(
            f"{name}-lock-wait",
            lambda: Applier(monitor.new_connection(LOCK_SECONDS), monitor, write_lock, committed, COMMITTER_LOCK_MS),
            backlog,
        )
        self._applier = Applier(
            connection,
            monitor,
            write_lock,
            committed,
            COMMITTER_LOCK_MS,
            _CommitterContext(self, self._lock_waits, compaction_tracker),
        )
        super().__init__(name, connection, self._applier.apply, backlog, BATCH_SIZE)

    def write(self, work: Callable[[], object]) -> object:
        """Do other work that writes, over this committer's connection between two batches, and wait for it."""
        return self.between(partial(self._applier.run, work))

    def stop(self) -> None:
        self._applier.is_stopping = True  # the last batches may still commit
        super().stop()
        self._lock_waits.stop()

    def _size_of(self, task: Operation) -> int:
        return len(task.data) if type(task) is Append or type(task) is Create else 0

    def _finish(
        self, batches: list[PendingBatch[Operation]], values: Sequence[object]
    ) -> tuple[list[PendingBatch[Operation]], Sequence[object]]:
        if not any(value is LOCKED for value in values):
            return super()._finish(batches, values)
        now = time.monotonic()
        waiting: list[PendingOperation] = []
        done: list[PendingBatch[Operation]] = []
        outcomes: list[object] = []
        for batch, batch_values in split_by_batch(batches, values):
            rest: PendingBatch[Operation] = PendingBatch(batch.loop, batch.thread)
            for operation, callback, value in zip(batch.tasks, batch.callbacks, batch_values, strict=True):
                size = self._size_of(operation)
                if value is LOCKED:
                    waiting.append(PendingOperation(operation, batch.loop, callback, now, size))
                else:
                    rest.tasks.append(operation)
                    rest.callbacks.append(callback)
                    rest.size += size
                    outcomes.append(value)
            done.append(rest)
        self._lock_waits.add(waiting)
        return super()._finish(done, outcomes)


class _CommitterContext(CommitContext):
    """A committer, as the write path sees it.

    Args:
        committer: delivers results before it waits, and prepares responses before a commit.
        lock_waits: knows the paths whose operations wait for a row.
        compaction_tracker: says whether small chunks should be staged.
    """

    def __init__(self, committer: Committer, lock_waits: LockWaitQueue, compaction_tracker: CompactionTracker) -> None:
        self._committer = committer
        self._lock_waits = lock_waits
        self._is_busy = compaction_tracker.is_busy

    def locked_paths(self, paths: Iterable[str]) -> Collection[str]:
        return self._lock_waits.held(paths)

    def stages_chunks(self) -> bool:
        return self._is_busy()

    def before_wait(self) -> None:
        self._committer.deliver_results()

    def before_commit(self, outcomes: Sequence[object]) -> None:
        self._committer.prepare_results(outcomes)

    def reports_empty_streams(self) -> bool:
        return has_created_listeners()
