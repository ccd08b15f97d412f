"""Waiting for rows that somebody else holds, such as a view that appends in a long transaction of its own.

A lane leaves such operations to this thread and goes on. For as long as one of a stream waits here, so do those that
come after it, which keeps a stream's requests in order.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable, Sequence
from threading import Condition, Thread
from typing import NamedTuple

from django.db import connections

from ..protocol.errors import ServiceUnavailable
from ..store.batch import LOCKED
from ..store.operations import Operation
from .applier import Applier
from .lane import IDLE_SECONDS, Receiver, settle

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.02
"""How long it waits before it looks again, where it cannot wait a little for a row."""

MAX_WAIT = 30.0
"""Seconds after which an operation is refused with 503."""


class Waiting(NamedTuple):
    """An operation that waits for its stream's row, and who is to know what becomes of it."""

    operation: Operation
    loop: asyncio.AbstractEventLoop
    receiver: Receiver
    since: float


class Patience:
    """A thread with a database connection that tries again until rows are free.

    Args:
        name: of the thread.
        applier: applies operations.
    """

    def __init__(self, name: str, applier: Applier) -> None:
        self._name = name
        self._applier = applier
        self._changed = Condition()
        self._waiting: dict[str, list[Waiting]] = {}
        self._rounds = 0
        # MySQL waits for a lock for a second at least, and what another stream waits for may be free long before.
        self._polls = connections[applier.line.using].vendor == "mysql"
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
            while self._wait():
                self._round()
        finally:
            self._applier.line.close()
            for path in list(self._waiting):
                self._refuse(path, len(self._waiting[path]))

    def _wait(self) -> bool:
        """Wait until something waits here; return whether to go on."""
        with self._changed:
            while not self._waiting and not self._stopping:
                if not self._changed.wait(timeout=IDLE_SECONDS):
                    self._applier.line.close()
            return not self._stopping

    def _round(self) -> None:
        """Do all that can be done at once, then wait a little for the row of one stream, another one each time."""
        paths = list(self._waiting)
        if len(paths) > 1 or self._polls:
            self._try(paths)
            paths = list(self._waiting)
        if paths and self._polls:
            with self._changed:
                self._changed.wait(POLL_SECONDS)
        elif paths:
            self._rounds += 1
            self._try([paths[self._rounds % len(paths)]], wait=True)
        limit = time.monotonic() - MAX_WAIT
        for path in list(self._waiting):
            # In the order in which they came, so the old ones are in front.
            self._refuse(path, sum(one.since < limit for one in self._waiting[path]))

    def _try(self, paths: Sequence[str], *, wait: bool = False) -> None:
        groups = [(path, list(self._waiting[path])) for path in paths]
        operations = [one.operation for _, group in groups for one in group]
        try:
            values = self._applier.apply(operations, wait=wait)
        except Exception:  # the thread must outlive every bug
            logger.exception("Waiting for %s failed.", ", ".join(paths))
            values = [ServiceUnavailable("The server could not do this. Try again.")] * len(operations)
        first = 0
        for path, group in groups:
            self._answer(path, values[first : first + len(group)])
            first += len(group)

    def _refuse(self, path: str, count: int) -> None:
        self._answer(path, [ServiceUnavailable("Another transaction holds this stream. Try again.")] * count)

    def _answer(self, path: str, values: Sequence[object]) -> None:
        """Answer the operations on a stream that have waited longest; those that are LOCKED stay."""
        if not values or all(value is LOCKED for value in values):
            return
        with self._changed:
            group = self._waiting[path]
            done = [(one, value) for one, value in zip(group, values, strict=False) if value is not LOCKED]
            rest = [one for one, value in zip(group, values, strict=False) if value is LOCKED] + group[len(values) :]
            if rest:
                self._waiting[path] = rest
            else:
                del self._waiting[path]
        for one, value in done:
            settle(one.loop, [one.receiver], [value])
