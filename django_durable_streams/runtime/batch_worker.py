"""Batch workers: a thread that takes all tasks that wait in its queue, and works on them as one batch.

The optimisation: an event loop submits the tasks of one turn as one `PendingBatch`. The thread is woken once for all of
them, and delivers their results with one call into the loop. From a few tasks on, a pending batch also waits for the
tasks of the next two turns. Clients that got their responses together send their next requests one after the other, and
a batch of the first few would make all others wait for its commit.

Invariant: a task is queued exactly once, in the order of submission within its event loop. Its callback is called
exactly once, unless its event loop was closed. This holds at the end of the thread, too: later tasks are refused.

Knows no stream and no kind of task.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import get_ident
from typing import Any, Generic, TypeVar, cast

from asgiref.sync import sync_to_async

from ..protocol.errors import ServiceUnavailable
from . import background, execution, tracing
from .backlog import Backlog
from .collecting import Collector
from .connection import CUT_SECONDS, DedicatedConnection
from .counting import BatchNumbers
from .exclusive_job import ExclusiveJob
from .pending_batch import PendingBatch, split_by_batch
from .results import NO_LOOP, Reply, ResultCallback, call_in, prepare_all, settle

logger = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")

IDLE_SECONDS = 60.0
"""A worker without work for so long closes its database connection."""

COLLECT_FROM_TASKS = 4
"""A turn of an event loop that adds so many tasks to a pending batch makes the batch wait for the next turn."""

MAX_EXTRA_TURNS = 2
"""Turns for which a pending batch waits at most."""

STOP_SECONDS = 5.0
"""How long a worker that has to end works on its queue. Then its connection is cut: the database may be silent."""

PREPARE_FROM_TASKS = 8
"""Tasks in a batch from which an additional call into the event loop costs less than early preparation saves."""


class WorkerEnded(ServiceUnavailable):
    """A worker has ended before it has begun a task. Another worker may do the task, which has changed nothing."""

    @classmethod
    def code(cls) -> str:
        return ServiceUnavailable.code()


class BatchWorker(Generic[T]):
    """A thread with one database connection and a queue of tasks.

    Args:
        name: name of the thread.
        connection: the connection that the thread works with.
        work: takes the tasks of a batch, and returns one value for each: a result, or an exception to raise.
        backlog: limits the tasks that wait.
        batch_size: number of tasks from which a batch takes no more pending batches.
        queue: the queue of another worker, to take tasks from it as well. None: a new one.
    """

    delays_results = False
    """Whether the results of a batch are held back while more tasks wait, until `work` calls `deliver_results` before
    it waits itself. An event loop that is woken sooner takes the interpreter from the thread, and gains nothing."""

    data_of: Callable[[Any], bytes] | None = None
    """Returns the data that a task carries, or None: tasks such as reads carry none. Without a frame of its own."""

    def __init__(
        self,
        name: str,
        connection: DedicatedConnection,
        work: Callable[[Sequence[T]], Sequence[object]],
        backlog: Backlog,
        batch_size: int,
        queue: SimpleQueue[PendingBatch[T] | ExclusiveJob | None] | None = None,
    ) -> None:
        self._connection = connection
        self._work = work
        self._backlog = backlog
        self._batch_size = batch_size
        self.numbers = BatchNumbers()
        # By thread, which is faster to find than its event loop.
        self._open: dict[int, PendingBatch[T]] = {}
        self._queue = SimpleQueue() if queue is None else queue
        self._next_job: ExclusiveJob | None = None
        self._batches_at_work: list[PendingBatch[T]] = []
        self._undelivered: tuple[list[PendingBatch[T]], Sequence[object]] | None = None
        self._collector = Collector()
        self._has_ended = False
        self._dispatch: Callable[[PendingBatch[T]], None] = self._run_inline if execution.is_inline() else self._enqueue
        self._thread = execution.start_thread(self._run, name)

    def submit(self, task: T) -> Reply:
        """Queue a task and return the future of its value. Call this where an event loop runs.

        Raises:
            ServiceUnavailable: too many tasks, or too much data, wait already.
        """
        reply = Reply(loop=asyncio.get_running_loop())
        self.post(task, reply)
        return reply

    def post(self, task: T, callback: ResultCallback) -> None:
        """Queue a task. Its callback gets the value in the event loop that runs here.

        Raises:
            ServiceUnavailable: too many tasks, or too much data, wait already.
        """
        size = len(self.data_of(task)) if self.data_of is not None else 0
        span = None if tracing.tracer is None else tracing.take()
        thread = get_ident()
        batch = self._open.get(thread)
        if batch is None or not batch.loop.is_running():
            self._backlog.check(0, 0, size)
            batch = self._open[thread] = PendingBatch(asyncio.get_running_loop(), thread, self._backlog.room())
            batch.loop.call_soon(self._dispatch, batch)
        else:
            max_tasks, max_bytes = batch.room
            if len(batch.tasks) >= max_tasks or batch.size + size > max_bytes:
                self._backlog.check(len(batch.tasks), batch.size, size)
        if span is not None:
            batch.spans = [*(batch.spans or ()), span]
        batch.tasks.append(task)
        batch.callbacks.append(callback)
        batch.size += size

    def put(self, task: T, callback: ResultCallback) -> None:
        """Queue a task. Its callback gets the value in the worker's thread. Safe to call from any thread.

        Raises:
            ServiceUnavailable: too many tasks, or too much data, wait already.
        """
        size = len(self.data_of(task)) if self.data_of is not None else 0
        self._backlog.check(0, 0, size)
        batch: PendingBatch[T] = PendingBatch(NO_LOOP, 0)
        batch.tasks.append(task)
        batch.callbacks.append(callback)
        batch.size = size
        self._backlog.add(1, size)
        self._queue.put(batch)

    def competes(self) -> bool:
        """Return whether other processes write to the same rows, so that the worker collects tasks (`collecting`)."""
        return False

    def between(self, work: Callable[[], U]) -> U:
        """Let the thread do other work between two batches, and wait for it. Do not call this in an event loop.

        Raises:
            WorkerEnded: the thread has ended.
        """
        job = ExclusiveJob(work)
        self._queue.put(job)
        if self._has_ended:
            self._refuse_queued()
        return cast("U", job.result())

    def stop(self) -> None:
        """End the thread after the tasks that are queued, and wait for its end, or leave it where its work hangs."""
        self._queue.put(None)
        self.wait_for_end(STOP_SECONDS)

    def wait_for_end(self, seconds: float, cut_seconds: float = CUT_SECONDS) -> None:
        """Wait for the end of the thread (`DedicatedConnection.end`). Tasks behind work that hangs are refused."""
        if not self._connection.end(self._thread, seconds, cut_seconds):
            self._refuse_queued()
            self._queue.put(None)

    def _enqueue(self, batch: PendingBatch[T], count_before: int = 0, extra_turns: int = 0) -> None:
        count = len(batch.tasks)
        if count - count_before >= COLLECT_FROM_TASKS and extra_turns < MAX_EXTRA_TURNS:
            batch.loop.call_soon(self._enqueue, batch, count, extra_turns + 1)
            return
        if self._open.get(batch.thread) is batch:
            del self._open[batch.thread]
        self._backlog.add(count, batch.size)
        self._queue.put(batch)
        if self._has_ended:
            self._refuse_queued()

    def _run_inline(self, batch: PendingBatch[T]) -> None:
        """Work on a batch without the thread (see `execution`)."""
        if self._open.get(batch.thread) is batch:
            del self._open[batch.thread]
        self._backlog.add(len(batch.tasks), batch.size)
        background.run_to_end(sync_to_async(self._do)([batch]))

    def _run(self) -> None:
        try:
            while (item := self._next()) is not None:
                if isinstance(item, ExclusiveJob):
                    self.deliver_results()
                    item.run()
                elif item:
                    self._do(item)
                else:
                    self._connection.close()
                # Release the batch before waiting: it may be large, and releasing it takes time.
                item = None
        finally:
            self.deliver_results()
            self._connection.close()
            self._has_ended = True
            self._refuse_queued()

    def _refuse_queued(self) -> None:
        """Refuse the tasks that came too late. Every caller that queues a task after the end calls this, too."""
        error = WorkerEnded("The server is about to end. Try again.")
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return
            if isinstance(item, ExclusiveJob):
                item.refuse(error)
            elif item is not None:
                settle(item.loop, item.callbacks, [error] * len(item.callbacks))

    def _next(self) -> list[PendingBatch[T]] | ExclusiveJob | None:
        """Wait for the next work, and return it: pending batches for one batch, or an exclusive job.

        The list is empty if nothing came for `IDLE_SECONDS`. None: the worker stops.
        """
        if self._next_job is not None:
            job, self._next_job = self._next_job, None
            return job
        try:
            first = self._queue.get(timeout=IDLE_SECONDS)
        except Empty:
            return []
        if first is None or isinstance(first, ExclusiveJob):
            return first
        batches = [first]
        count = len(first.tasks)
        while count < self._batch_size:
            try:
                batch = self._queue.get(timeout=self._collector.seconds_left(count))
            except Empty:
                break
            if batch is None:
                self._queue.put(None)
                break
            if isinstance(batch, ExclusiveJob):
                self._next_job = batch
                break
            batches.append(batch)
            count += len(batch.tasks)
        return batches

    def _do(self, batches: list[PendingBatch[T]]) -> None:
        # A task whose request was cancelled meanwhile is done as well: its client may have sent it and left.
        tasks = batches[0].tasks if len(batches) == 1 else [task for batch in batches for task in batch.tasks]
        self._batches_at_work = batches
        began = time.perf_counter()
        try:
            values = self._work(tasks) if tracing.tracer is None else self._trace(tracing.tracer, batches, tasks)
        except BaseException:  # the worker must outlive every bug
            logger.exception("A batch of %d tasks failed. Its requests get 503.", len(tasks))
            values = [ServiceUnavailable("The server could not do this. Try again.")] * len(tasks)
        self._batches_at_work = []
        seconds = time.perf_counter() - began
        self.numbers.seconds.observe(seconds)
        self.numbers.sizes.observe(len(tasks))
        self.deliver_results()
        self._undelivered = self._finish(batches, values)
        competes = self.competes()
        if competes or not self.delays_results or self._queue.empty():
            self.deliver_results()
        if competes:
            self._collector.start(len(tasks), self._backlog.tasks, seconds)
        else:
            self._collector.stop()

    def _trace(self, tracer: tracing.Tracer, batches: list[PendingBatch[T]], tasks: Sequence[T]) -> Sequence[object]:
        spans = [span for batch in batches for span in batch.spans or ()]
        with tracer.batch(self._thread.name, spans, len(tasks)):
            return self._work(tasks)

    def _finish(
        self, batches: list[PendingBatch[T]], values: Sequence[object]
    ) -> tuple[list[PendingBatch[T]], Sequence[object]]:
        """Return the tasks of a batch that are done, and their values."""
        self._backlog.remove(len(values), sum([batch.size for batch in batches]))
        return batches, values

    def deliver_results(self) -> None:
        """Deliver the results that are held back."""
        if self._undelivered is None:
            return
        (batches, values), self._undelivered = self._undelivered, None
        for batch, batch_values in split_by_batch(batches, values):
            settle(batch.loop, batch.callbacks, batch_values)

    @property
    def bytes_at_work(self) -> int:
        """Bytes of data that the tasks at work carry."""
        return sum([batch.size for batch in self._batches_at_work])

    def prepare_results(self, values: Sequence[object]) -> None:
        """Let event loops prepare for the results of the tasks at work, while this thread waits for their commit.

        Args:
            values: the results if the commit succeeds. Nothing is prepared unless there is one for each task at work.
        """
        count = sum(len(batch.tasks) for batch in self._batches_at_work)
        if len(values) == count >= PREPARE_FROM_TASKS:
            for batch, batch_values in split_by_batch(self._batches_at_work, values):
                call_in(batch.loop, prepare_all, batch.callbacks, batch_values)
