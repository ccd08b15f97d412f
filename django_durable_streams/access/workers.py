"""Threads for work that would block the event loop: loading users, permissions that use the database, the rate cache.

The threads know nothing of the work. They group waiting items by their function, so that one call serves many requests.
The threads for permissions take calls from one queue, one at a time. So a long call delays no waiting one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from django.db import Error, connections, router

from ..conf import config
from ..models import Stream
from ..protocol.errors import ServiceUnavailable
from ..runtime import execution
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker
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
"""Seconds that a request waits for the answer of a permission. A method may hang, and its clients leave long before."""

_workers = ProcessObjects["_AccessWorker"]()


def look_up(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """Call a function in the thread for identities, together with all other items that wait for the same function."""
    return cast("Awaitable[R]", _worker("lookup").submit((work, item)))


def count(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """Call a function in the thread for the cache, as `look_up` does."""
    return cast("Awaitable[R]", _worker("limits", asks_database=False).submit((work, item)))


def call(function: Callable[[], T]) -> Awaitable[T]:
    """Call a function in one of the threads for permissions. After a lost connection it is called again.

    Raises:
        ServiceUnavailable: too many calls wait, or there is no answer within `ANSWER_SECONDS`.
    """
    first = _worker("permission-0")
    task = partial(_call, function, time.monotonic() + ANSWER_SECONDS), None
    if execution.is_inline():
        return cast("Awaitable[T]", first.submit(task))
    if first.unfinished:
        _worker(f"permission-{min(first.unfinished, PERMISSION_THREADS - 1)}", shares=first)
    loop = asyncio.get_running_loop()
    reply = Reply(loop=loop)
    first.put(task, _ReplyInLoop(reply))
    timer = loop.call_later(ANSWER_SECONDS, _give_up, reply)
    reply.add_done_callback(lambda _: timer.cancel())
    return cast("Awaitable[T]", reply)


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
    """Return the error for a request whose permission does not answer in time."""
    return ServiceUnavailable("The permission could not be checked in time. Try again.")


def _give_up(reply: Reply) -> None:
    reply.resolve(no_answer())


def _call(function: Callable[[], object], latest: float, items: Sequence[None]) -> Sequence[object]:
    if time.monotonic() > latest:  # the request has its answer, and a slow method would delay the calls that wait
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
        using: the alias of the database.
        monitor: tells whether the database answers. None: the work of this thread does not use the database.
        shares: the worker whose queue this one shares. All of them have to stop together.
    """

    def __init__(
        self, name: str, using: str, monitor: DatabaseMonitor | None, shares: _AccessWorker | None = None
    ) -> None:
        self._monitor = monitor
        self._takes_one = name.startswith("permission")
        connection = monitor.new_connection() if monitor is not None else DedicatedConnection(using)
        backlog = Backlog(config().queue_size, config().queue_bytes) if shares is None else shares._backlog
        queue = None if shares is None else shares._queue
        size = 1 if self._takes_one else MAX_BATCH_ITEMS
        super().__init__(f"durable-streams-access-{name}", connection, self._run_or_refuse, backlog, size, queue)

    @property
    def unfinished(self) -> int:
        """The number of tasks in the queue and at work, of all workers that share the queue."""
        return self._backlog.tasks

    def put(self, task: tuple[BatchFunction, Any], callback: ResultCallback) -> None:
        """The same as for other workers. A worker that has ended refuses the task."""
        super().put(task, callback)
        if self._has_ended:
            self._refuse_queued()

    def _refuse_queued(self) -> None:
        super()._refuse_queued()
        if self._takes_one:
            self._queue.put(None)  # for the other workers of the queue, which end as well

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


def _worker(name: str, *, asks_database: bool = True, shares: _AccessWorker | None = None) -> _AccessWorker:
    worker = _workers.existing(name)
    if worker is not None:
        return worker
    using = router.db_for_write(Stream)
    check_engine(using)
    return _workers.get(name, lambda: _AccessWorker(name, using, monitor_for(using) if asks_database else None, shares))
