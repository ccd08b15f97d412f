"""Threads for work that would block the event loop: loading users, permissions that use the database, the rate cache.

The threads know nothing of the work. They group waiting items by their function, so that one call serves many requests.
The threads for permissions take calls from one queue, one at a time. So a long call delays no waiting one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Lock
from typing import Any, TypeVar, cast

from django.db import Error, connections, router

from ..conf import config
from ..models import Stream
from ..protocol.errors import ServiceUnavailable
from ..runtime import execution
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import STOP_SECONDS, BatchWorker
from ..runtime.connection import DedicatedConnection
from ..runtime.database_errors import may_pass
from ..runtime.monitor import DatabaseMonitor, monitor_for
from ..runtime.process_objects import ProcessObjects
from ..runtime.project_connections import close_other_connections
from ..runtime.results import Reply, ResultCallback, as_failure, call_in
from ..runtime.test_transactions import check_engine

logger = logging.getLogger("django_durable_streams.access")

T = TypeVar("T")
R = TypeVar("R")

BatchFunction = Callable[[Sequence[Any]], Sequence[object]]
"""Does the same work for several items, and returns a value or an exception for each."""

PERMISSION_THREADS = 4
"""Threads for the synchronous methods of permissions."""

MAX_BATCH_ITEMS = 500

ANSWER_SECONDS = 30.0
"""Seconds that a request waits for its user, or for the answer of a permission. Code of the project may hang, and the
clients leave long before."""

CUT_SECONDS = 1.0
"""How long the end of the process cuts the connection of a thread, before it leaves the thread: it only reads."""


def look_up(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """Call a function in the thread for identities, together with all other items that wait for the same function.

    Raises:
        ServiceUnavailable: too many items wait, or there is no answer within `ANSWER_SECONDS`.
    """
    return cast("Awaitable[R]", _limited(_worker("lookup").submit((work, item))))


def count(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """Call a function in the thread for the cache, as `look_up` does."""
    return cast("Awaitable[R]", _limited(_worker("limits", asks_database=False).submit((work, item))))


def call(function: Callable[[], T]) -> Awaitable[T]:
    """Call a function in one of the threads for permissions. After a lost connection it is called again.

    Raises:
        ServiceUnavailable: as for `look_up`.
    """
    pool = _permission_pool()
    reply = Reply(loop=asyncio.get_running_loop())
    task = partial(_call, function, reply), None
    if execution.is_inline():
        return cast("Awaitable[T]", pool.first.submit(task))
    pool.put(task, _ReplyInLoop(reply))
    return cast("Awaitable[T]", _limited(reply))


def _limited(reply: Reply) -> Reply:
    """Let a reply wait for `ANSWER_SECONDS` at most."""
    if not execution.is_inline():
        timer = reply.get_loop().call_later(ANSWER_SECONDS, _give_up, reply)
        reply.add_done_callback(lambda _: timer.cancel())
    return reply


class _ReplyInLoop:
    """Gives a value from the thread of a worker to a reply in its event loop."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def prepare(self, value: object) -> None:
        """Nothing can be prepared."""

    def resolve(self, value: object) -> None:
        """Pass the value on."""
        call_in(self._reply.get_loop(), self._reply.resolve, value)


def no_answer() -> ServiceUnavailable:
    """Return the error for a request whose user or permission does not answer in time."""
    return ServiceUnavailable("The permission could not be checked in time. Try again.")


def _give_up(reply: Reply) -> None:
    reply.resolve(no_answer())


def _call(function: Callable[[], object], reply: Reply, items: Sequence[None]) -> Sequence[object]:
    if reply.done():  # the request has its answer or was cancelled, and a slow method would delay the calls that wait
        return [no_answer()]
    try:
        return [function()]
    except Error as error:
        if may_pass(error):
            raise
        return [error]


class _AccessWorker(BatchWorker[tuple[BatchFunction, Any]]):
    """A thread that groups waiting items by their function.

    Args:
        name: the end of the thread's name.
        connection: the connection that the thread works with.
        monitor: tells whether the database answers. None: the work of this thread does not use the database.
        backlog: limits the items that wait. None: a new one, by the settings.
        batch_size, queue: as for other workers.
    """

    def __init__(
        self,
        name: str,
        connection: DedicatedConnection,
        monitor: DatabaseMonitor | None,
        backlog: Backlog | None = None,
        batch_size: int = MAX_BATCH_ITEMS,
        queue: SimpleQueue[Any] | None = None,
    ) -> None:
        self._monitor = monitor
        backlog = backlog or _new_backlog()
        super().__init__(f"durable-streams-access-{name}", connection, self._run_or_refuse, backlog, batch_size, queue)

    def stop(self) -> None:
        self._queue.put(None)
        self.wait_for_end(STOP_SECONDS, CUT_SECONDS)

    def _run_or_refuse(self, tasks: Sequence[tuple[BatchFunction, Any]]) -> Sequence[object]:
        if self._monitor is None:
            return self._run_all(tasks)
        if self._monitor.answers:
            with self._connection:
                try:
                    self._connection.open()
                except Error as error:
                    self._monitor.suspect(error)
                else:
                    return self._run_all(tasks)
        return [self._monitor.refusal()] * len(tasks)

    def _run_all(self, tasks: Sequence[tuple[BatchFunction, Any]]) -> Sequence[object]:
        groups: dict[BatchFunction, list[int]] = {}
        for index, (work, _) in enumerate(tasks):
            groups.setdefault(work, []).append(index)
        results: list[object] = [None] * len(tasks)
        for work, indices in groups.items():
            values = self._run_with_retry(work, [tasks[index][1] for index in indices])
            for index, value in zip(indices, values, strict=True):
                results[index] = value
        self._drop_broken()
        return results

    def _drop_broken(self) -> None:
        """Close the connections to all databases that an error may have broken."""
        using = self._connection.using
        if connections[using].errors_occurred:
            self._connection.close()
        close_other_connections(using, only_broken=True)

    def _run_with_retry(self, work: BatchFunction, items: Sequence[Any]) -> Sequence[object]:
        try:
            try:
                return work(items)
            except Error:  # the connection may be lost, while the database answers
                self._drop_broken()
                self._connection.close()
                self._connection.open()
                return work(items)
        except Error as error:
            refusal = self._monitor.problem_reporter.report(error) if self._monitor is not None else None
            if refusal is not None:
                return [refusal] * len(items)
            logger.error("The identity or the permission of a request cannot be checked: %s", error)
            return [
                ServiceUnavailable("The identity or the permission cannot be checked at present. Try again.")
            ] * len(items)
        except BaseException as error:  # other requests wait for this thread
            return [as_failure(error)] * len(items)


class _PermissionWorker(_AccessWorker):
    """One of the threads that take calls from one queue, one at a time. All of them stop together."""

    def _refuse_queued(self) -> None:
        super()._refuse_queued()
        self._queue.put(None)  # for the other workers of the queue


class _PermissionPool:
    """The threads for permissions. Another one starts when a call finds all of them at work."""

    def __init__(self, using: str) -> None:
        self._monitor = monitor_for(using)
        self._spare_connection: DedicatedConnection | None = None
        self._backlog = _new_backlog()
        self._queue: SimpleQueue[Any] = SimpleQueue()
        self._lock = Lock()
        self._has_stopped = False
        self._workers = [self._new_worker()]

    @property
    def first(self) -> _PermissionWorker:
        """The worker that is always there."""
        return self._workers[0]

    def put(self, task: tuple[BatchFunction, Any], callback: ResultCallback) -> None:
        """Queue a call. Its callback gets the value in the thread.

        Raises:
            ServiceUnavailable: too many calls wait.
        """
        self.first.put(task, callback)
        if self._backlog.tasks > len(self._workers) < PERMISSION_THREADS:
            with self._lock:
                if not self._has_stopped and len(self._workers) < PERMISSION_THREADS:
                    with suppress(ServiceUnavailable):  # no thread can start: the others take the call
                        self._workers.append(self._new_worker())
        if self._has_stopped:
            self.first._refuse_queued()

    def stop(self) -> None:
        """End the threads after the calls that are queued, all within the time of one."""
        with self._lock:
            self._has_stopped = True
        for _ in self._workers:
            self._queue.put(None)
        until = time.monotonic() + STOP_SECONDS
        for worker in self._workers:
            worker.wait_for_end(max(until - time.monotonic(), 0), CUT_SECONDS)

    def _new_worker(self) -> _PermissionWorker:
        # The monitor keeps each connection, so the next try takes that of a thread that could not start.
        connection = self._spare_connection = self._spare_connection or self._monitor.new_connection()
        worker = _PermissionWorker("permission", connection, self._monitor, self._backlog, 1, self._queue)
        self._spare_connection = None
        return worker


def _new_backlog() -> Backlog:
    return Backlog(config().queue_size, config().queue_bytes)


_workers = ProcessObjects[_AccessWorker]()
_pools = ProcessObjects[_PermissionPool]()


def _worker(name: str, *, asks_database: bool = True) -> _AccessWorker:
    worker = _workers.existing(name)
    if worker is not None:
        return worker
    using = _checked_alias()
    return _workers.get(name, partial(_new_worker, name, using, asks_database=asks_database))


def _new_worker(name: str, using: str, *, asks_database: bool) -> _AccessWorker:
    monitor = monitor_for(using) if asks_database else None
    connection = monitor.new_connection() if monitor is not None else DedicatedConnection(using)
    return _AccessWorker(name, connection, monitor)


def _permission_pool() -> _PermissionPool:
    pool = _pools.existing("permission")
    if pool is not None:
        return pool
    using = _checked_alias()
    return _pools.get("permission", lambda: _PermissionPool(using))


def _checked_alias() -> str:
    using = router.db_for_write(Stream)
    check_engine(using)
    return using
