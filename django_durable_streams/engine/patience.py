"""Waiting for rows that somebody else holds, such as a view that appends in a long transaction of its own.

A lane leaves such operations to this thread and goes on. For as long as one of a stream waits here, so do those that
come after it, which keeps a stream's requests in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from threading import Condition, Thread
from typing import NamedTuple

from django.db import connections

from ..protocol.errors import ServiceUnavailable
from ..store.operations import Operation

logger = logging.getLogger(__name__)

MAX_WAIT = 30.0
"""Seconds after which an operation is refused with 503."""


class Waiting(NamedTuple):
    """An operation that waits for its stream's row, and its future."""

    operation: Operation
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[object]
    since: float


class Patience:
    """A thread with a database connection that tries again until rows are free.

    Args:
        name: of the thread.
        using: alias of the database.
        attempt: applies operations on one stream, waiting a little for its row; None where that was in vain.
        settle: hands values to futures.
    """

    def __init__(
        self,
        name: str,
        using: str,
        attempt: Callable[[Sequence[Operation]], Sequence[object] | None],
        settle: Callable[[asyncio.AbstractEventLoop, Sequence[asyncio.Future[object]], Sequence[object]], None],
    ) -> None:
        self._name = name
        self._using = using
        self._attempt = attempt
        self._settle = settle
        self._changed = Condition()
        self._waiting: dict[str, list[Waiting]] = {}
        self._stopping = False
        self._thread: Thread | None = None

    def held(self, paths: Iterable[str]) -> Collection[str]:
        """Return those of some paths on which operations wait here."""
        return {path for path in paths if path in self._waiting} if self._waiting else ()

    def add(self, waiting: Sequence[Waiting]) -> None:
        """Take over operations, behind those on the same streams that wait already."""
        with self._changed:
            for one in waiting:
                self._waiting.setdefault(one.operation.path, []).append(one)
            if self._thread is None:
                self._thread = Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()

    def stop(self) -> None:
        """End the thread, and refuse what still waits."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                with self._changed:
                    while not self._waiting and not self._stopping:
                        if not self._changed.wait(timeout=60):
                            connections[self._using].close()
                    if self._stopping:
                        break
                    paths = list(self._waiting)
                for path in paths:
                    self._try(path)
        finally:
            connections[self._using].close()
            for path in list(self._waiting):
                self._answer(path, len(self._waiting[path]), None)

    def _try(self, path: str) -> None:
        group = list(self._waiting[path])
        try:
            values = self._attempt([one.operation for one in group])
        except Exception:  # the thread must outlive every bug
            logger.exception("Waiting for %s failed.", path)
            values = [ServiceUnavailable("The server could not do this. Try again.")] * len(group)
        if values is not None:
            self._answer(path, len(group), values)
            return
        # In the order in which they came, so the old ones are in front.
        oldest = time.monotonic() - MAX_WAIT
        self._answer(path, sum(one.since < oldest for one in group), None)

    def _answer(self, path: str, count: int, values: Sequence[object] | None) -> None:
        if not count:
            return
        with self._changed:
            group = self._waiting[path]
            done, rest = group[:count], group[count:]
            if rest:
                self._waiting[path] = rest
            else:
                del self._waiting[path]
        if values is None:
            refusal = ServiceUnavailable("Another transaction holds this stream. Try again.", ((b"retry-after", b"1"),))
            values = [refusal] * count
        for one, value in zip(done, values, strict=True):
            self._settle(one.loop, [one.future], [value])
