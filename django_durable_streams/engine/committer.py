"""The committer: the writer thread that commits the operations of many requests at once.

Invariant: a stream's operations are applied in the order in which they arrive. While another transaction holds the
stream's row, they wait in the lock wait queue. They move there before the committer takes another batch, and never
back.

Group commit gains most of the throughput of this package (docs/decisions/group-commit.md). Knows no SQL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker, PendingBatch, split_by_batch
from ..runtime.monitor import DatabaseMonitor
from ..runtime.write_lock import WriteLock
from ..store.operations import Append, Commit, Create, Operation
from ..store.write.batch import LOCKED
from ..store.write.commit_context import CommitContext
from .applier import Applier
from .compaction_tracker import CompactionTracker
from .lock_waits import LockWaitQueue, PendingOperation
from .signal_dispatcher import has_created_listeners

BATCH_SIZE = 512
"""Most operations in one transaction, about."""

COMMITTER_LOCK_MS = 100
"""How long a committer waits for a lock, in milliseconds. An example is a path at which another process creates a
stream."""

LOCK_SECONDS = 1
"""The same for databases that count in seconds."""


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
        self._applier.stop()
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

    def __init__(
        self,
        committer: Committer,
        lock_waits: LockWaitQueue,
        compaction_tracker: CompactionTracker,
    ) -> None:
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
