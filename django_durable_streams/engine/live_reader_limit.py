"""Places of live readers: as many as MAX_LIVE_READERS, each taken before its reader waits for anything."""

from __future__ import annotations

from threading import Lock

from ..conf import config
from ..protocol.errors import ServiceUnavailable


class LiveReaderSlot:
    """A live reader's place. It is given back by `release`, which may be called again, or with the object itself:
    what has it may never get to its end, such as a response that a middleware has thrown away.
    """

    __slots__ = ("_taken", "_token")

    def __init__(self, taken: set[object], token: object) -> None:
        self._taken = taken
        self._token = token

    def release(self) -> None:
        """Give it back. Safe to call from any thread; never blocks."""
        self._taken.discard(self._token)

    __del__ = release


class LiveReaderLimit:
    """The places of one process."""

    def __init__(self) -> None:
        self._taken: set[object] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._taken)

    def take(self) -> LiveReaderSlot:
        """Take a place.

        Raises:
            ServiceUnavailable: all are taken (503, carries `Retry-After`).
        """
        limit = config().max_live_readers
        token = object()
        with self._lock:
            if limit and len(self._taken) >= limit:
                raise ServiceUnavailable("Too many live readers are here. Try again.", ((b"retry-after", b"5"),))
            self._taken.add(token)
        return LiveReaderSlot(self._taken, token)
