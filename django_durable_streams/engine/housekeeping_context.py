"""What all housekeeping tasks share: the thread's connection, and the ways to read and write. Knows no task."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ..models import Stream
from ..runtime.connection import DedicatedConnection
from ..runtime.results import contained
from ..runtime.write_lock import WriteLock

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
