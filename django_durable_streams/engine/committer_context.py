"""What the write path asks and tells a committer while it works, and the commits that wait for their announcement.

Answers come first: a committer holds its commits until the outcomes of their batch are on their way. Readers, signals
and other processes learn of a commit some microseconds later. If the committer has to wait before that, it announces
the commits first. Knows no transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from threading import Event

from ..runtime.after_commit import follow_up
from ..runtime.batch_worker import BatchWorker
from ..store.operations import Commit, Operation
from ..store.write import registry_entries
from ..store.write.commit_context import CommitContext
from .compaction_tracker import CompactionTracker
from .lock_waits import LockWaitQueue
from .signal_dispatcher import has_created_listeners


class HeldCommits:
    """The commits of one committer that were not announced yet. Use it in the committer's thread.

    Args:
        on_commit: is called with the commits of each transaction.
    """

    def __init__(self, on_commit: Callable[[list[Commit]], None]) -> None:
        self._on_commit = on_commit
        self._transactions: list[list[Commit]] = []
        self._all_announced = Event()
        self._all_announced.set()

    def hold(self, commits: list[Commit]) -> None:
        """Hold the commits of a transaction."""
        self._all_announced.clear()
        self._transactions.append(commits)

    def announce(self) -> None:
        """Announce the commits that are held, in their order."""
        if self._transactions:
            while self._transactions:
                follow_up("Readers learn of the commit by polling.", self._on_commit, self._transactions.pop(0))
            self._all_announced.set()

    def wait(self, seconds: float) -> None:
        """Wait until no commit is held, or until the time is over. Safe to call from any thread."""
        self._all_announced.wait(seconds)


class CommitterContext(CommitContext):
    """What the write path asks and tells a committer while it works."""

    def __init__(
        self,
        committer: BatchWorker[Operation],
        lock_waits: LockWaitQueue,
        compaction_tracker: CompactionTracker,
        held_commits: HeldCommits,
    ) -> None:
        self._committer = committer
        self._lock_waits = lock_waits
        self._held_commits = held_commits
        self._is_busy = compaction_tracker.is_busy

    def locked_paths(self, paths: Iterable[str]) -> Collection[str]:
        return self._lock_waits.held(paths)

    def stages_chunks(self) -> bool:
        return self._is_busy()

    def before_wait(self) -> None:
        self._committer.deliver_results()
        self._held_commits.announce()

    def before_commit(self, outcomes: Sequence[object]) -> None:
        self._committer.prepare_results(outcomes)

    def reports_empty_streams(self) -> bool:
        return has_created_listeners() or registry_entries.path() is not None
