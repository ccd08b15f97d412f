"""Operations on streams whose rows other transactions hold, such as that of a view that appends and goes on working.

A lane leaves such operations to this queue and goes on with other streams. While one operation of a stream waits here,
all that come after it on that stream join it, so a stream's operations keep their order.

Whoever waits for a row in the database has a place in the database's own queue, and loses it by giving up. So a few
threads wait for one stream each until they have its row, and then apply all that waits for that stream. Where more
streams are held than there are such threads, one more looks at the others again and again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from threading import Condition, Event, Thread
from typing import NamedTuple

from ..protocol.errors import ServiceUnavailable
from ..runtime.backlog import Backlog
from ..runtime.results import ResultCallback, settle
from ..store.operations import Operation
from ..store.write.batch import LOCKED
from .applier import Applier

logger = logging.getLogger(__name__)

MAX_WAIT = 30.0
"""Seconds after which an operation is refused with 503, and with it all that wait behind it on its stream."""

KEEPERS = 2
"""Threads that keep their place in the database's queue for one stream each."""

POLL_SECONDS = 0.02
"""Time between two looks at streams that no thread has a place for."""

IDLE_SECONDS = 5.0
"""A thread without work gives its database connection back after this time."""

MAX_TOGETHER = 512
"""Operations of a stream that are applied in one transaction."""


class PendingOperation(NamedTuple):
    """An operation that waits for its stream's row, and who is to know what becomes of it."""

    operation: Operation
    loop: asyncio.AbstractEventLoop
    callback: ResultCallback
    since: float
    """When it began to wait, in monotonic seconds."""
    size: int
    """Bytes of data that it carries."""


class LockWaitQueue:
    """Applies operations in the order of their streams as soon as their rows are free.

    Args:
        name: of its threads.
        make_applier: returns what applies operations, over a connection of its own.
        backlog: is told of the operations that are answered.
    """

    def __init__(self, name: str, make_applier: Callable[[], Applier], backlog: Backlog) -> None:
        self._name = name
        self._make_applier = make_applier
        self._backlog = backlog
        self._changed = Condition()
        # By path, the one that has waited longest first.
        self._waiting: dict[str, list[PendingOperation]] = {}
        # Paths that one of the threads is at work on: nobody else may apply their operations.
        self._attended: set[str] = set()
        self._appliers: list[Applier] = []
        self._threads: list[Thread] = []
        self._stopped = Event()

    def held(self, paths: Iterable[str]) -> Collection[str]:
        """Return those of some paths on which operations wait here."""
        return {path for path in paths if path in self._waiting} if self._waiting else ()

    def add(self, waiting: Sequence[PendingOperation]) -> None:
        """Take over operations, behind those on the same streams that wait already."""
        with self._changed:
            for one in waiting:
                self._waiting.setdefault(one.operation.path, []).append(one)
            try:
                while len(self._threads) < min(len(self._waiting), KEEPERS + 1):
                    self._start_thread()
            except RuntimeError:
                logger.exception("A thread that waits for locked streams cannot start.")
            self._changed.notify_all()
        if not self._threads:
            for path in list(self._waiting):
                self._refuse(path)

    def stop(self) -> None:
        """End the threads, and refuse what still waits."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()
        for applier in self._appliers:
            applier.stop()
        for thread in self._threads:
            thread.join()
        for path in list(self._waiting):
            self._refuse(path)

    def _start_thread(self) -> None:
        applier = self._make_applier()
        run = self._keep_places if len(self._threads) < KEEPERS else self._poll
        thread = Thread(target=run, args=(applier,), name=self._name, daemon=True)
        thread.start()
        self._appliers.append(applier)
        self._threads.append(thread)

    def _keep_places(self, applier: Applier) -> None:
        """Attend to one stream after the other."""
        while paths := self._attend(applier, 1):
            self._work(self._keep_place, applier, paths)
        applier.connection.close()

    def _poll(self, applier: Applier) -> None:
        """Attend to all streams that the other threads cannot attend to, again and again."""
        while paths := self._attend(applier, None):
            self._work(self._try, applier, paths)
            self._stopped.wait(POLL_SECONDS)
        applier.connection.close()

    def _work(self, work: Callable[[Applier, Sequence[str]], None], applier: Applier, paths: Sequence[str]) -> None:
        try:
            work(applier, paths)
        except Exception:  # the thread must outlive every bug
            logger.exception("Waiting for %s failed.", ", ".join(paths))
            for path in paths:
                self._refuse(path)
        finally:
            with self._changed:
                self._attended.difference_update(paths)
                self._changed.notify_all()

    def _attend(self, applier: Applier, limit: int | None) -> Sequence[str]:
        """Wait for streams that nobody attends to, and return their paths; none at the end.

        Args:
            limit: how many. None: all, once there are more than the other threads can attend to.
        """
        with self._changed:
            while not self._stopped.is_set():
                unattended = [path for path in self._waiting if path not in self._attended]
                if unattended and (limit is not None or len(self._attended) >= KEEPERS):
                    paths = unattended[:limit]
                    self._attended.update(paths)
                    return paths
                if not self._changed.wait(timeout=IDLE_SECONDS):
                    applier.connection.close()
        return ()

    def _keep_place(self, applier: Applier, paths: Sequence[str]) -> None:
        """Wait for a stream's row and apply what has come for it by then, until nothing waits for it any more."""
        (path,) = paths
        while path in self._waiting and not self._stopped.is_set():
            left = self._waiting[path][0].since + MAX_WAIT - time.monotonic()
            if left <= 0:
                self._refuse(path)
                return
            values = applier.apply_when_free(path, partial(self._operations, path), left)
            self._answer(path, values)

    def _try(self, applier: Applier, paths: Sequence[str]) -> None:
        """Apply what can be applied at once for some streams."""
        groups = [(path, self._operations(path)) for path in paths]
        values = applier.apply([operation for _, group in groups for operation in group])
        first = 0
        for path, group in groups:
            self._answer(path, values[first : first + len(group)])
            first += len(group)
        limit = time.monotonic() - MAX_WAIT
        for path in paths:
            if path in self._waiting and self._waiting[path][0].since < limit:
                self._refuse(path)

    def _operations(self, path: str) -> list[Operation]:
        """Return the operations on a stream that have waited longest."""
        with self._changed:
            return [one.operation for one in self._waiting.get(path, ())[:MAX_TOGETHER]]

    def _refuse(self, path: str) -> None:
        """Refuse all operations on a stream: to apply the later ones would change their order."""
        with self._changed:
            count = len(self._waiting.get(path, ()))
        self._answer(path, [ServiceUnavailable("Another transaction holds this stream. Try again.")] * count)

    def _answer(self, path: str, values: Sequence[object]) -> None:
        """Answer the operations on a stream that have waited longest, up to the first that is LOCKED still."""
        done = next((number for number, value in enumerate(values) if value is LOCKED), len(values))
        if not done:
            return
        with self._changed:
            group = self._waiting[path]
            answered, rest = group[:done], group[done:]
            if rest:
                self._waiting[path] = rest
            else:
                del self._waiting[path]
        self._backlog.remove(done, sum(one.size for one in answered))
        for one, value in zip(answered, values, strict=False):
            settle(one.loop, [one.callback], [value])
