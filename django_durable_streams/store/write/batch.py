"""The streams of a batch of operations, inside its transaction.

The rows are locked in the order of their ids, and operations are applied to working copies in the order of their
arrival. `batch_saving` writes the changes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from enum import Enum
from typing import Any

from django.db import connections

from ... import clock
from ...models import RegistryEntry
from ...protocol.errors import DurableStreamsError, SourceGone, StreamExists, StreamGone, StreamNotFound
from ..operations import (
    Append,
    Appended,
    Commit,
    Create,
    Delete,
    Done,
    Fork,
    Moved,
    MoveEntries,
    Operation,
    Result,
    SetLifetime,
    TakeOver,
    Touch,
    Trim,
    names_in,
)
from ..sql import statements
from . import forking, registry_entries, stream_creation
from .batch_saving import BatchSaver
from .row_cache import PostgreSQLRowCache, RowCache
from .stream_state import StreamState, add_producers


class Locked(Enum):
    """No outcome yet: another transaction holds the row of the operation's stream, or the cached row was stale."""

    LOCKED = "locked"


LOCKED = Locked.LOCKED

Outcome = Result | DurableStreamsError | Locked

Existing = Append | Delete | Touch | SetLifetime | Trim | TakeOver
"""The operations on a stream that exists."""


class Batch:
    """Working copies of streams inside a transaction.

    Args:
        using: alias of the database.
        cursor: the transaction's cursor (see `sql.Statements.transaction`).
        row_cache: the row cache of the connection. None: there is none.
        stage: whether small chunks may go to the table of staged chunks.
    """

    def __init__(self, using: str, cursor: Any, row_cache: RowCache | None = None, *, stage: bool = False) -> None:
        self._using = using
        self._cursor = cursor
        self._row_cache = row_cache
        self._now = clock.now()
        self._sql = statements(using)
        self._saver = BatchSaver(using, cursor, self._now, row_cache, stage)
        # By path. Soft-deleted streams keep their paths, and their data belongs to their forks.
        self._streams: dict[str, StreamState] = {}
        self._soft_deleted: dict[str, StreamState] = {}
        # Streams that end in this batch, until the next save.
        self._to_remove: list[StreamState] = []
        self._to_soft_delete: list[StreamState] = []
        # Generations of streams whose paths have become free in this batch.
        self._freed_generations: dict[str, int] = {}
        # Numbers of forks, by stream id, of the streams that may be removed in this batch.
        self._fork_counts: dict[int, int] = {}
        self._locked: set[str] = set()
        self._registry_path = registry_entries.path()

    def load(self, operations: Sequence[Operation], *, wait: bool = True, held: Collection[str] = ()) -> None:
        """Lock and read the rows of all streams and producers that the operations name.

        Args:
            operations: the operations that follow.
            wait: whether to wait for rows that other transactions hold.
            held: paths whose rows are not touched. Their operations are LOCKED.
        """
        paths, producers = names_in(operations)
        if held:
            self._locked.update(held)
            paths.difference_update(held)
            if not paths:
                return
            producers = {(path, producer_id) for path, producer_id in producers if path in paths}
        states = self._pop_cached(paths, producers)
        paths.difference_update(states)
        if paths:
            creates = any(type(operation) in (Create, MoveEntries) for operation in operations)
            if creates:
                self._saver.linker.lock_rules()
            loaded = self._sql.lock_streams(
                self._cursor,
                paths,
                {(path, producer_id) for path, producer_id in producers if path in paths},
                wait=wait,
                absent=creates,
            )
            self._locked.update(loaded.locked)
            by_id = {info.id: StreamState(info) for info in loaded.streams}
            add_producers(by_id, loaded.producers)
            states.update((state.path, state) for state in by_id.values())
        self._sort_by_state(states.values(), operations)

    def _sort_by_state(self, states: Iterable[StreamState], operations: Sequence[Operation]) -> None:
        """Separate streams that exist, are soft-deleted or have expired; remove the expired ones."""
        expired = []
        for state in states:
            if state.deleted_at is not None:
                self._soft_deleted[state.path] = state
            elif state.deadline is not None and state.deadline <= self._now and not self._was_read(state, operations):
                expired.append(state)
            else:
                self._streams[state.path] = state
        deleted = [self._streams.get(operation.path) for operation in operations if type(operation) is Delete]
        self._count_forks([*expired, *(state for state in deleted if state is not None)])
        for state in expired:
            state.expired = True
            self._remove(state)

    def _was_read(self, state: StreamState, operations: Iterable[Operation]) -> bool:
        """Restart the TTL of a stream that was read before its deadline; return whether it is alive then."""
        assert state.deadline is not None
        for operation in operations:
            if (
                isinstance(operation, Touch)
                and operation.path == state.path
                and operation.stream_id in (None, state.id)
                and operation.moment < state.deadline
            ):
                state.touch(operation.moment)
        return state.deadline > self._now

    def load_cached(self, operations: Sequence[Operation]) -> bool:
        """Take all streams out of PostgreSQL's row cache, without a query, in place of `load`. Save with `save_cached`.

        Returns False where the row cache does not have all streams and producers that the operations name.
        """
        assert isinstance(self._row_cache, PostgreSQLRowCache)
        self._streams = self._row_cache.pop_unconfirmed(operations, connections[self._using].connection, self._now)
        return bool(self._streams)

    def _pop_cached(self, paths: Collection[str], producers: Iterable[tuple[str, str]]) -> dict[str, StreamState]:
        """Take streams with unchanged rows out of the row cache, and read those requested producers that it lacks."""
        if self._row_cache is None:
            return {}
        states = self._row_cache.pop_unchanged(self._cursor, self._sql, paths)
        missing = {
            (state.id, producer_id)
            for path, producer_id in producers
            if (state := states.get(path)) is not None and producer_id not in state.producers
        }
        if missing:
            by_id = {state.id: state for state in states.values()}
            add_producers(by_id, self._sql.select_producers(self._cursor, missing))
        return states

    def _count_forks(self, states: Sequence[StreamState]) -> None:
        if not states:
            return
        self._fork_counts = dict.fromkeys((state.id for state in states), 0)
        for source_id in self._sql.select_fork_sources(self._cursor, self._fork_counts):
            self._fork_counts[source_id] += 1

    def apply(self, operation: Operation) -> Outcome:
        """Apply one operation to the working copies and return its result, its error, or LOCKED."""
        if self._locked and self._is_locked(operation):
            self._locked.add(operation.path)  # later operations on this stream keep their order
            return LOCKED
        try:
            state = self._streams.get(operation.path)
            if operation.path == self._registry_path:
                registry_entries.check_writer(operation)
            if type(operation) is Append:
                if state is None or operation.stream_id is not None:
                    state = self._existing(operation, state)
                return state.append(operation, self._now)
            if type(operation) is Create:
                return self._create(operation, state)
            if type(operation) is MoveEntries:
                return self._move_entries(operation, state)
            state = self._existing(operation, state)
            if type(operation) is Delete:
                state.check_deletion(operation)
                self._remove(self._streams.pop(state.path))
            elif type(operation) is TakeOver:
                return state.take_over(operation)
            elif type(operation) is Trim:
                return state.trim(operation.position)
            elif type(operation) is SetLifetime:
                state.set_lifetime(operation.ttl, operation.expires_at, self._now)
            elif isinstance(operation, Touch):
                state.touch(operation.moment)
            return Done()
        except DurableStreamsError as error:
            return error

    def _is_locked(self, operation: Operation) -> bool:
        if operation.path in self._locked:
            return True
        return type(operation) is Create and operation.fork is not None and operation.fork.source in self._locked

    def _existing(self, operation: Existing, state: StreamState | None) -> StreamState:
        if state is not None:
            if operation.stream_id is not None:
                expect(operation.stream_id, state.id, operation.path)
            return state
        if operation.path in self._soft_deleted:
            raise StreamGone("The stream was deleted; forks still read its data.")
        raise StreamNotFound("There is no stream at this path. Create it with PUT.")

    def _create(self, operation: Create, state: StreamState | None) -> Outcome:
        if operation.fork is not None:
            return self._fork(operation, operation.fork, state)
        if state is not None:
            return stream_creation.confirm(state, operation)
        previous_generation = self._freed_generations.get(operation.path, 0)
        return self._add(operation, stream_creation.new_stream(operation, self._now, previous_generation))

    def _add(self, operation: Create, state: StreamState) -> Outcome:
        if operation.path in self._soft_deleted:
            raise StreamExists("A deleted stream keeps this path for as long as it has forks. Use another path.")
        self._streams[state.path] = state
        return state.created_result(created=True)

    def _fork(self, operation: Create, fork: Fork, state: StreamState | None) -> Outcome:
        """Create a fork, or confirm that it exists (section 4.2)."""
        source = self._streams.get(fork.source)
        existing_source = source or self._soft_deleted.get(fork.source)
        if existing_source is not None and (existing_source.ends or not existing_source.id):
            # A fork refers to rows, so the data and the id of its source must be in the database.
            self.save()
            self._sql.flush(self._cursor)
            self._saver.mark_saved()
        if state is not None:
            cut = None
            if existing_source is not None and fork.offset is not None:
                cut = forking.resolve(existing_source, fork, self._using, is_new=False)
            return stream_creation.confirm_fork(state, operation, existing_source, cut)
        if source is None:
            if existing_source is not None:
                raise SourceGone(f"The stream {fork.source} was deleted; it cannot be forked any more.")
            raise StreamNotFound(f"There is no stream {fork.source} to fork.")
        if fork.source_id is not None:
            expect(fork.source_id, source.id, fork.source)
        cut = forking.resolve(source, fork, self._using)
        previous_generation = self._freed_generations.get(operation.path, 0)
        outcome = self._add(operation, stream_creation.new_fork(operation, source, cut, self._now, previous_generation))
        # The source's row is written without a change. A transaction with a snapshot from before the fork then fails to
        # remove the source.
        source.changed = True
        # A stream that was created in this batch has no other forks than those of this batch.
        self._fork_counts[source.id] = self._fork_counts.get(source.id, 0) + 1
        return outcome

    def _move_entries(self, operation: MoveEntries, state: StreamState | None) -> Outcome:
        """Append the oldest entries to the registry. Its row is locked, so no other transaction moves them.

        Raises:
            StreamClosed, ContentTypeMismatch, StreamExists: the registry cannot be at its path. All entries stay.
        """
        if state is None:
            registry_entries.check_creation(is_kept=operation.path in self._soft_deleted)
            self._create(Create(operation.path, registry_entries.CONTENT_TYPE), None)
            state = self._streams[operation.path]
        registry_entries.check_stream(state)
        entries = self._sql.select_registry_entries(self._cursor, operation.limit)
        registry_entries.append_all(state, [message for _, message in entries], self._now)
        self._sql.delete_rows(self._cursor, RegistryEntry, [entry_id for entry_id, _ in entries])
        return Moved(len(entries))

    def _remove(self, state: StreamState) -> None:
        """Remove a stream, or soft-delete it where it has forks."""
        if self._fork_counts.get(state.id, 0):
            self._soft_deleted[state.path] = state
            self._to_soft_delete.append(state)
            return
        self._to_remove.append(state)
        self._freed_generations[state.path] = state.generation
        if state.source_id in self._fork_counts:
            self._fork_counts[state.source_id] -= 1

    def save(self) -> None:
        """Write the changes since the last save."""
        self._saver.save(self._streams.values(), self._to_remove, self._to_soft_delete)
        self._to_remove.clear()
        self._to_soft_delete.clear()

    def save_cached(self, operations: Sequence[Operation]) -> bool:
        """Write the changes where rows allow it, after `load_cached` (see `BatchSaver`). Returns False if it cannot.

        Plain appends need an open stream (`save_if_plain`), others the cached row (`save_if_unchanged`).
        """
        streams = self._streams.values()
        conditions = [one for one in operations if type(one) is Append and one.if_tail is not None]
        if conditions or not all(state.is_plain for state in streams):
            return self._saver.save_if_unchanged(streams)
        return self._saver.save_if_plain(streams)

    def confirmed_paths(self) -> Collection[str]:
        """Return the paths of the streams whose rows were unchanged. `save_cached` has not written to the others."""
        confirmed = self._saver.confirm(self._streams.values())
        self._streams = {state.path: state for state in confirmed}
        return self._streams.keys()

    def correct(self, operations: Sequence[Operation], outcomes: Sequence[Outcome]) -> bool:
        """Correct the tails in the outcomes of streams to which others have appended. Return whether there are any."""
        if moved := self._saver.moved:
            for operation, outcome in zip(operations, outcomes, strict=True):
                if type(outcome) is Appended:
                    outcome.tail += moved.get(operation.path, 0)
        return bool(moved)

    def commits(self) -> list[Commit]:
        """Return all changes of the batch, once they are committed."""
        return self._saver.commits(self._streams.values())


def expect(expected_id: int, actual_id: int, path: str | None) -> None:
    """Check that the stream at a path is the one that the caller means.

    Raises:
        StreamNotFound: it is another stream.
    """
    if actual_id != expected_id:
        raise StreamNotFound(
            f"The stream at {path} was deleted, and its path has a new stream. To use the new one, load it."
        )
