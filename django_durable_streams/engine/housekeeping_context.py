"""What all housekeeping tasks share: the thread's connection, and the ways to read and write. Knows no task."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..models import Stream
from ..runtime.connection import DedicatedConnection
from ..runtime.results import contained
from ..runtime.write_lock import WriteLock

POLITE_SECONDS = 0.1
"""How long work that is not urgent waits for a moment in which nobody writes."""

TRY_SECONDS = 0.004
"""How long it waits between two attempts to find one."""

P = ParamSpec("P")
T = TypeVar("T")


class HousekeepingContext:
    """What all tasks share: the thread's connection, and the ways to read and write.

    Work may call the project's receivers of Django's signals. Whatever they raise becomes an `Exception`, so that it is
    the failure of the streams at hand, and not of the task.

    Args:
        connection: the thread's own connection, which is open during a step.
        write_lock: held around each piece of work that writes.
        write: does work on the committer's connection and waits for it. None: the thread does it itself.
    """

    def __init__(
        self,
        connection: DedicatedConnection,
        write_lock: WriteLock,
        write: Callable[[Callable[[], object]], object] | None,
    ) -> None:
        self.connection = connection
        self.using = connection.using
        self.is_one = write_lock.is_one
        self._write_lock = write_lock
        self._write = write or self.do

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do work that writes, on this thread's connection."""
        with contained, self.connection:
            self.connection.open()
            with self._write_lock.hold():
                return work(*args, **kwargs)

    def do_politely(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do work that writes and is not urgent: `do`, but not in front of requests that are about to write.

        A thread that waits for the write lock gets it as soon as a commit ends, and a client's next request waits for
        this work. So the lock is taken only when it is free, at two attempts in a row: right after a commit, a client
        that is alone sends its next request. After `POLITE_SECONDS` the work waits as `do` does.
        """
        until = time.monotonic() + POLITE_SECONDS
        was_free = False
        while time.monotonic() < until:
            with contained, self.connection:
                self.connection.open()
                with self._write_lock.try_hold() as is_held:
                    if is_held and (was_free or not self.is_one):
                        return work(*args, **kwargs)
            was_free = is_held
            time.sleep(TRY_SECONDS)
        return self.do(work, *args, **kwargs)

    def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do work that only reads, on this thread's connection."""
        with contained, self.connection:
            self.connection.open()
            return work(*args, **kwargs)

    def write(self, work: Callable[[], object]) -> object:
        """Do work that writes, on the connection that frequent writes use."""
        with contained:
            return self._write(work)

    def name(self, stream_id: int) -> str:
        """Return the name of a stream for log messages: its path, if it still has one."""
        path = self.read(Stream._base_manager.using(self.using).filter(pk=stream_id).values_list("path").first)
        return path[0] if path is not None and path[0] is not None else f"a removed stream (id {stream_id})"
