"""The limit on live readers of a process: `MAX_LIVE_READERS` slots.

A reader takes its slot before it waits for anything. Knows no reader.
"""

from __future__ import annotations

from threading import Lock
from types import TracebackType
from typing import Self

from ..conf import config
from ..protocol import headers
from ..protocol.errors import ServiceUnavailable


class LiveReaderSlot:
    """The slot of one live reader.

    `release` frees it, and so does the garbage collector: a response may be thrown away by a middleware before it ends.
    As a context manager it is kept for the reader that the block makes, and freed at once if the block fails: an error
    and the frames through which it was raised may refer to each other, and wait for the collector.
    """

    __slots__ = ("_taken", "_token")

    def __init__(self, taken: set[object], token: object) -> None:
        self._taken = taken
        self._token = token

    def release(self) -> None:
        """Free the slot. May be called again. Safe to call from any thread; never blocks."""
        self._taken.discard(self._token)

    __del__ = release

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self.release()


class LiveReaderLimit:
    """The slots of one process."""

    def __init__(self) -> None:
        self._taken: set[object] = set()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._taken)

    def acquire(self) -> LiveReaderSlot:
        """Take a slot.

        Raises:
            ServiceUnavailable: all slots are taken (503 with `Retry-After`).
        """
        limit = config().max_live_readers
        token = object()
        with self._lock:
            if limit and len(self._taken) >= limit:
                message = "This server has too many live readers. Try again."
                raise ServiceUnavailable(message, ((headers.RETRY_AFTER, b"5"),))
            self._taken.add(token)
        return LiveReaderSlot(self._taken, token)
