"""The lock wait queue: operations on streams whose rows other transactions hold.

An example is the transaction of a view that appends and goes on working. The committer leaves such operations to this
queue and goes on with other streams.

Invariant: while an operation of a stream waits here, all later operations of the stream wait behind it. So they keep
their order.

The database has a queue for each row, and a waiting connection that gives up loses its place. So a few threads wait for
one stream each until they have its row, and then apply all operations that wait for the stream. If more streams are
locked, one more thread polls the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from threading import Condition, Event, Thread
from typing import NamedTuple, Protocol

from ..protocol.errors import ServiceUnavailable
from ..runtime.backlog import Backlog
from ..runtime.connection import DedicatedConnection
from ..runtime.results import ResultCallback, settle
from ..store.operations import Operation
from ..store.write.batch import LOCKED

logger = logging.getLogger(__name__)

MAX_WAIT = 30.0
"""Seconds after which an operation is refused with 503, together with all operations behind it on its stream."""

PLACE_THREADS = 2
"""Threads that keep a place in the database's queue, for one stream each."""

POLL_SECONDS = 0.02
"""Time between two attempts on the streams for which no thread keeps a place."""

IDLE_SECONDS = 5.0
"""A thread without work closes its database connection after this time."""

MAX_BATCH = 512
"""Operations of a stream that are applied in one transaction."""

STOP_SECONDS = 5.0
"""How long the end of a process cuts the connections of threads that work on. Then it leaves the threads."""


_HELD = "Another transaction holds this stream. Try again."
_UNCONFIRMED = "The database did not confirm this. Try again."


class Applier(Protocol):
    """A connection, and the way to apply operations over it: `committer.Applier`."""

    connection: DedicatedConnection

    def apply(self, operations: Sequence[Operation]) -> Sequence[object]:
        """Apply operations and return their outcomes, LOCKED where another transaction holds the stream's row."""

    def apply_when_free(
        self, path: str, operations: Callable[[], Sequence[Operation]], seconds: float
    ) -> Sequence[object]:
        """Wait for a stream's row for at most so many seconds, and apply the stream's operations."""

    def stop(self) -> None:
        """Stop waiting for locks. Safe to call from any thread."""


class PendingOperation(NamedTuple):
    """An operation that waits for its stream's row, and the callback for its outcome."""

    operation: Operation
    loop: asyncio.AbstractEventLoop
    callback: ResultCallback
    since: float
    """When it began to wait, in monotonic seconds."""
    size: int
    """Bytes of data that the operation carries."""


class LockWaitQueue:
    """Applies operations as soon as the rows of their streams are free.

    Args:
        name: the name of its threads.
        make_applier: returns an applier with a connection of its own.
        backlog: counts the waiting operations of the committer. Applied operations are taken out of the count.
    """

    def __init__(self, name: str, make_applier: Callable[[], Applier], backlog: Backlog) -> None:
        self._name = name
        self._make_applier = make_applier
        self._backlog = backlog
        self._changed = Condition()
        self._waiting: dict[str, list[PendingOperation]] = {}
        """By path, in the order in which they wait."""
        self._attended: set[str] = set()
        """Paths that one of the threads works on. No other thread may apply their operations."""
        self._appliers: list[Applier] = []
        self._threads: list[Thread] = []
        self._stopped = Event()

    def held(self, paths: Iterable[str]) -> Collection[str]:
        """Return those of the paths on which operations wait here."""
        return {path for path in paths if path in self._waiting} if self._waiting else ()

    def add(self, waiting: Sequence[PendingOperation]) -> None:
        """Add operations, behind the waiting operations of the same streams."""
        with self._changed:
            has_stopped = self._stopped.is_set()
            if not has_stopped:
                self._add(waiting)
        if has_stopped:  # the committer has hung, and was left behind
            self._settle(waiting, [ServiceUnavailable("The server is about to end. Try again.")] * len(waiting))
        elif not self._threads:
            for path in list(self._waiting):
                self._refuse(path)

    def stop(self) -> None:
        """End the threads, or leave one where its work hangs, and refuse all operations that still wait."""
        with self._changed:
            self._stopped.set()
            self._changed.notify_all()
        for applier in self._appliers:
            applier.stop()
        until = time.monotonic() + STOP_SECONDS
        for applier, thread in zip(self._appliers, self._threads, strict=True):
            applier.connection.end(thread, 0.0, until - time.monotonic())
        for path in list(self._waiting):
            self._refuse(path, _UNCONFIRMED if path in self._attended else _HELD)

    def _add(self, waiting: Sequence[PendingOperation]) -> None:
        for pending in waiting:
            self._waiting.setdefault(pending.operation.path, []).append(pending)
        try:
            while len(self._threads) < min(len(self._waiting), PLACE_THREADS + 1):
                self._start_thread()
        except RuntimeError:
            logger.exception(
                "A thread that waits for locked streams cannot start. If there is none, their operations get 503."
            )
        self._changed.notify_all()

    def _start_thread(self) -> None:
        applier = self._make_applier()
        run = self._keep_places if len(self._threads) < PLACE_THREADS else self._poll
        thread = Thread(target=run, args=(applier,), name=self._name, daemon=True)
        thread.start()
        self._appliers.append(applier)
        self._threads.append(thread)

    def _keep_places(self, applier: Applier) -> None:
        """Work on one stream after another. Runs in a thread."""
        while paths := self._attend(applier, 1):
            self._work(self._keep_place, applier, paths)
        applier.connection.close()

    def _poll(self, applier: Applier) -> None:
        """Work on all streams for which the other threads have no time, again and again. Runs in a thread."""
        while paths := self._attend(applier, None):
            self._work(self._try, applier, paths)
            self._stopped.wait(POLL_SECONDS)
        applier.connection.close()

    def _work(self, work: Callable[[Applier, Sequence[str]], None], applier: Applier, paths: Sequence[str]) -> None:
        try:
            work(applier, paths)
        except BaseException:  # the thread must outlive every bug
            logger.exception("Waiting for the locked streams %s failed. Their operations get 503.", ", ".join(paths))
            for path in paths:
                self._refuse(path)
        finally:
            with self._changed:
                self._attended.difference_update(paths)
                self._changed.notify_all()

    def _attend(self, applier: Applier, limit: int | None) -> Sequence[str]:
        """Wait for streams that no thread works on, and return their paths. Empty: the thread has to end.

        Args:
            limit: the most streams to return. None: all of them, once the other threads are all at work.
        """
        with self._changed:
            while not self._stopped.is_set():
                unattended = [path for path in self._waiting if path not in self._attended]
                if unattended and (limit is not None or len(self._attended) >= PLACE_THREADS):
                    paths = unattended[:limit]
                    self._attended.update(paths)
                    return paths
                if not self._changed.wait(timeout=IDLE_SECONDS):
                    applier.connection.close()
        return ()

    def _keep_place(self, applier: Applier, paths: Sequence[str]) -> None:
        """Wait for a stream's row and apply the stream's operations, until none waits any more."""
        (path,) = paths
        while path in self._waiting and not self._stopped.is_set():
            seconds_left = self._waiting[path][0].since + MAX_WAIT - time.monotonic()
            if seconds_left <= 0:
                self._refuse(path)
                return
            values = applier.apply_when_free(path, partial(self._operations, path), seconds_left)
            self._resolve(path, values)

    def _try(self, applier: Applier, paths: Sequence[str]) -> None:
        """Apply the operations of streams whose rows are free now."""
        groups = [(path, self._operations(path)) for path in paths]
        values = applier.apply([operation for _, group in groups for operation in group])
        first = 0
        for path, group in groups:
            self._resolve(path, values[first : first + len(group)])
            first += len(group)
        refuse_before = time.monotonic() - MAX_WAIT
        for path in paths:
            if path in self._waiting and self._waiting[path][0].since < refuse_before:
                self._refuse(path)

    def _operations(self, path: str) -> list[Operation]:
        """Return the operations of a stream that have waited longest."""
        with self._changed:
            return [pending.operation for pending in self._waiting.get(path, ())[:MAX_BATCH]]

    def _refuse(self, path: str, detail: str = _HELD) -> None:
        """Refuse all operations of a stream. To apply only the later ones would change their order."""
        with self._changed:
            count = len(self._waiting.get(path, ()))
        self._resolve(path, [ServiceUnavailable(detail)] * count)

    def _resolve(self, path: str, values: Sequence[object]) -> None:
        """Hand over the outcomes of a stream's first operations, up to the first that is still LOCKED."""
        done = next((number for number, value in enumerate(values) if value is LOCKED), len(values))
        if not done:
            return
        with self._changed:
            group = self._waiting.get(path, [])  # empty: `stop` has refused the operations at which a thread hangs
            resolved, rest = group[:done], group[done:]
            if rest:
                self._waiting[path] = rest
            else:
                self._waiting.pop(path, None)
        self._settle(resolved, values)

    def _settle(self, resolved: Sequence[PendingOperation], values: Sequence[object]) -> None:
        self._backlog.remove(len(resolved), sum(pending.size for pending in resolved))
        for pending, value in zip(resolved, values, strict=False):
            settle(pending.loop, [pending.callback], [value])
