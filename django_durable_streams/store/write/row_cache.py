"""What one connection knows of streams from its last batches, where the database can tell whether that is still so.

SQLite counts the commits of other connections, of this process and of all others; asking for that count takes a tenth
of what it takes to look up the streams of a batch. PostgreSQL numbers the versions of each row, so an append can go
out at once, on the condition that the rows are as they were left (`writing`).
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
"""Streams that are remembered: those that were used last."""

MAX_NEW = 32
"""Batches of new streams that are remembered: the last ones."""

MAX_PRODUCERS = 256
"""A stream with more producers is looked up again: most of them will not come back soon."""

MAX_PAUSE = 64
"""Batches for which nothing is taken for granted, at the most, after it was wrong to do so."""


class RowCache:
    """Streams as this connection has left them."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, StreamState] = OrderedDict()
        # Inline, other code writes on the same connection, and may roll back: nothing is remembered.
        self._max_streams = 0 if execution.is_inline() else MAX_STREAMS
        # New ones with nothing in them: one that all of a batch are like, and their ids by path.
        self._new: deque[tuple[StreamInfo, dict[str, int]]] = deque(maxlen=0 if execution.is_inline() else MAX_NEW)
        self._connection: object = None
        self._version: int | None = None
        self._pause = 0
        self._next_pause = 1
        self.is_alone = True
        """Whether nobody else had written since the last time, as far as the database can tell."""
        self.was_stale = False
        """Whether some of what was recalled last was not so any more, until somebody has made up for it."""

    @property
    def has_begun(self) -> bool:
        """Whether it has seen how things are: what others write from then on is found by the next `check`."""
        return self._version is not None

    def check(self, cursor: Any, sql: Statements) -> bool:
        """Return whether what is remembered is still so. If somebody else has written anything, all is forgotten.

        To be called inside a transaction that nobody can pass, before anything is taken.
        """
        version = sql.version(cursor)
        if version is None:
            return False
        self._meet(cursor.connection)
        self.is_alone = version == self._version
        if not self.is_alone:
            self._forget_all()
            self._version = version
        return True

    def get_all(self, operations: Sequence[Operation], connection: object, now: datetime) -> dict[str, StreamState]:
        """Return the streams to which some operations append, and forget them. Whether they are still so is to be seen.

        Empty where not all of them are known with their producers, one has expired, or an operation is another one.

        Args:
            connection: the driver's.
        """
        self._meet(connection)
        self.was_stale = False
        if self._pause:
            self._pause -= 1
            return {}
        found = {}
        for operation in operations:
            state = self._states.get(operation.path)
            if type(operation) is not Append or state is None:
                return {}
            if state.deadline is not None and state.deadline <= now:
                return {}
            if operation.producer is not None and operation.producer.id not in state.producers:
                return {}
            found[operation.path] = state
        self.forget(found)
        return found

    def record_outcome(self, *, was_stale: bool) -> None:
        """Take note of whether some of what was recalled was not so any more.

        Where others write to the same streams it often is not, and to have tried takes as long as to look.
        """
        self.was_stale = was_stale
        if was_stale:
            self._pause = self._next_pause
            self._next_pause = min(2 * self._next_pause, MAX_PAUSE)
        else:
            self._next_pause = 1

    def pop(self, path: str) -> StreamState | None:
        """Return what is known of the stream at a path, and forget it: a batch that fails leaves nothing behind."""
        state = self._states.pop(path, None)
        return state if state is not None else self._pop_new(path)

    def _pop_new(self, path: str) -> StreamState | None:
        for like, ids in self._new:
            stream_id = ids.pop(path, None)
            if stream_id is not None:
                return StreamState(like._replace(id=stream_id, path=path))
        return None

    def forget(self, paths: Iterable[str]) -> None:
        """Forget the streams at some paths."""
        for path in paths:
            self.pop(path)

    def put(self, state: StreamState) -> None:
        """Remember a stream as it was committed, where it can be seen later whether it is still so."""
        if (self.has_begun or state.version is not None) and len(state.producers) <= MAX_PRODUCERS:
            self._states[state.path] = state
            if len(self._states) > self._max_streams:
                self._states.popitem(last=False)

    def put_new(self, like: StreamInfo, numbers: Iterable[tuple[int, str]]) -> None:
        """The same for new streams with nothing in them that differ in their ids and paths only.

        Somebody waits for them to be made, so what can be done once one of them is used is not done here.
        """
        if self.has_begun:
            self._new.append((like, {path: stream_id for stream_id, path in numbers}))

    def _meet(self, connection: object) -> None:
        """Forget everything on another connection: its database may have come back without the last that it had."""
        if connection is not self._connection:
            self._connection = connection
            self._version = None
            self._forget_all()

    def _forget_all(self) -> None:
        self._states.clear()
        self._new.clear()
