"""A lane: a thread that takes everything that waits for it and does it in one go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future as ThreadFuture
from queue import Empty, SimpleQueue
from threading import Thread, get_ident
from typing import Any, Generic, Protocol, TypeVar, cast

from ..protocol.errors import ServiceUnavailable
from .backlog import Backlog
from .connection import DedicatedConnection

logger = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")
Future = asyncio.Future[object]


class ResultCallback(Protocol):
    """Somebody who is given what becomes of a task, in the event loop in which it was asked for."""

    def prepare(self, value: object) -> object:
        """Make ready for a value that may follow, unless another one does. Nobody may hear of it yet."""

    def resolve(self, value: object) -> object:
        """Take the value, or the exception that it is."""


class Reply(Future):
    """The future of a task's value. `then`, where somebody has set it, is called as soon as the value is there.

    A future's own callbacks are called one turn of the event loop later, each by an object of its own.
    """

    then: Callable[[Reply], object] | None = None

    def prepare(self, value: object) -> None:
        """There is nothing to make ready."""

    def resolve(self, value: object) -> None:
        """Set the value, or the exception that it is, unless whoever waited has given up."""
        if self.done():
            return
        if isinstance(value, BaseException):
            self.set_exception(as_failure(value))
        else:
            self.set_result(value)
        if self.then is not None:
            self.then(self)


def as_failure(error: BaseException) -> Exception:
    """Return an error as it can be given to whoever waits.

    What a project has written may raise what would end a task or a thread, or what no future takes.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    failure = RuntimeError(f"{type(error).__name__} was raised: {error}")
    failure.__cause__ = error
    return failure


IDLE_SECONDS = 60.0
"""A lane without work gives its database connection back after this time."""


SEVERAL = 4
"""A turn of an event loop that brings so many tasks lets those wait for the next turn's."""

MORE_TURNS = 2
"""How often that is done, at the most."""

WORTH_PREPARING = 8
"""Tasks in a batch from which to call into an event loop once more takes less than the loop saves by it."""


class _NoLoop:
    """Stands for the event loop of a parcel that came from none: it is answered where its answers are made."""

    @staticmethod
    def call_soon_threadsafe(function: Callable[..., object], *args: object) -> None:
        """Call a function now."""
        function(*args)


_NO_LOOP = cast("asyncio.AbstractEventLoop", _NoLoop)


class PendingBatch(Generic[T]):
    """What one event loop asks of a lane together, and who is given what becomes of it."""

    __slots__ = ("callbacks", "loop", "size", "tasks", "thread")

    def __init__(self, loop: asyncio.AbstractEventLoop, thread: int) -> None:
        self.loop = loop
        self.thread = thread
        self.tasks: list[T] = []
        self.callbacks: list[ResultCallback] = []
        self.size = 0
        """Bytes of data that the tasks carry."""


class ExclusiveJob:
    """Work of another kind that a lane's thread does between two batches, for a thread that waits for it."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._outcome: ThreadFuture[Any] = ThreadFuture()

    def run(self) -> None:
        """Do it."""
        try:
            self._outcome.set_result(self._work())
        except BaseException as error:
            self._outcome.set_exception(error)

    def refuse(self, error: Exception) -> None:
        """Leave it undone."""
        self._outcome.set_exception(error)

    def result(self) -> Any:
        """Wait for what it returns, or raises."""
        return self._outcome.result()


class BatchWorker(Generic[T]):
    """A thread with one database connection and a queue.

    An event loop hands over what its requests want in parcels: the thread is woken once for all of them, and answers
    them with one call into the loop. A parcel has what one turn of the loop has brought or, where that is several
    tasks, what the next two bring as well. Clients that were answered together come back one after the other, and a
    batch for the first few of them would have all the others wait for it.

    Args:
        name: of the thread.
        line: the connection that its thread works with.
        work: is given the tasks that wait, and returns what became of each: a value, or an exception to raise.
        backlog: bounds what waits.
        batch_size: about how many tasks to do in one go.
    """

    delays_results = False
    """Whether the answers to a batch are held back while more waits, until the work on that calls `tell`: once it is
    about to wait. An event loop that is woken sooner only takes the interpreter from the thread, and has nothing to do
    when that could be shared."""

    def __init__(
        self,
        name: str,
        connection: DedicatedConnection,
        work: Callable[[Sequence[T]], Sequence[object]],
        backlog: Backlog,
        batch_size: int,
    ) -> None:
        self._connection = connection
        self._work = work
        self._backlog = backlog
        self._batch_size = batch_size
        # By thread, which is quicker to tell than its event loop.
        self._open: dict[int, PendingBatch[T]] = {}
        self._queue: SimpleQueue[PendingBatch[T] | ExclusiveJob | None] = SimpleQueue()
        self._job: ExclusiveJob | None = None
        self._at_work: list[PendingBatch[T]] = []
        self._held: tuple[list[PendingBatch[T]], Sequence[object]] | None = None
        self._has_ended = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: T) -> Reply:
        """Queue a task and return the future of its value. To be called where an event loop runs.

        Raises:
            ServiceUnavailable: too much is waiting already.
        """
        reply = Reply(loop=asyncio.get_running_loop())
        self.post(task, reply)
        return reply

    def post(self, task: T, callback: ResultCallback) -> None:
        """Queue a task for somebody who is given its value in the event loop that runs here.

        Raises:
            ServiceUnavailable: too much is waiting already.
        """
        size = self._size_of(task)
        thread = get_ident()
        batch = self._open.get(thread)
        if batch is None or not batch.loop.is_running():
            self._backlog.check(0, 0, size)
            batch = self._open[thread] = PendingBatch(asyncio.get_running_loop(), thread)
            batch.loop.call_soon(self._hand_over, batch)
        else:
            self._backlog.check(len(batch.tasks), batch.size, size)
        batch.tasks.append(task)
        batch.callbacks.append(callback)
        batch.size += size

    def put(self, task: T, callback: ResultCallback) -> None:
        """Queue a task for somebody who is given its value in the lane's thread. Safe to call from any thread.

        Raises:
            ServiceUnavailable: too much is waiting already.
        """
        size = self._size_of(task)
        self._backlog.check(0, 0, size)
        batch: PendingBatch[T] = PendingBatch(_NO_LOOP, 0)
        batch.tasks.append(task)
        batch.callbacks.append(callback)
        batch.size = size
        self._backlog.add(1, size)
        self._queue.put(batch)

    def _size_of(self, task: T) -> int:
        """Return how many bytes of data a task carries."""
        return 0

    def between(self, work: Callable[[], U]) -> U:
        """Have the thread do something else between two batches, and wait for it. Not for an event loop's thread."""
        job = ExclusiveJob(work)
        self._queue.put(job)
        if self._has_ended:
            self._refuse_rest()
        return cast("U", job.result())

    def stop(self) -> None:
        """Let the thread end after what is queued, and wait for it."""
        self._queue.put(None)
        self._thread.join()

    def _hand_over(self, batch: PendingBatch[T], before: int = 0, turns: int = 0) -> None:
        count = len(batch.tasks)
        if count - before >= SEVERAL and turns < MORE_TURNS:
            batch.loop.call_soon(self._hand_over, batch, count, turns + 1)
            return
        if self._open.get(batch.thread) is batch:
            del self._open[batch.thread]
        self._backlog.add(count, batch.size)
        self._queue.put(batch)
        if self._has_ended:
            self._refuse_rest()

    def _run(self) -> None:
        try:
            while (found := self._take()) is not None:
                if isinstance(found, ExclusiveJob):
                    self.tell()
                    found.run()
                elif found:
                    self._do(found)
                else:
                    self._connection.close()
                # What was done need not be there until something comes: it may be large, and takes time to get rid of.
                found = None
        finally:
            self.tell()
            self._connection.close()
            self._has_ended = True
            self._refuse_rest()

    def _refuse_rest(self) -> None:
        """Answer what has come too late. Whoever puts something into the queue after the end calls this, too."""
        error = ServiceUnavailable("The server is about to end. Try again.")
        while True:
            try:
                found = self._queue.get_nowait()
            except Empty:
                return
            if isinstance(found, ExclusiveJob):
                found.refuse(error)
            elif found is not None:
                settle(found.loop, found.callbacks, [error] * len(found.callbacks))

    def _take(self) -> list[PendingBatch[T]] | ExclusiveJob | None:
        """Return all parcels that wait, up to a batch, waiting for the first; or an errand.

        Empty: nothing came. None: stop.
        """
        if self._job is not None:
            job, self._job = self._job, None
            return job
        try:
            first = self._queue.get(timeout=IDLE_SECONDS)
        except Empty:
            return []
        if first is None or isinstance(first, ExclusiveJob):
            return first
        batches = [first]
        count = len(first.tasks)
        while count < self._batch_size and not self._queue.empty():
            batch = self._queue.get()
            if batch is None:
                self._queue.put(None)
                break
            if isinstance(batch, ExclusiveJob):
                self._job = batch
                break
            batches.append(batch)
            count += len(batch.tasks)
        return batches

    def _do(self, batches: list[PendingBatch[T]]) -> None:
        # What was queued is done, also for a request that was given up meanwhile: its client may have sent it and gone.
        tasks = batches[0].tasks if len(batches) == 1 else [task for batch in batches for task in batch.tasks]
        self._at_work = batches
        try:
            values = self._work(tasks)
        except BaseException:  # the lane must outlive every bug
            logger.exception("A batch of %d failed.", len(tasks))
            values = [ServiceUnavailable("The server could not do this. Try again.")] * len(tasks)
        self._at_work = []
        self.tell()
        self._held = self._to_answer(batches, values)
        if not self.delays_results or self._queue.empty():
            self.tell()

    def _to_answer(
        self, batches: list[PendingBatch[T]], values: Sequence[object]
    ) -> tuple[list[PendingBatch[T]], Sequence[object]]:
        """Return the tasks of a batch that are done, and their values."""
        self._backlog.remove(len(values), sum([batch.size for batch in batches]))
        return batches, values

    def tell(self) -> None:
        """Hand over the answers that are held back."""
        if self._held is None:
            return
        (batches, values), self._held = self._held, None
        for batch, some in split_by_batch(batches, values):
            settle(batch.loop, batch.callbacks, some)

    def announce(self, values: Sequence[object]) -> None:
        """Have it prepared what will become of the tasks at work if nothing fails, while this thread waits for that.

        The values that follow are these themselves, or others. Where they are not of all those tasks, nothing is done.
        """
        count = sum(len(batch.tasks) for batch in self._at_work)
        if len(values) == count >= WORTH_PREPARING:
            for batch, some in split_by_batch(self._at_work, values):
                call_in(batch.loop, _prepare, batch.callbacks, some)


def split_by_batch(
    batches: Iterable[PendingBatch[T]], values: Sequence[object]
) -> Iterator[tuple[PendingBatch[T], Sequence[object]]]:
    """Yield each parcel with the values of its own tasks."""
    first = 0
    for batch in batches:
        last = first + len(batch.tasks)
        yield batch, values[first:last]
        first = last


def settle(loop: asyncio.AbstractEventLoop, callbacks: Sequence[ResultCallback], values: Sequence[object]) -> None:
    """Hand values to receivers in an event loop, from another thread."""
    call_in(loop, _resolve, callbacks, values)


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Call a function in an event loop of another thread, if that still runs."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop was closed: nobody is left to tell
        logger.debug("An event loop ended before its results came.")


def _prepare(callbacks: Sequence[ResultCallback], values: Sequence[object]) -> None:
    for callback, value in zip(callbacks, values, strict=True):
        callback.prepare(value)


def _resolve(callbacks: Sequence[ResultCallback], values: Sequence[object]) -> None:
    for callback, value in zip(callbacks, values, strict=True):
        try:
            callback.resolve(value)
        except Exception:  # what follows one answer must not keep up the others
            logger.exception("What an answer was to set off has failed.")
