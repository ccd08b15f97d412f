"""The committer: the writer thread that commits the operations of many requests at once.

Invariant: a stream's operations are applied in the order in which they arrive. While another transaction holds the
stream's row, they wait in the lock wait queue, and never come back. As long as operations of a stream wait there, a
batch leaves later ones LOCKED without touching the row (`locked_paths`). They move behind the others before the
committer takes its next batch (`_finish`).

A batch is one transaction over one connection (`Applier`, "When a batch fails" in docs/architecture.md). Knows no SQL.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import TypeVar

from django.db import Error, IntegrityError, OperationalError, connections

from ..protocol.errors import ServiceUnavailable
from ..runtime.after_commit import follow_up
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker
from ..runtime.connection import DedicatedConnection
from ..runtime.database_errors import FailureKind, diagnose, drop_frames
from ..runtime.monitor import DatabaseMonitor
from ..runtime.pending_batch import PendingBatch, split_by_batch
from ..runtime.write_lock import WriteLock
from ..store.operations import Commit, Operation
from ..store.write import group_commit
from ..store.write.batch import LOCKED
from ..store.write.commit_context import CommitContext
from ..store.write.row_cache import make_row_cache
from .committer_context import CommitterContext, HeldCommits
from .compaction_tracker import CompactionTracker
from .lock_waits import LockWaitQueue, PendingOperation
from .single_operations import apply_each, repeat_locked

logger = logging.getLogger(__name__)

T = TypeVar("T")

Applied = tuple[Sequence[object], list[Commit]]
"""The outcomes of the operations of a transaction, and its commits."""

Attempt = Sequence[object] | Exception
"""The outcomes of the operations of a transaction or, if it has changed nothing, its error."""

MAX_DATABASE_LOCK_SECONDS = 30.0
"""How long a batch waits while another process holds the lock of the whole database, as on SQLite."""

BATCH_SIZE = 512
"""Number of operations from which a batch takes no more of the waiting ones."""

COMMITTER_LOCK_MS = 100
"""Limit of a wait that cannot be skipped: for a table, or for a path at which another process creates a stream."""

LOCK_SECONDS = 1
"""The same on MariaDB and MySQL, which count in seconds. On SQLite it switches SQLite's own wait off."""

ANNOUNCEMENT_SECONDS = 1.0
"""How long the end of a process waits for announcements. They follow the answers within microseconds."""


class Applier:
    """Applies operations over one connection. The outcome of each is a result, an error, or LOCKED.

    LOCKED means that the operation has changed nothing: another transaction holds the row of its stream or has changed
    it, or an earlier operation of its stream is LOCKED or waits in the lock wait queue.

    Args:
        connection: the connection of the thread that calls the applier.
        monitor: says whether the database answers.
        write_lock: held around each transaction on SQLite.
        on_commit: is called with the commits of each transaction, after it has committed.
        lock_ms: how long to wait for locks that cannot be skipped, in milliseconds.
        context: what the write path asks and tells the thread while it works. Gets a row cache for the connection.
    """

    def __init__(
        self,
        connection: DedicatedConnection,
        monitor: DatabaseMonitor,
        write_lock: WriteLock,
        on_commit: Callable[[list[Commit]], None],
        lock_ms: int,
        context: CommitContext | None = None,
    ) -> None:
        self.connection = connection
        self._monitor = monitor
        self._write_lock = write_lock
        self._on_commit = on_commit
        self._lock_ms = lock_ms
        self._context = CommitContext() if context is None else context
        self._row_cache = self._context.row_cache = make_row_cache(connection.using)
        self._has_row_locks = connections[connection.using].features.has_select_for_update
        self.is_stopping = False
        """Whether to stop waiting for locks."""

    def apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        """Apply operations and return their outcomes. On SQLite each attempt waits for the lock (`sql.sqlite_busy`)."""
        until = time.monotonic() + MAX_DATABASE_LOCK_SECONDS
        while (outcomes := self._apply(operations)) is None:
            if self.is_stopping or time.monotonic() >= until:
                return [ServiceUnavailable("Another process holds the database's lock. Try again.")] * len(operations)
        return outcomes

    def apply_when_free(
        self, path: str, operations: Callable[[], Sequence[Operation]], seconds: float
    ) -> Sequence[object]:
        """Wait for a stream's row, with a place in the database's queue, and apply the stream's operations.

        Args:
            operations: returns the operations that wait now. It is called when the row is locked, so that one wait
                serves all that have arrived by then. Where none is applied, it is called for their number.
            seconds: how long to wait.

        Returns:
            The outcomes of the operations, up to the first LOCKED. Only LOCKED if the row was not free in time.
        """
        lock_ms = max(int(seconds * 1000), 1)

        def transact() -> Applied:
            if self.is_stopping:  # since before the connection was made, which `stop` could not cut then
                raise OperationalError("The lock wait queue ends.")
            return group_commit.apply_when_free(path, operations, self.connection.using, lock_ms)

        if self.is_stopping or not self._monitor.answers:
            return self.refuse(len(operations()))
        with self.connection:
            attempt = self._try_twice(transact, lambda: len(operations()))
            if not isinstance(attempt, Exception):
                return attempt
            if self.is_stopping:
                return self.refuse(len(operations()))
            if diagnose(attempt) is FailureKind.BUSY:
                return [LOCKED]
            refusal = self._monitor.problem_reporter.report(attempt)
            if refusal is not None:
                return [refusal] * len(operations())
            return apply_each(self, operations(), lock_ms)

    @property
    def competes(self) -> bool:
        """Whether another connection has written since the last batch, as far as the row cache knows."""
        return self._row_cache is not None and self._row_cache.others_write

    def run(self, work: Callable[[], T]) -> T:
        """Do other work that writes, in this thread, over the connection, with the write lock.

        The work must not change rows of streams or producers (see `row_cache`).

        Raises:
            django.db.Error: the database cannot be reached, or the work failed.
        """
        with self.connection, self._write_lock.hold():
            self.connection.open()
            return work()

    def stop(self) -> None:
        """Stop waiting for locks, and cut the connection, which may wait for one. Safe to call from any thread."""
        self.is_stopping = True
        self.connection.cut()

    def _apply(self, operations: Sequence[Operation]) -> Sequence[object] | None:
        """Apply operations. None: another process holds the lock of the whole database, and nothing has changed."""
        if not self._monitor.answers:
            return self.refuse(len(operations))
        with self.connection:
            attempt = self._try_twice(lambda: self._transact(operations), lambda: len(operations))
            if isinstance(attempt, Exception):
                refusal = self._monitor.problem_reporter.report(attempt)
                if refusal is not None:
                    return [refusal] * len(operations)
                if diagnose(attempt) is FailureKind.BUSY and not self._has_row_locks:
                    return None
                return apply_each(self, operations)
            if self._row_cache is None or not self._row_cache.needs_repeat:
                return attempt
            self._row_cache.needs_repeat = False
            return repeat_locked(self, operations, attempt)

    def _try_twice(self, transact: Callable[[], Applied], count: Callable[[], int]) -> Attempt:
        """Do `_try`, and once more over another connection if it was lost before the commit, or if another process has
        just created a stream, whose row the next attempt reads."""
        attempt = self._try(transact, count)
        if isinstance(attempt, IntegrityError):
            return self._try(transact, count)
        if not isinstance(attempt, Exception) or diagnose(attempt) is not FailureKind.AWAY:
            return attempt
        return self._try(transact, count) if self.reconnect() else self.refuse(count())

    def _try(self, transact: Callable[[], Applied], count: Callable[[], int]) -> Attempt:
        """Do a transaction and return its outcomes or, if it has changed nothing, its error.

        If the connection is lost during the commit, the transaction must not be repeated: the outcomes are errors.
        """
        try:
            # Results of the previous batch do not wait for a lock, which is likely taken if other connections write.
            if self.competes:
                self._context.before_wait()
            with self._write_lock.hold(self._context.before_wait):
                self.connection.open()
                outcomes, commits = transact()
        except group_commit.CommitUncertain as error:
            drop_frames(error)
            if isinstance(error.__cause__, Error) and diagnose(error.__cause__) is not FailureKind.AWAY:
                return error.__cause__  # the database refused the commit
            logger.error(
                "The connection was lost during a commit of %d operations. Their outcome is unknown, so they get 503.",
                count(),
            )
            self.connection.close()
            return [ServiceUnavailable("The database did not confirm this. Try again.")] * count()
        except (Error, ValueError) as error:  # ValueError: the driver cannot encode a value
            drop_frames(error)
            if diagnose(error) in (FailureKind.AWAY, FailureKind.SETUP):
                self.connection.close()  # a new connection may work
            return error
        if commits:
            follow_up("Readers learn of the commit by polling.", self._on_commit, commits)
        return outcomes

    def _transact(self, operations: Sequence[Operation], lock_ms: int | None = None) -> Applied:
        """Apply operations in a transaction.

        Args:
            lock_ms: how long to wait for locks, in milliseconds. None: locked rows are skipped.
        """
        return group_commit.apply(
            operations,
            self.connection.using,
            context=self._context,
            wait=lock_ms is not None,
            lock_ms=self._lock_ms if lock_ms is None else lock_ms,
        )

    # For `single_operations`.

    def try_together(self, operations: Sequence[Operation], lock_ms: int | None) -> Attempt:
        """Apply operations in one transaction and return their outcomes. If nothing has changed, return the error."""
        return self._try(lambda: self._transact(operations, lock_ms), lambda: len(operations))

    def refuse(self, count: int) -> list[object]:
        """Return the outcomes of operations that are not tried, because the database does not answer."""
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
        backlog: limits the operations that wait for the committer or in its lock wait queue.
        on_commit: is called in the thread with the commits of each transaction, after it has committed.
        write_lock: held around each transaction on SQLite.
        compaction_tracker: says whether small chunks should be staged.
    """

    delays_results = True  # until `CommitterContext.before_wait`
    data_of = attrgetter("data")

    def __init__(
        self,
        name: str,
        monitor: DatabaseMonitor,
        backlog: Backlog,
        on_commit: Callable[[list[Commit]], None],
        write_lock: WriteLock,
        compaction_tracker: CompactionTracker,
    ) -> None:
        connection = monitor.new_connection(LOCK_SECONDS)
        self._lock_waits = LockWaitQueue(
            f"{name}-lock-wait",
            lambda: Applier(monitor.new_connection(LOCK_SECONDS), monitor, write_lock, on_commit, COMMITTER_LOCK_MS),
            backlog,
        )
        self._held_commits = HeldCommits(on_commit)
        self.context = CommitterContext(self, self._lock_waits, compaction_tracker, self._held_commits)
        hold = self._held_commits.hold
        self._applier = Applier(connection, monitor, write_lock, hold, COMMITTER_LOCK_MS, self.context)
        super().__init__(name, connection, self._applier.apply, backlog, BATCH_SIZE)

    def write(self, work: Callable[[], object]) -> object:
        """Let the thread do other work that writes, between two batches, and wait for it (see `Applier.run`)."""
        return self.between(partial(self._applier.run, work))

    def stop(self) -> None:
        self._applier.is_stopping = True  # the last batches may still commit
        super().stop()
        self._lock_waits.stop()

    def deliver_results(self) -> None:
        """Deliver the results that are held back, and announce their commits after that."""
        if self._undelivered is not None:
            batches, _ = self._undelivered
            super().deliver_results()
            if not self._batches_at_work and self._queue.empty():
                self.context.wait_for_answers(batches)
            self._held_commits.announce()

    def competes(self) -> bool:
        return self._applier.competes

    def wait_for_announcements(self) -> None:
        """Wait until commits whose results were delivered are announced as well. Safe to call from any thread."""
        self._held_commits.wait(ANNOUNCEMENT_SECONDS)

    def _finish(
        self, batches: list[PendingBatch[Operation]], values: Sequence[object]
    ) -> tuple[list[PendingBatch[Operation]], Sequence[object]]:
        """Move LOCKED operations to the lock wait queue, in their order. Return the others, with their outcomes."""
        if not [value for value in values if value is LOCKED]:  # faster than `any`
            return super()._finish(batches, values)
        now = time.monotonic()
        waiting: list[PendingOperation] = []
        done_batches: list[PendingBatch[Operation]] = []
        outcomes: list[object] = []
        for batch, batch_values in split_by_batch(batches, values):
            done: PendingBatch[Operation] = PendingBatch(batch.loop, batch.thread)
            for operation, callback, value in zip(batch.tasks, batch.callbacks, batch_values, strict=True):
                size = len(operation.data)
                if value is LOCKED:
                    waiting.append(PendingOperation(operation, batch.loop, callback, now, size))
                else:
                    done.tasks.append(operation)
                    done.callbacks.append(callback)
                    done.size += size
                    outcomes.append(value)
            done_batches.append(done)
        self._lock_waits.add(waiting)
        return super()._finish(done_batches, outcomes)
