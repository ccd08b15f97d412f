"""What one connection knows of streams from its last batches, where the database can tell that nobody else wrote.

SQLite can: it counts the commits of other connections, of this process and of all others. Asking for that count takes
a tenth of what it takes to look up the streams of a batch.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .sql import Statements
from .state import StreamState

MAX_KNOWN = 4096
"""Streams that are remembered: those that were used last."""

MAX_PRODUCERS = 256
"""A stream with more producers is looked up again: most of them will not come back soon."""


class KnownStreams:
    """Streams as this connection has left them. Empty as soon as another one has written anything."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, StreamState] = OrderedDict()
        self._connection: object = None
        self._version: int | None = None
        self.is_alone = True
        """Whether nobody else had written since the last time, as far as the database can tell."""

    @property
    def has_begun(self) -> bool:
        """Whether it has seen how things are: what others write from then on is found by the next `check`."""
        return self._version is not None

    def check(self, cursor: Any, sql: Statements) -> None:
        """Forget everything if somebody else has written.

        To be called inside a transaction that nobody can pass, before anything is taken.
        """
        version = sql.version(cursor)
        if version is None:  # nothing was remembered
            return
        connection = cursor.connection
        self.is_alone = version == self._version and connection is self._connection
        if not self.is_alone:
            self._states.clear()
            self._connection = connection
            self._version = version

    def take(self, path: str) -> StreamState | None:
        """Return what is known of the stream at a path, and forget it: a batch that fails leaves nothing behind."""
        return self._states.pop(path, None)

    def keep(self, state: StreamState) -> None:
        """Remember a stream as it was committed."""
        if self._version is not None and len(state.producers) <= MAX_PRODUCERS:
            self._states[state.path] = state
            if len(self._states) > MAX_KNOWN:
                self._states.popitem(last=False)
