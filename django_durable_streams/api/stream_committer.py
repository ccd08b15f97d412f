"""Committing what a writer has taken, and ending its stream as it was told, whatever becomes of the writer.

A writer may end in many ways: with its block, with its event loop, with its process, or by being forgotten. So what it
has taken is not kept where any of these end, but here, in the background loop. What arrives here is committed within
the interval. Each end arrives as one call that waits for nothing and takes no lock, as finalisers may make it.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..protocol.errors import ProducerFenced, StreamClosed, StreamNotFound
from ..protocol.values import Data
from ..runtime import background
from ..store.encoding import encode
from .stream_appender import StreamAppender

if TYPE_CHECKING:
    from ..models.methods import StreamMethods

logger = logging.getLogger(__name__)

MAX_MESSAGES = 500
"""Messages that are collected at the most. With that many it commits at once, and `put` waits until it has begun."""

EXIT_SECONDS = 5.0
"""How long the end of the process waits for writers that have not ended."""

GENERIC_MESSAGE = "The writer failed."
"""What a stream is told of a failure where its own message cannot be made or encoded."""


class Ending(NamedTuple):
    """How a stream is to be ended.

    error: what the writer's block has ended with; None: it is done.
    message: a last message for the stream in that case, encoded; empty: none.
    """

    error: BaseException | None
    message: bytes = b""


class StreamCommitter:
    """Takes a writer's messages from any thread, and commits them in the background loop.

    Attributes:
        is_entered: the writer's block has begun.
        appender: what the writer knows of its stream.
    """

    def __init__(
        self,
        stream: StreamMethods,
        using: str,
        *,
        producer: str | None,
        close: bool,
        on_error: Literal["leave", "close"],
        error_message: Data | Callable[[BaseException], Data],
        interval: float,
        max_bytes: int,
    ) -> None:
        self.is_entered = False
        self.appender = StreamAppender(stream, using, producer)
        self._close_at_end = close
        self._on_error = on_error
        self._error_message = error_message
        self._interval = interval
        self._max_bytes = max_bytes
        self._process = os.getpid()
        self._lock = Lock()
        self._buffer: list[bytes] = []
        self._size = 0
        self._taken = 0
        self._settled = 0
        self._hurried = False
        self._waiting_for_room: list[Future[None]] = []
        self._waiting_for_commit: list[tuple[int, Future[None]]] = []
        self._failure: BaseException | None = None
        self._ending: Ending | None = None
        self._ended: Future[None] = _future()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    # From any thread.

    @property
    def is_ours(self) -> bool:
        """Whether this is the process that has made it, and not a fork of that."""
        return self._process == os.getpid()

    async def open(self) -> None:
        """Find out how far the stream is, fence earlier writers of the name, and begin. Runs in the background loop.

        Raises:
            DurableStreamsError: the stream is not there, or the database is not.
        """
        await self.appender.begin()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        _open.add(self)

    def put(self, data: bytes) -> Future[None] | None:
        """Take a message, or return what to wait for before it is offered again.

        Raises:
            The error with which an earlier commit failed, StreamClosed, RuntimeError: it cannot be taken.
        """
        self._check_process()
        with self._lock:
            self._check()
            if self._is_full():
                self._waiting_for_room.append(room := _future())
                return room
            self._buffer.append(data)
            self._size += len(data)
            self._taken += 1
            is_news = len(self._buffer) == 1 or self._is_full()
        if is_news:
            self._tell(self._changed.set)
        return None

    def flush(self) -> Future[None]:
        """Commit what was taken without waiting for the interval. The future is done when that is committed."""
        self._check_process()
        committed = _future()
        with self._lock:
            self._check()
            if self._settled >= self._taken:
                committed.set_result(None)
                return committed
            self._waiting_for_commit.append((self._taken, committed))
        self._tell(self._hurry)
        return committed

    def end(self, ending: Ending) -> Future[None]:
        """Commit what was taken and end the stream as told. The future is done then, with the error if that failed."""
        if not self.is_ours:
            nothing = _future()
            nothing.set_result(None)
            return nothing
        self._tell(lambda: self._begin_end(ending))
        return self._ended

    def abandon(self) -> None:
        """The writer is gone without an end."""
        if self.is_ours and self._task is not None and self._ending is None:
            self._tell(lambda: background.run_to_end(self._end_abandoned()))

    def ending_for(self, error: BaseException) -> Ending:
        """Return how to end where the writer's block has ended with an exception."""
        if self._error_message is None:
            return Ending(error)
        try:
            made = self._error_message(error) if callable(self._error_message) else self._error_message
            return Ending(error, b"" if made is None else encode(self.appender.kind, made))
        except Exception:
            logger.exception(
                "The error_message of a writer of %s cannot be used. Another one is written.", self.appender.path
            )
        try:
            return Ending(error, encode(self.appender.kind, GENERIC_MESSAGE))
        except Exception:  # the stream takes no text
            return Ending(error)

    def _tell(self, what: Callable[[], object]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what)
        except RuntimeError:  # the loop has ended: in tests only, as the background loop never does
            logger.error("A writer of %s has outlived its event loop.", self.appender.path)
            _resolve(self._ended, RuntimeError("The event loop has ended."))

    def _check_process(self) -> None:
        if not self.is_ours:
            raise RuntimeError("This writer belongs to the process that was forked. Make one in this process.")

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.appender.closed:
            raise StreamClosed("The stream has ended; nothing can be appended to it.")

    def _is_full(self) -> bool:
        return self._size >= self._max_bytes or len(self._buffer) >= MAX_MESSAGES

    # In the background loop.

    def _hurry(self) -> None:
        self._hurried = True
        self._changed.set()

    def _begin_end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._changed.set()

    async def _end_abandoned(self) -> None:
        if self._ending is not None:
            return
        if not self.is_entered:  # its block has never begun
            self._begin_end(Ending(None))
            return
        error = RuntimeError("The writer was not ended.")
        # Not here, as it is the project's code; nor by the one who has found that it is gone, who must not wait.
        self._begin_end(await asyncio.to_thread(self.ending_for, error))

    async def _run(self) -> None:
        """Commit what is collected, until the end."""
        clock = asyncio.get_running_loop().time
        due = clock()
        try:
            while await self._collect(due):
                due = clock() + self._interval
                batch = self._take()
                await self.appender.append(batch)
                self._settle(len(batch))
        except BaseException as error:
            self._fail(error)
            while self._ending is None:
                self._changed.clear()
                await self._changed.wait()
        outcome = await self._finish()
        _open.discard(self)
        _resolve(self._ended, outcome)

    async def _collect(self, due: float) -> bool:
        """Wait until there is something to commit and it is time for it. False: that was all."""
        while not self._buffer and self._ending is None:
            self._changed.clear()
            await self._changed.wait()
        try:
            async with asyncio.timeout_at(due):
                while not (self._ending is not None or self._hurried or self._is_full()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        self._hurried = False
        return bool(self._buffer)

    def _take(self) -> list[bytes]:
        with self._lock:
            batch, self._buffer, self._size = self._buffer, [], 0
            waiting, self._waiting_for_room = self._waiting_for_room, []
        for room in waiting:
            room.set_result(None)
        return batch

    def _settle(self, count: int) -> None:
        with self._lock:
            self._settled += count
            done = [future for number, future in self._waiting_for_commit if number <= self._settled]
            self._waiting_for_commit = [one for one in self._waiting_for_commit if one[0] > self._settled]
        for future in done:
            future.set_result(None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = error
            waiting = [*self._waiting_for_room, *(future for _, future in self._waiting_for_commit)]
            self._waiting_for_room, self._waiting_for_commit = [], []
        for future in waiting:
            future.set_exception(error)

    async def _finish(self) -> BaseException | None:
        """End the stream as told, and return the error to raise."""
        ending = self._ending
        assert ending is not None
        failure = self._failure
        if ending.error is None and failure is None:
            if not self._close_at_end or self.appender.closed or not self.is_entered:
                return None
            try:
                await self.appender.close()
            except Exception as error:
                failure = error
            else:
                return None
        if ending.error is None and failure is not None:  # the writer has failed where its block has not
            ending = await asyncio.to_thread(self.ending_for, failure)
        else:
            failure = None
        close = self._on_error == "close"
        if (ending.message or close) and not self.appender.closed:
            await self._mark_failure(ending.message, close=close)
        return failure

    async def _mark_failure(self, message: bytes, *, close: bool) -> None:
        try:
            await self.appender.mark_failure(message, close=close)
        except (StreamClosed, StreamNotFound, ProducerFenced) as error:
            logger.info(
                "A writer of %s has failed, and its stream is not its own any more: %s", self.appender.path, error
            )
        except Exception as error:
            logger.warning("A writer of %s has failed, which could not be marked there: %s", self.appender.path, error)


def _future() -> Future[None]:
    """Return a future that whoever waits for it cannot cancel."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


def _resolve(future: Future[None], error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


_open: set[StreamCommitter] = set()
"""Those that have begun and not ended."""


@atexit.register
def _end_all() -> None:
    """End what the end of the process has left: writers in daemon threads, or in event loops that were given up."""
    error = RuntimeError("The process ended before the writer.")
    ended = [committer.end(committer.ending_for(error)) for committer in list(_open)]
    deadline = time.monotonic() + EXIT_SECONDS
    for future in ended:
        try:
            future.exception(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            logger.error("A writer could not be ended before the process: the database did not answer in time.")


# The parent goes on with its writers; a child has none of its threads.
os.register_at_fork(after_in_child=_open.clear)
