"""The stream rows as the last batches of one connection left them.

This is an optimisation: a committer need not read rows that it has written itself. `SQLiteRowCache` and
`PostgreSQLRowCache` ask their database in different ways whether a row is unchanged. MariaDB and MySQL have no way, so
they have no row cache. Nor has a Python caller (`CommitContext.row_cache` is None).

Invariants:

- A cached row is used only if the database confirms that it is unchanged. The exception is a plain append on
  PostgreSQL: the database confirms no more than that the stream is open, with the cached path and generation
  (`store/sql/postgresql_conditional.py`).
- A batch takes a stream out of the cache before it changes the stream, and puts it back after the commit. So a
  `StreamState` has one owner at a time, and a batch that fails leaves no wrong row behind.
- A cache belongs to one connection and one thread. Work of another kind on this connection must not change rows of
  streams or producers, because the database would not report it. Compaction and flushes only change chunks.

Gain: on SQLite, a batch reads one number instead of the rows of its streams, which takes a tenth of the time. On
PostgreSQL, a batch of appends to one stream takes one round trip of 0.50 ms instead of two of 0.61 ms together
(docs/decisions/postgresql-pipeline.md).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any

from ...runtime import execution
from ..operations import Append, Operation
from ..sql import Statements, statements_class
from ..stream_info import StreamInfo
from .stream_state import StreamState

MAX_STREAMS = 4096
"""The largest number of streams that are cached one by one. The least recently used are dropped."""

MAX_BULK_CREATES = 32
"""Batches of new and empty streams that SQLite's cache has besides. The oldest is dropped."""

MAX_PRODUCERS = 256
"""A stream with more producers is not cached: most of its producers will not write again soon."""

MAX_ENTRIES = 32_768
"""The largest number of producers and lineage entries of all cached streams together. Each takes half a KB at most."""

MAX_PAUSE_BATCHES = 64
"""The longest pause of PostgreSQL's cache, in batches."""


def make_row_cache(using: str) -> RowCache | None:
    """Return a row cache for a connection. None where the database cannot confirm that a row is unchanged.

    None also where work is executed inline: other code then writes on the same connection, and may roll back.
    """
    kind = statements_class(using)  # not the statements themselves: an event loop calls this, and has no connection
    if execution.is_inline():
        return None
    if kind.counts_commits:
        return SQLiteRowCache()
    return PostgreSQLRowCache() if kind.has_row_versions else None


class RowCache(ABC):
    """Stream rows by path, as one connection has left them."""

    others_write = False
    """Whether another connection had committed before the last batch: on SQLite anything, on PostgreSQL changes of the
    streams of that batch. On SQLite true for a new connection.

    During a pause of PostgreSQL's cache it stays true. No batch can tell then, and the pause follows from the writes of
    others. So the committer goes on to collect tasks (`runtime.collecting`), which delays no client that is alone."""

    needs_repeat = False
    """Whether the last batch met stale rows, so that the committer has to apply its LOCKED operations again. Only on
    PostgreSQL. Reset by the committer and by the next `pop_unconfirmed`."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, StreamState] = OrderedDict()
        self._entries = 0
        """Producers and lineage entries of these streams."""
        self._connection: object = None

    @abstractmethod
    def pop_unchanged(self, cursor: Any, sql: Statements, paths: Collection[str]) -> dict[str, StreamState]:
        """Take streams out of the cache. Return those whose rows are unchanged, by path: they need no read.

        Call this in the transaction of the batch.
        """

    def pop(self, path: str) -> StreamState | None:
        """Take a stream out of the cache and return it. Its row may be stale."""
        return self._pop_all((path,)).get(path)

    def forget(self, paths: Iterable[str]) -> None:
        """Drop the streams at some paths."""
        self._pop_all(paths)

    def _pop_all(self, paths: Iterable[str]) -> dict[str, StreamState]:
        """Take the streams at some paths out of the cache, and return them by path."""
        cached, states = self._states, {}
        for path in paths:
            state = cached.pop(path, None)
            if state is None:
                state = self._pop_new(path)
                if state is None:
                    continue
            elif state.producers or state.lineage:  # most streams need no call
                self._entries -= _entries_of(state)
            states[path] = state
        return states

    def _pop_new(self, path: str) -> StreamState | None:
        """Take a stream out of those that are not cached one by one."""
        return None

    def put(self, states: Iterable[StreamState]) -> None:
        """Cache streams as they were committed. The cache does not have them: their batch has taken them out."""
        cached = self._states
        for state in states:
            if len(state.producers) <= MAX_PRODUCERS:
                cached[state.path] = state
                if state.producers or state.lineage:  # most streams need no call
                    self._entries += _entries_of(state)
        while cached and (len(cached) > MAX_STREAMS or self._entries > MAX_ENTRIES):
            _, dropped = cached.popitem(last=False)
            self._entries -= _entries_of(dropped)

    def _use_connection(self, connection: object) -> None:
        """Clear the cache for a new connection: its database may have come back without the last commits."""
        if connection is not self._connection:
            self._connection = connection
            self._clear()

    def _clear(self) -> None:
        self._states.clear()
        self._entries = 0


class SQLiteRowCache(RowCache):
    """SQLite: all rows are valid until another connection commits, and none afterwards.

    SQLite counts the commits of other connections, also those of other processes. A batch compares the count in its
    transaction, which has SQLite's write lock. So no other commit comes between the comparison and the batch's own.
    """

    def __init__(self) -> None:
        super().__init__()
        # For each batch of `bulk_create_empty`: what its streams have in common, and their ids by path. A path is
        # either here or among the single streams.
        self._bulk_creates: deque[tuple[StreamInfo, dict[str, int]]] = deque(maxlen=MAX_BULK_CREATES)
        self._commit_count: int | None = None

    def pop_unchanged(self, cursor: Any, sql: Statements, paths: Collection[str]) -> dict[str, StreamState]:
        self._update(cursor, sql)
        return self._pop_all(paths)

    def _pop_new(self, path: str) -> StreamState | None:
        for common, ids in self._bulk_creates:
            stream_id = ids.pop(path, None)
            if stream_id is not None:
                return StreamState(common._replace(id=stream_id, path=path))
        return None

    def put(self, states: Iterable[StreamState]) -> None:
        if self._commit_count is not None:
            super().put(states)

    def start_counting(self, cursor: Any, sql: Statements) -> None:
        """Begin to count commits of other connections, before rows are written and then cached.

        Call this without a transaction.
        """
        if self._commit_count is None:
            self._update(cursor, sql)

    def put_new(self, common: StreamInfo, ids_and_paths: Iterable[tuple[int, str]]) -> None:
        """Cache new and empty streams that differ only in their ids and paths.

        Clients wait until this returns, so the work for each stream is left to its first use.

        Args:
            common: one of the streams.
            ids_and_paths: the id and the path of each stream.
        """
        if self._commit_count is not None:
            self._bulk_creates.append((common, {path: stream_id for stream_id, path in ids_and_paths}))

    def _update(self, cursor: Any, sql: Statements) -> None:
        """Clear the cache if another connection has committed since the last update."""
        self._use_connection(cursor.connection)
        commit_count = sql.commit_count(cursor)
        self.others_write = commit_count != self._commit_count
        if self.others_write:
            self._clear()
            self._commit_count = commit_count

    def _clear(self) -> None:
        super()._clear()
        self._bulk_creates.clear()
        self._commit_count = None


class PostgreSQLRowCache(RowCache):
    """PostgreSQL: each row has a version, `xmin`. An append is written on the condition that it is the cached version.

    So the database confirms a row with the write itself (`group_commit`). The calls are `pop_unconfirmed`, the
    conditional write, and `record_write`. Whatever changes a producer also changes the row of its stream, so one
    version covers both.

    A look of the subscriptions makes a new version too, with `link_state` as its only change, and would make each row
    with news stale. So it notes in the row which version it has made of which (`Statements.look_values`), and this pair
    is as good as the cached version. Any other change makes a version that no note has. Gain: an append after a look
    takes 6 statements in one round trip instead of 13, and no pause follows (tests/store/test_append_costs.py).

    Where other processes write to the same streams, rows are often stale. A failed attempt takes as long as a read. So
    after a stale row the cache pauses: the next batches read their rows. The pause is one batch, and doubles after each
    further attempt that meets a stale row.
    """

    def __init__(self) -> None:
        super().__init__()
        self._pause = 0
        """Batches until the end of the pause."""
        self._next_pause = 1
        """The length of the next pause, in batches."""
        self.short_waits_until = 0.0
        """Until when conditional writes wait only shortly for a locked row, in monotonic seconds (`group_commit`)."""

    def pop_unchanged(self, cursor: Any, sql: Statements, paths: Collection[str]) -> dict[str, StreamState]:
        self.forget(paths)  # only a conditional write can tell, so this batch reads all rows
        return {}

    def put(self, states: Iterable[StreamState]) -> None:
        super().put([state for state in states if state.row_version is not None])

    def pop_unconfirmed(
        self, operations: Sequence[Operation], connection: object, now: datetime
    ) -> dict[str, StreamState]:
        """Take the streams of some appends out of the cache and return them by path. Their rows may be stale.

        Returns nothing, and takes nothing out, if the cache cannot serve all operations. That is so during a pause. It
        is also so if a stream or a producer is missing, if a stream has expired, or if an operation is not an append.

        Args:
            operations: the operations of a batch.
            connection: the driver's connection.
            now: the current time.
        """
        self._use_connection(connection)
        self.needs_repeat = False
        if self._pause:
            self._pause -= 1
            return {}
        self.others_write = False
        states = {}
        for operation in operations:
            state = self._states.get(operation.path)
            if type(operation) is not Append or state is None:
                return {}
            if state.deadline is not None and state.deadline <= now:
                return {}
            if operation.producer is not None and operation.producer.id not in state.producers:
                return {}
            states[operation.path] = state
        self.forget(states)
        return states

    def record_write(self, *, met_stale_row: bool, moved: bool = False) -> None:
        """Record the result of a conditional write, after `pop_unconfirmed`.

        Args:
            met_stale_row: whether a row did not allow the write.
            moved: whether others had appended to a stream that was written.
        """
        self.needs_repeat = met_stale_row
        self.others_write = met_stale_row or moved
        if met_stale_row:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, MAX_PAUSE_BATCHES)
        else:
            self._next_pause = 1


def _entries_of(state: StreamState) -> int:
    return len(state.producers) + len(state.lineage or ())
