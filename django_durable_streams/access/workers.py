"""Threads for what would make the event loop wait: sessions, users, permissions that use the database, the cache."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any, TypeVar, cast

from django.db import Error, connections, router

from ..conf import config
from ..models import Stream
from ..protocol.errors import ServiceUnavailable
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker
from ..runtime.connection import DedicatedConnection
from ..runtime.lifecycle import call_at_stop
from ..runtime.monitor import DatabaseMonitor, monitor_for
from ..runtime.results import as_failure
from ..runtime.test_transactions import check_engine

logger = logging.getLogger("django_durable_streams.access")

T = TypeVar("T")
R = TypeVar("R")

BatchFunction = Callable[[Sequence[Any]], Sequence[object]]
"""Does the same thing for several at once: returns a value or an exception for each."""

PERMISSION_THREADS = 4
"""Threads for the synchronous methods of permissions."""

BATCH_SIZE = 500

_workers: dict[str, _AccessWorker] = {}
_turn = itertools.count()
_lock = Lock()


def look_up(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """Have something looked up in the thread for callers, together with all else that waits for the same."""
    return cast("Awaitable[R]", _worker("lookup").submit((work, item)))


def count(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """The same in the thread that talks to the cache."""
    return cast("Awaitable[R]", _worker("limits", asks_database=False).submit((work, item)))


def call(function: Callable[[], T]) -> Awaitable[T]:
    """Call a function in one of the threads for permissions."""
    return cast("Awaitable[T]", _worker(f"judge-{next(_turn) % PERMISSION_THREADS}").submit((_call_all, function)))


def _call_all(functions: Sequence[Callable[[], object]]) -> Sequence[object]:
    found: list[object] = []
    for function in functions:
        try:
            found.append(function())
        except BaseException as error:  # others wait for this thread
            found.append(as_failure(error))
    return found


class _AccessWorker(BatchWorker[tuple[BatchFunction, Any]]):
    """A lane that does what waits grouped by what is to be done.

    Args:
        pulse: whether the database answers. None: what is done here does not ask it.
    """

    def __init__(self, name: str, using: str, monitor: DatabaseMonitor | None) -> None:
        self._monitor = monitor
        connection = monitor.new_connection() if monitor is not None else DedicatedConnection(using)
        backlog = Backlog(config().queue_size, config().queue_bytes)
        super().__init__(f"durable-streams-access-{name}", connection, self._do_or_refuse, backlog, BATCH_SIZE)

    def _do_or_refuse(self, tasks: Sequence[tuple[BatchFunction, Any]]) -> Sequence[object]:
        if self._monitor is None:
            return self._do_all(tasks)
        if self._monitor.answers:
            with self._connection:
                try:
                    self._connection.open()
                except Error as error:
                    self._monitor.suspect(error)
                else:
                    return self._do_all(tasks)
        return [self._monitor.refusal()] * len(tasks)

    def _do_all(self, tasks: Sequence[tuple[BatchFunction, Any]]) -> Sequence[object]:
        groups: dict[BatchFunction, list[int]] = {}
        for index, (work, _) in enumerate(tasks):
            groups.setdefault(work, []).append(index)
        found: list[object] = [None] * len(tasks)
        for work, indices in groups.items():
            values = self._do_once_or_twice(work, [tasks[index][1] for index in indices])
            for index, value in zip(indices, values, strict=True):
                found[index] = value
        if any(connection.errors_occurred for connection in connections.all(initialized_only=True)):
            self._connection.close()
        return found

    def _do_once_or_twice(self, work: BatchFunction, items: Sequence[Any]) -> Sequence[object]:
        try:
            try:
                return work(items)
            except Error:  # it may only have been the connection
                self._connection.close()
                self._connection.open()
                return work(items)
        except Error as error:
            refusal = self._monitor.problem_reporter.refusal(error) if self._monitor is not None else None
            if refusal is not None:
                return [refusal] * len(items)
            logger.error("It cannot be found out who is asking: %s", error)
            return [ServiceUnavailable("It cannot be found out who is asking. Try again.")] * len(items)
        except BaseException as error:  # others wait for this thread
            return [as_failure(error)] * len(items)


def _worker(name: str, *, asks_database: bool = True) -> _AccessWorker:
    worker = _workers.get(name)
    if worker is None:
        using = router.db_for_write(Stream)
        check_engine(using)
        with _lock:
            worker = _workers.get(name)
            if worker is None:
                worker = _workers[name] = _AccessWorker(name, using, monitor_for(using) if asks_database else None)
    return worker


@call_at_stop
def _stop() -> None:
    workers = list(_workers.values())
    _workers.clear()
    for worker in workers:
        worker.stop()


def _forget() -> None:
    global _lock
    _workers.clear()
    _lock = Lock()


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_forget)
