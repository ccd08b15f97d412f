"""A lane: a thread that takes everything that waits for it and does it in one go."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

from django.db import connections

from ..protocol.errors import ServiceUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

IDLE_SECONDS = 60.0
"""A lane without work gives its database connection back after this time."""


Future = asyncio.Future[object]


class Lane(Generic[T]):
    """A thread with one database connection and a queue.

    Args:
        name: of the thread.
        using: alias of the database.
        work: is given the jobs that wait, and returns what became of each: a value, or an exception to raise.
        queue_size: jobs that may wait.
        batch_size: most jobs to do in one go.
    """

    def __init__(
        self,
        name: str,
        using: str,
        work: Callable[[Sequence[T]], Sequence[object]],
        queue_size: int,
        batch_size: int,
    ) -> None:
        self._using = using
        self._work = work
        self._queue_size = queue_size
        self._batch_size = batch_size
        self._queue: SimpleQueue[tuple[T, Future] | None] = SimpleQueue()
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, task: T) -> Future:
        """Queue a task and return the future of its value. To be called where an event loop runs.

        Raises:
            ServiceUnavailable: too much is waiting already.
        """
        if self._queue.qsize() >= self._queue_size:
            raise ServiceUnavailable("Too many requests are waiting. Try again.", ((b"retry-after", b"1"),))
        future = asyncio.get_running_loop().create_future()
        self._queue.put((task, future))
        return future

    def stop(self) -> None:
        """Let the thread end after what is queued, and wait for it."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while (jobs := self._take()) is not None:
                if jobs:
                    self._do(jobs)
                else:
                    connections[self._using].close()
        finally:
            connections[self._using].close()

    def _take(self) -> list[tuple[T, Future]] | None:
        """Return all jobs that wait, up to a batch, waiting for the first. Empty: nothing came. None: stop."""
        try:
            first = self._queue.get(timeout=IDLE_SECONDS)
        except Empty:
            return []
        if first is None:
            return None
        jobs = [first]
        while len(jobs) < self._batch_size and not self._queue.empty():
            job = self._queue.get()
            if job is None:
                self._queue.put(None)
                break
            jobs.append(job)
        return jobs

    def _do(self, jobs: list[tuple[T, Future]]) -> None:
        # A request that has been given up, such as by a client that left, must not cost others anything, but a write
        # that was queued is done: the client may have sent it and gone.
        try:
            values = self._work([task for task, _ in jobs])
        except Exception:  # the lane must outlive every bug
            logger.exception("A batch of %d failed.", len(jobs))
            values = [ServiceUnavailable("The server could not do this. Try again.")] * len(jobs)
        settle([future for _, future in jobs], values)


def settle(futures: Sequence[Future], values: Sequence[object]) -> None:
    """Hand values to futures, with one call into each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Future, object]]] = {}
    for pair in zip(futures, values, strict=True):
        by_loop.setdefault(pair[0].get_loop(), []).append(pair)
    for loop, pairs in by_loop.items():
        call_in(loop, _resolve, pairs)


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Call a function in an event loop of another thread, if that still runs."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop was closed: nobody is left to tell
        logger.debug("An event loop ended before its results came.")


def _resolve(pairs: list[tuple[Future, object]]) -> None:
    for future, value in pairs:
        if future.done():  # cancelled by its request
            continue
        if isinstance(value, BaseException):
            future.set_exception(value)
        else:
            future.set_result(value)
