"""The stream rows as the last batches of one connection left them.

This is an optimisation: a committer need not read rows that it has written itself.

Invariant: a cached row is used only if the database confirms that it is unchanged. SQLite counts the commits of other
connections and processes, and any such commit clears the cache. PostgreSQL has a version for each row (`xmin`), and an
append is written on the condition that the version is the cached one (`group_commit`). MariaDB and MySQL have neither,
so they never use it. A row is taken out of the cache before a batch changes it, and put back after the commit.

Gain: asking SQLite for its count takes a tenth of the time of a query for the streams of a batch. On PostgreSQL, a
batch of appends takes 0.50 ms instead of 0.61 ms (docs/decisions/postgresql-pipeline.md). A context without a row cache
(`CommitContext.row_cache`) switches it off.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from ...runtime import execution
from ..operations import Append, Operation
from ..sql import Statements
from ..stream_info import StreamInfo
from .stream_state import StreamState

MAX_STREAMS = 4096
"""The largest number of cached streams. The least recently used are dropped."""

MAX_BULK_CREATES = 32
"""Batches of new and empty streams that are cached as a whole. The oldest is dropped."""

MAX_PRODUCERS = 256
"""A stream with more producers is not cached: most of its producers will not write again soon."""

MAX_ENTRIES = 32_768
"""The largest number of producers and lineage entries of all cached streams together. Each takes half a KB at most."""

MAX_PAUSE_BATCHES = 64
"""After a stale row, so many batches at most read their rows first."""


class RowCache:
    """Stream rows as this connection has left them. Used by one thread."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, StreamState] = OrderedDict()
        self._entries = 0
        # Inline, other code writes on the same connection and may roll back, so nothing is cached.
        self._max_streams = 0 if execution.is_inline() else MAX_STREAMS
        # Streams of `bulk_create_empty`: a model for all streams of one batch, and their ids by path.
        max_bulk_creates = 0 if execution.is_inline() else MAX_BULK_CREATES
        self._bulk_creates: deque[tuple[StreamInfo, dict[str, int]]] = deque(maxlen=max_bulk_creates)
        self._connection: object = None
        self._version: int | None = None
        self._pause = 0
        self._next_pause = 1
        self.is_alone = True
        """Whether no other connection had written before the last batch, as far as the database can tell."""
        self.was_stale = False
        """Whether the last `get_all` returned stale rows, and their operations were not applied again yet."""

    @property
    def has_version(self) -> bool:
        """Whether the next `check` detects all commits of other connections from now on."""
        return self._version is not None

    def check(self, cursor: Any, sql: Statements) -> bool:
        """Return whether the cache is valid. A commit of another connection clears it.

        Called in a transaction that has the write lock, before any row is taken from the cache.
        """
        version = sql.version(cursor)
        if version is None:
            return False
        self._use_connection(cursor.connection)
        self.is_alone = version == self._version
        if not self.is_alone:
            self._clear()
            self._version = version
        return True

    def get_all(self, operations: Sequence[Operation], connection: object, now: datetime) -> dict[str, StreamState]:
        """Take the streams of some appends out of the cache and return them. Their rows may be stale.

        Returns nothing if one of the streams or producers is missing, if a stream has expired, or if an operation is
        not an append.

        Args:
            operations: the appends.
            connection: the driver's connection.
            now: the current time.
        """
        self._use_connection(connection)
        self.was_stale = False
        if self._pause:
            self._pause -= 1
            return {}
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

    def record_outcome(self, *, was_stale: bool) -> None:
        """Record whether `get_all` returned stale rows. If so, the next batches read their rows first.

        Where other processes write to the same streams, rows are stale often, and a failed attempt takes as long as a
        read.
        """
        self.was_stale = was_stale
        if was_stale:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, MAX_PAUSE_BATCHES)
        else:
            self._next_pause = 1

    def pop(self, path: str) -> StreamState | None:
        """Take a stream out of the cache and return it. So a batch that fails leaves no wrong row behind."""
        state = self._states.pop(path, None)
        if state is None:
            return self._pop_new(path)
        self._entries -= _entries_of(state)
        return state

    def _pop_new(self, path: str) -> StreamState | None:
        for model, ids in self._bulk_creates:
            stream_id = ids.pop(path, None)
            if stream_id is not None:
                return StreamState(model._replace(id=stream_id, path=path))
        return None

    def forget(self, paths: Iterable[str]) -> None:
        """Drop the streams at some paths."""
        for path in paths:
            self.pop(path)

    def put(self, state: StreamState) -> None:
        """Cache a stream as it was committed, if the database can confirm later that it is unchanged."""
        if (self.has_version or state.version is not None) and len(state.producers) <= MAX_PRODUCERS:
            self._states[state.path] = state
            self._entries += _entries_of(state)
            while self._states and (len(self._states) > self._max_streams or self._entries > MAX_ENTRIES):
                _, dropped = self._states.popitem(last=False)
                self._entries -= _entries_of(dropped)

    def put_new(self, model: StreamInfo, ids: Iterable[tuple[int, str]]) -> None:
        """Cache new and empty streams that differ only in their ids and paths.

        Clients wait for this commit, so the work for each stream is left to its first use.

        Args:
            model: one of the streams.
            ids: id and path of each stream.
        """
        if self.has_version:
            self._bulk_creates.append((model, {path: stream_id for stream_id, path in ids}))

    def _use_connection(self, connection: object) -> None:
        """Clear the cache for a new connection: its database may have come back without the last commits."""
        if connection is not self._connection:
            self._connection = connection
            self._version = None
            self._clear()

    def _clear(self) -> None:
        self._states.clear()
        self._entries = 0
        self._bulk_creates.clear()


def _entries_of(state: StreamState) -> int:
    return len(state.producers) + len(state.lineage or ())
