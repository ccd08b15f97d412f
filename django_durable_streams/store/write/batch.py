"""The streams that a batch of operations touches, between loading and saving.

The rows are locked in the order of their ids, operations are applied to working copies in the order in which they
came, and what changed is written: one chunk per stream, one row per producer. The number of queries does not depend on
the number of operations.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple

from django.db import connections

from ... import clock
from ...models import Stream
from ...protocol.errors import DurableStreamsError, SourceGone, StreamExists, StreamGone, StreamNotFound
from ...protocol.producers import ProducerState
from ..operations import Append, Commit, Create, Delete, Done, Fork, Operation, Result, SetLifetime, TakeOver, Touch
from ..sql import statements
from . import forking, row_mapping
from .row_cache import RowCache
from .stream_state import StreamState


class Locked(Enum):
    """The outcome of an operation on a stream whose row another transaction holds: none yet."""

    LOCKED = "locked"


LOCKED = Locked.LOCKED

Outcome = Result | DurableStreamsError | Locked

Existing = Append | Delete | Touch | SetLifetime | TakeOver


class Batch:
    """Working copies of streams inside a transaction.

    Args:
        using: alias of the database.
        cursor: the transaction's (see `sql.Statements.transaction`).
        known: what the connection knows of streams already.
        recent: whether what is appended may wait to be gathered (see `stage`).
    """

    def __init__(self, using: str, cursor: Any, row_cache: RowCache | None = None, *, stage: bool = False) -> None:
        self._using = using
        self._cursor = cursor
        self._row_cache = row_cache
        self._stage = stage
        self._now = clock.now()
        self._sql = statements(using)
        self._streams: dict[str, StreamState] = {}
        # Soft-deleted: their paths are taken, and their data belongs to their forks.
        self._gone: dict[str, StreamState] = {}
        self._removed: list[StreamState] = []
        self._softly: list[StreamState] = []
        # The generations of those whose paths have become free here.
        self._ended: dict[str, int] = {}
        # How many streams were forked from those that may be removed here.
        self._forks: dict[int, int] = {}
        self._commits: list[Commit] = []
        self._saved: list[_Saved] = []
        # What was written, and what will tell the version that its rows have then.
        self._written: list[StreamState] = []
        self._version: Iterable[Sequence[Any]] | None = None
        self._found: Iterable[Sequence[Any]] = ()
        self._locked: set[str] = set()

    def load(self, operations: Sequence[Operation], *, wait: bool = True, held: Collection[str] = ()) -> None:
        """Lock and read the rows of all streams and producers that the operations name.

        Args:
            wait: whether to wait for rows that others hold; `held` are paths to leave alone in any case.
        """
        paths, producers = _wanted(operations)
        if held:
            self._locked.update(held)
            paths.difference_update(held)
            if not paths:
                return
            producers = {(path, name) for path, name in producers if path in paths}
        states = self._load_cached(paths, producers)
        paths.difference_update(states)
        if paths:
            found = self._sql.lock_streams(
                self._cursor,
                paths,
                {(path, name) for path, name in producers if path in paths},
                wait=wait,
                absent=any(type(operation) is Create for operation in operations),
            )
            self._locked.update(found.locked)
            selected = {info.id: StreamState(info) for info in found.streams}
            _add_producers(selected, found.producers)
            states.update((state.path, state) for state in selected.values())
        expired = []
        for state in states.values():
            if state.deleted_at is not None:
                self._gone[state.path] = state
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
        """Start the TTL anew of a stream that was read before it ended; return whether it is alive then."""
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
        """Work on streams as the connection remembers them, in place of `load`; to be saved by `save_cached`.

        Returns False where it does not know all that the operations need.
        """
        assert self._row_cache is not None
        self._streams = self._row_cache.get_all(operations, connections[self._using].connection, self._now)
        return bool(self._streams)

    def _load_cached(self, paths: Collection[str], producers: Iterable[tuple[str, str]]) -> dict[str, StreamState]:
        """Return those of the streams that the connection knows, with the producers that are asked for."""
        if self._row_cache is None:
            return {}
        if not self._row_cache.check(self._cursor, self._sql):
            self._row_cache.forget(paths)
            return {}
        states = {state.path: state for state in map(self._row_cache.pop, paths) if state is not None}
        missing = {
            (state.id, name)
            for path, name in producers
            if (state := states.get(path)) is not None and name not in state.producers
        }
        if missing:
            by_id = {state.id: state for state in states.values()}
            _add_producers(by_id, self._sql.select_producers(self._cursor, missing))
        return states

    def _count_forks(self, states: Sequence[StreamState]) -> None:
        if not states:
            return
        self._forks = dict.fromkeys((state.id for state in states), 0)
        query = Stream.objects.using(self._using).filter(source_id__in=self._forks, path__isnull=False)
        if self._sql.reads_old_snapshot():
            # In an older snapshot, forks may be missing. On PostgreSQL the lock of the source's row has failed by then:
            # to make a fork is to write that row.
            query = query.select_for_update()
        for source_id in query.values_list("source_id", flat=True):
            if source_id is not None:
                self._forks[source_id] += 1

    def apply(self, operation: Operation) -> Outcome:
        """Apply one operation to the working copies and return its result, or the error that it gets."""
        if self._locked and self._is_locked(operation):
            self._locked.add(operation.path)  # what follows on this stream waits behind it
            return LOCKED
        try:
            state = self._streams.get(operation.path)
            if type(operation) is Append:
                return self._existing(operation, state).append(operation, self._now)
            if type(operation) is Create:
                return self._create(operation, state)
            state = self._existing(operation, state)
            if type(operation) is Delete:
                del self._streams[state.path]
                self._remove(state)
            elif type(operation) is TakeOver:
                return state.take_over(operation)
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
        if operation.path in self._gone:
            raise StreamGone("The stream was deleted; forks still read its data.")
        raise StreamNotFound("There is no stream at this path. Create it with PUT.")

    def _create(self, operation: Create, state: StreamState | None) -> Outcome:
        if operation.fork is not None:
            return self._fork(operation, operation.fork, state)
        if state is not None:
            return state.confirm(operation)
        return self._add(operation, StreamState.make(operation, self._now, self._ended.get(operation.path, 0)))

    def _add(self, operation: Create, state: StreamState) -> Outcome:
        if operation.path in self._gone:
            raise StreamExists("A deleted stream keeps this path for as long as it has forks. Use another path.")
        self._streams[state.path] = state
        return state.describe(created=True)

    def _fork(self, operation: Create, fork: Fork, state: StreamState | None) -> Outcome:
        """Create a fork, or confirm that it is there (section 4.2)."""
        source = self._streams.get(fork.source)
        origin = source or self._gone.get(fork.source)
        if origin is not None and (origin.ends or not origin.id):
            # A fork refers to what is in the database.
            self.save()
            self._sql.flush(self._cursor)
            self._settle()
        if state is not None:
            cut = None
            if origin is not None and fork.offset is not None:
                cut = forking.resolve(origin, fork, self._using)
            return state.confirm_fork(operation, origin, cut)
        if source is None:
            if origin is not None:
                raise SourceGone(f"The stream {fork.source} was deleted; it cannot be forked any more.")
            raise StreamNotFound(f"There is no stream {fork.source} to fork.")
        if fork.source_id is not None:
            expect(fork.source_id, source.id, fork.source)
        cut = forking.resolve(source, fork, self._using)
        after = self._ended.get(operation.path, 0)
        outcome = self._add(operation, StreamState.make_fork(operation, source, cut, self._now, after))
        # Its row is written, as it is, so that a transaction whose snapshot is older than the fork cannot remove it.
        source.changed = True
        # A stream that was made in this batch has no forks but those made here.
        self._forks[source.id] = self._forks.get(source.id, 0) + 1
        return outcome

    def _remove(self, state: StreamState) -> None:
        """Remove a stream, or, where it has forks, only close it to the world."""
        if self._forks.get(state.id, 0):
            self._gone[state.path] = state
            self._softly.append(state)
            return
        self._removed.append(state)
        self._ended[state.path] = state.generation
        if state.source_id in self._forks:
            self._forks[state.source_id] -= 1

    def save(self) -> None:
        """Write what has changed. May be called again after more changes."""
        sql, cursor = self._sql, self._cursor
        self._settle()
        now = row_mapping.stamp(self._using)
        ended_at = clock.to_microseconds(self._now)
        removed = [state for state in self._removed if state.id]
        changed = [state for state in self._streams.values() if state.changed and state.id]
        created = [state for state in self._streams.values() if not state.id]
        numbers: Iterable[tuple[int, str]] = ()
        if removed:
            sql.remove_streams(cursor, ended_at, [state.id for state in removed])
        if self._softly:
            sql.soft_delete_streams(cursor, ended_at, [state.id for state in self._softly])
        if created:
            inserts = [row_mapping.stream_insert(state, now) for state in created]
            numbers = sql.insert_streams(cursor, inserts)
            if any(state.ends or state.changed_producers for state in created):
                _number(created, numbers)  # their rows refer to them
        if changed:
            sql.update_streams(cursor, [row_mapping.stream_update(state, now) for state in changed])
        written = [*changed, *created]
        lifetimes = row_mapping.lifetimes(changed)
        if lifetimes:
            sql.update_lifetimes(cursor, lifetimes)
        chunks = row_mapping.chunks(written, now)
        if chunks:
            sql.insert_chunks(cursor, chunks, self._stage)
        new, row_cache = row_mapping.producers(written, now)
        if new:
            sql.insert_producers(cursor, new)
        if row_cache:
            sql.update_producers(cursor, row_cache)
        if changed and self._row_cache is not None and self._version is None:
            self._version = sql.version_written(cursor)
        self._written += written
        self._saved.append(_Saved(changed, created, numbers, [*removed, *self._softly]))
        self._removed.clear()
        self._softly.clear()

    def save_cached(self) -> bool:
        """Write what has changed, but to those streams only that are as they were remembered (see `confirmed_paths`).

        Returns False where one has not changed: what was made of it must not be told without a look at it either.
        """
        now = row_mapping.stamp(self._using)
        states = sorted(self._streams.values(), key=attrgetter("id"))
        if not all(state.changed for state in states):
            return False
        _, producers = row_mapping.producers(states, now)  # none is new: all were remembered
        self._found = self._sql.update_if_unchanged(
            self._cursor,
            [(*row_mapping.stream_update(state, now), state.version, state.start) for state in states],
            row_mapping.chunks(states, now),
            producers,
        )
        return True

    def confirmed_paths(self) -> Collection[str]:
        """Return the paths of the streams that were as they were remembered. To the others nothing was written."""
        versions = {stream_id: int(version) for stream_id, version in self._found}
        self._streams = {path: state for path, state in self._streams.items() if state.id in versions}
        for state in self._streams.values():
            state.version = versions[state.id]
        self._saved.append(_Saved([*self._streams.values()], [], (), []))
        return self._streams.keys()

    def commits(self) -> list[Commit]:
        """Return what has changed since the beginning, once all of it is saved and committed."""
        self._settle()
        if self._row_cache is not None:
            version = self._version_now()
            for state in self._written:
                state.version = version
            for state in self._streams.values():
                self._row_cache.put(state)
        return self._commits

    def _version_now(self) -> int | None:
        if self._version is None:
            return None
        ((version,),) = self._version
        return int(version)

    def _settle(self) -> None:
        """Take note of what the database has now."""
        for changed, created, numbers, ended in self._saved:
            _number(created, numbers)
            self._commits += [state.commit() for state in changed if state.has_news]
            self._commits += [state.commit(created=True) for state in created]
            self._commits += [state.removal() for state in ended]
            for state in (*changed, *created):
                state.saved()
        self._saved.clear()


def expect(stream_id: int, found: int, path: str | None) -> None:
    """See that the stream at a path is the one that is meant.

    Raises:
        StreamNotFound: it is another one.
    """
    if found != stream_id:
        raise StreamNotFound(
            f"The stream that was at {path} was deleted, and there is another one now at its path. "
            "Load that one, if it is what you want."
        )


def _add_producers(states: Mapping[int, StreamState], rows: Iterable[Sequence[Any]]) -> None:
    for stream_id, producer_id, epoch, seq in rows:
        if stream_id in states:  # and not another one's
            states[stream_id].producers[producer_id] = ProducerState(epoch, seq)


class _Saved(NamedTuple):
    """What was saved at one time, and the ids and paths of the streams that were created."""

    changed: list[StreamState]
    created: list[StreamState]
    numbers: Iterable[tuple[int, str]]
    ended: list[StreamState]


def _number(created: list[StreamState], numbers: Iterable[tuple[int, str]]) -> None:
    if created and not created[0].id:
        by_path = {state.path: state for state in created}
        for stream_id, path in numbers:
            by_path[path].id = stream_id


def _wanted(operations: Iterable[Operation]) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the paths of all streams that operations name, and the paths and ids of producers."""
    paths: set[str] = set()
    producers: set[tuple[str, str]] = set()
    for operation in operations:
        paths.add(operation.path)
        if type(operation) is Append:
            if operation.producer is not None:
                producers.add((operation.path, operation.producer.id))
        elif type(operation) is Create:
            if operation.fork is not None:
                paths.add(operation.fork.source)
        elif type(operation) is TakeOver:
            producers.add((operation.path, operation.producer_id))
    return paths, producers
