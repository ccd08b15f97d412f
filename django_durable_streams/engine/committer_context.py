"""What the write path asks and tells a committer while it works, and the commits that wait for their announcement.

Answers come first: a committer holds its commits until the outcomes of their batch are on their way. Readers, signals
and other processes learn of a commit some microseconds later. If the committer has to wait before that, it announces
the commits first. Knows no transactions.

An optimisation beyond that order is `CommitterContext.wait_for_answers`. Outcomes that are on their way are no answers
yet: the event loop would take in the news for its readers in the same turn, before the bytes of the answers leave.

- Invariant: each commit is announced, `ANSWER_SECONDS` after its outcomes at the latest.
- It waits only for the answers of a few requests, to a stream with many live readers, while no operation waits. The
  news for a few readers take less time than the wait.
- Gain: beside other load, the fastest tenth of the answers with 500 readers take 1.1 ms instead of 2.6.
  `python -m benchmarks.lone` compares answers with and without readers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from threading import Event

from ..runtime import execution
from ..runtime.after_commit import follow_up
from ..runtime.batch_worker import PREPARE_FROM_TASKS, BatchWorker
from ..runtime.pending_batch import PendingBatch
from ..runtime.results import NO_LOOP, wait_for_turn
from ..store.operations import Commit, Operation
from ..store.write import registry_entries
from ..store.write.commit_context import CommitContext
from .compaction_tracker import CompactionTracker
from .lock_waits import LockWaitQueue
from .signal_dispatcher import has_created_listeners

ANSWER_SECONDS = 0.001
"""How long the announcement of a small batch waits for the answers of its requests."""

WAIT_FROM_READERS = 8
"""Live readers of a stream from which the announcement waits."""


class HeldCommits:
    """The commits of one committer that were not announced yet. Use it in the committer's thread.

    Args:
        on_commit: is called with the commits of each transaction.
    """

    def __init__(self, on_commit: Callable[[list[Commit]], None]) -> None:
        self._on_commit = on_commit
        self._transactions: list[list[Commit]] = []
        self._waiting: list[Event] = []  # of `wait`: an Event for each batch would take ten calls

    def hold(self, commits: list[Commit]) -> None:
        """Hold the commits of a transaction."""
        self._transactions.append(commits)

    def has_stream(self, condition: Callable[[int], bool]) -> bool:
        """Return whether one of the commits that are held is to a stream whose id meets a condition."""
        return any(condition(commit.stream_id) for commits in self._transactions for commit in commits)

    def announce(self) -> None:
        """Announce the commits that are held, in their order."""
        transactions = self._transactions
        while transactions:
            try:
                follow_up("Readers learn of the commit by polling.", self._on_commit, transactions[0])
            finally:
                del transactions[0]
        for waiting in [*self._waiting]:
            waiting.set()

    def wait(self, seconds: float) -> None:
        """Wait until no commit is held, or until the time is over. Safe to call from any thread.

        A signal handler may raise in it, so the committer never waits for a thread that waits here.
        """
        are_announced = Event()
        self._waiting.append(are_announced)
        try:
            if self._transactions:
                are_announced.wait(seconds)
        finally:
            self._waiting.remove(are_announced)


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
        self.is_watched: Callable[[int, int], bool] = lambda stream_id, by: False
        """Whether a stream, by its id, has so many live readers in an event loop of this process."""
        self.before_data: Callable[[int], None] = lambda size: None
        """Called before each commit, with the bytes of data that it has at most."""

    def locked_paths(self, paths: Iterable[str]) -> Collection[str]:
        return self._lock_waits.held(paths)

    def stages_chunks(self) -> bool:
        return self._is_busy()

    def before_wait(self) -> None:
        self._committer.deliver_results()
        self._held_commits.announce()

    def wait_for_answers(self, batches: Sequence[PendingBatch[Operation]]) -> None:
        """Wait until the event loop has answered the requests of a small batch whose commits are held."""
        if len(batches) != 1 or len(batches[0].tasks) >= PREPARE_FROM_TASKS:
            return
        loop = batches[0].loop
        if loop is NO_LOOP or execution.is_inline():
            return
        if self._held_commits.has_stream(lambda stream_id: self.is_watched(stream_id, WAIT_FROM_READERS)):
            wait_for_turn(loop, ANSWER_SECONDS)

    def before_commit(self, outcomes: Sequence[object]) -> None:
        self.before_data(self._committer.bytes_at_work)
        self._committer.prepare_results(outcomes)

    def reports_empty_streams(self) -> bool:
        return has_created_listeners() or registry_entries.path() is not None
