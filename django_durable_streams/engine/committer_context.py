"""What the write path asks and tells a committer while it works. Knows neither operations nor SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from ..runtime.batch_worker import BatchWorker
from ..store.operations import Operation
from ..store.write.commit_context import CommitContext
from .compaction_tracker import CompactionTracker
from .lock_waits import LockWaitQueue
from .signal_dispatcher import has_created_listeners


class CommitterContext(CommitContext):
    """What the write path asks and tells a committer while it works."""

    def __init__(
        self, committer: BatchWorker[Operation], lock_waits: LockWaitQueue, compaction_tracker: CompactionTracker
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
