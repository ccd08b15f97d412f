"""Who commits a batch: what the write path asks and tells its caller while it works.

The defaults suit a caller that waits in its own thread, such as a Python caller. A committer overrides the methods.
Knows neither the rules of streams nor SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from .row_cache import RowCache


class CommitContext:
    """The caller of `group_commit.apply`, and the row cache of its connection.

    All methods are called in the thread that commits.
    """

    row_cache: RowCache | None = None
    """The stream rows as earlier batches left them. None: every batch reads its rows. Inside a transaction of the
    caller it must be None, because that transaction may be rolled back."""

    def locked_paths(self, paths: Iterable[str]) -> Collection[str]:
        """Return those of the paths whose operations must wait, whether or not their row is free."""
        return ()

    def stages_chunks(self) -> bool:
        """Return whether small chunks go to the table of staged chunks, which is worth it for a busy process."""
        return False

    def before_wait(self) -> None:
        """Called before the transaction waits for the database or the write lock, and before its commit at the latest.

        A committer delivers the results of its previous batch here.
        """

    def before_commit(self, outcomes: Sequence[object]) -> None:
        """Called with the outcomes before the commit, so that responses can be prepared meanwhile.

        The outcomes are valid only if `group_commit.apply` returns the same objects in the same places.
        """

    def reports_empty_streams(self) -> bool:
        """Return whether the commits must include new streams without data. Live readers need them only rarely."""
        return True


WITHOUT_CALLBACKS = CommitContext()
"""The context of a caller that waits in its own thread. It has no state, so all of them share it."""
