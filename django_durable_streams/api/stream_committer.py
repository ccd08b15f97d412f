"""Commits the messages of a writer and ends its stream, in whatever way the writer ends.

A writer may end with its block, with its event loop, with its process, or by garbage collection. So its messages are
kept in the background loop, which none of these ends. They are committed within the interval. Each end arrives as one
call that waits for nothing and takes no lock, because a finaliser may make it.
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
from typing import TYPE_CHECKING

from ..protocol.errors import ProducerFenced, StreamClosed, StreamNotFound
from ..runtime import background
from ..runtime.lasting_futures import lasting_future, resolve
from ..runtime.results import copy_of
from .stream_appender import StreamAppender
from .writer_endings import Ending, ErrorEndings
from .writer_options import WriterSettings

if TYPE_CHECKING:
    from ..models.methods import StreamMethods

logger = logging.getLogger(__name__)

MAX_MESSAGES = 500
"""Collected messages from which a commit begins at once. `put` then returns a future until it has begun."""

EXIT_SECONDS = 5.0
"""Time that the end of the process waits for writers that have not ended."""


class StreamCommitter:
    """Takes a writer's messages in any thread, and commits them in the background loop.

    Attributes:
        is_entered: whether the writer's block has begun.
        pace: returns the seconds between two commits, where they depend on other writers. None: as the settings say.
        phase: the part of the interval, from 0 to 1, by which the commits are later than those of other writers.
        appender: the state of the stream, and the operations on it.
        error_endings: the ways to end the stream after exceptions.
    """

    def __init__(
        self,
        stream: StreamMethods,
        using: str,
        settings: WriterSettings,
    ) -> None:
        self.is_entered = False
        self.pace: Callable[[], float] | None = None
        self.phase = 0.0
        self.appender = StreamAppender(stream, using, settings.stored_producer())
        self.error_endings = ErrorEndings(settings.error_message, self.appender.content_type, self.appender.path)
        self._settings = settings
        self._process = _process
        self._lock = Lock()
        self._buffer: list[bytes] = []
        self._size = 0
        self._taken_count = 0
        self._committed_count = 0
        self._must_flush = False
        self._is_idle = False
        """Whether the loop waits for the first message, and not for the time of the next commit."""
        self._waiting_for_room: list[Future[None]] = []
        self._waiting_for_commit: list[tuple[int, Future[None]]] = []
        self._failure: BaseException | None = None
        self._ending: Ending | None = None
        self._ended: Future[None] = lasting_future()
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    # Methods for any thread.

    @property
    def is_ours(self) -> bool:
        """Whether this process made the object, and is not a fork of that process."""
        return self._process == _process

    async def open(self) -> None:
        """Read the tail of the stream, fence earlier writers of the name, and begin. Runs in the background loop.

        Raises:
            DurableStreamsError: the stream does not exist, or the database does not answer.
        """
        await self.appender.begin()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._run())
        _open.add(self)

    def put(self, data: bytes) -> Future[None] | None:
        """Take a message and return None. Without room, return a future to wait for before the next attempt.

        Raises:
            StreamClosed: the stream is closed.
            RuntimeError: the writer belongs to the parent process.
            The error of an earlier commit that failed.
        """
        self._check_process()
        with self._lock:
            self._check()
            if self._is_full():
                self._waiting_for_room.append(room := lasting_future())
                return room
            self._buffer.append(data)
            self._size += len(data)
            self._taken_count += 1
            # Until the commit is due, a timer wakes the loop. To wake it for each first message takes far longer.
            must_wake = (self._is_idle and len(self._buffer) == 1) or self._is_full()
        if must_wake:
            if asyncio._get_running_loop() is self._loop:  # as for AI answers, which need no other thread woken
                self._changed.set()
            else:
                self._call_in_loop(self._changed.set)
        return None

    def flush(self) -> Future[None]:
        """Commit the taken messages now. The returned future is done when they are committed."""
        self._check_process()
        committed = lasting_future()
        with self._lock:
            self._check()
            if self._committed_count >= self._taken_count:
                committed.set_result(None)
                return committed
            self._waiting_for_commit.append((self._taken_count, committed))
        self._call_in_loop(self._request_flush)
        return committed

    def end(self, ending: Ending) -> Future[None]:
        """Commit the taken messages and end the stream. The returned future is done then, or has the error."""
        if not self.is_ours:
            nothing = lasting_future()
            nothing.set_result(None)
            return nothing
        self._call_in_loop(lambda: self._begin_end(ending))
        return self._ended

    def abandon(self) -> None:
        """End the stream of a writer that is gone without an end."""
        if self.is_ours and self._task is not None and self._ending is None:
            self._call_in_loop(lambda: background.run_to_end(self._end_abandoned()))

    def _call_in_loop(self, function: Callable[[], object]) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop was closed, which happens in tests only
            logger.error(
                "A writer of %s lost its event loop. Its last messages may be lost.",
                self.appender.path,
            )
            resolve(self._ended, RuntimeError("The event loop has ended."))

    def _check_process(self) -> None:
        if not self.is_ours:
            raise RuntimeError("This writer belongs to the parent process. Create a writer in this process.")

    def _check(self) -> None:
        if self._failure is not None:
            raise copy_of(self._failure)
        if self.appender.closed:
            raise StreamClosed("The stream has ended; nothing can be appended to it.")

    def _is_full(self) -> bool:
        return self._size >= self._settings.max_bytes or len(self._buffer) >= MAX_MESSAGES

    # Methods for the background loop.

    def _request_flush(self) -> None:
        self._must_flush = True
        self._changed.set()

    def _begin_end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._changed.set()

    async def _end_abandoned(self) -> None:
        if self._ending is not None:
            return
        if not self.is_entered:  # the block never began
            self._begin_end(Ending(None))
            return
        error = RuntimeError("The writer was not ended.")
        # The project's error_message may block: neither this loop nor the garbage collector may wait for it.
        self._begin_end(await self.error_endings.make_in_thread(error))

    async def _run(self) -> None:
        """Commit the collected messages until the end, then end the stream."""
        clock = asyncio.get_running_loop().time
        due = clock()
        try:
            while await self._collect(due):
                due = self._next_tick(clock())
                batch = self._take_batch()
                await self.appender.append(batch)
                self._mark_committed(len(batch))
        except GeneratorExit:
            raise  # the event loop is gone, as at the end of a process that was forked
        except BaseException as error:
            self._fail(error)
            _writing.discard(self)
            while self._ending is None:
                self._changed.clear()
                await self._changed.wait()
        try:
            outcome = await self._finish()
        except BaseException as error:  # whoever waits for the end gets it
            outcome = error
        _open.discard(self)
        _writing.discard(self)
        resolve(self._ended, outcome)

    def _next_tick(self, now: float) -> float:
        """Return the next multiple of the interval. So writers of the same interval and phase share their commits."""
        interval = self._settings.interval_among(len(_writing)) if self.pace is None else self.pace()
        if not interval:
            return now
        tick = ((now / interval - self.phase) // 1 + 1 + self.phase) * interval
        return tick if tick > now else tick + interval  # fractions are not exact

    async def _collect(self, due: float) -> bool:
        """Wait until there are messages and their commit is due. Return False at the end."""
        timer = asyncio.get_running_loop().call_at(due, self._request_flush)  # an asyncio.timeout takes far longer
        try:
            while not (self._ending is not None or self._must_flush or self._is_full()):
                self._changed.clear()
                await self._changed.wait()
        finally:
            timer.cancel()
        while True:
            self._changed.clear()
            with self._lock:
                self._is_idle = not self._buffer and self._ending is None
            if not self._is_idle:
                break
            _writing.discard(self)
            await self._changed.wait()
        _writing.add(self)
        self._must_flush = False
        return bool(self._buffer)

    def _take_batch(self) -> list[bytes]:
        with self._lock:
            batch, self._buffer, self._size = self._buffer, [], 0
            waiting, self._waiting_for_room = self._waiting_for_room, []
        for room in waiting:
            room.set_result(None)
        return batch

    def _mark_committed(self, count: int) -> None:
        with self._lock:
            self._committed_count += count
            done = [future for number, future in self._waiting_for_commit if number <= self._committed_count]
            self._waiting_for_commit = [entry for entry in self._waiting_for_commit if entry[0] > self._committed_count]
        for future in done:
            future.set_result(None)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = error
            waiting = [*self._waiting_for_room, *(future for _, future in self._waiting_for_commit)]
            self._waiting_for_room, self._waiting_for_commit = [], []
        for future in waiting:
            future.set_exception(copy_of(error))

    async def _finish(self) -> BaseException | None:
        """End the stream, and return the error that the end of the block raises, or None."""
        ending = self._ending
        assert ending is not None
        failure = self._failure
        if ending.error is None and failure is None:
            if not self._settings.close or self.appender.closed or not self.is_entered:
                return None
            try:
                await self.appender.close()
            except Exception as error:
                failure = error
            else:
                return None
        if ending.error is None and failure is not None:  # the writer failed, but not its block
            ending = await self.error_endings.make_in_thread(failure)
        else:
            failure = None
        close = self._settings.on_error == "close"
        if (ending.message or close) and not self.appender.closed:
            await self._mark_failure(ending.message, close=close)
        return failure

    async def _mark_failure(self, message: bytes, *, close: bool) -> None:
        try:
            await self.appender.mark_failure(message, close=close)
        except (StreamClosed, StreamNotFound, ProducerFenced) as error:
            logger.info(
                "A writer of %s failed. Its stream is not marked, as it has ended or changed hands: %s",
                self.appender.path,
                error,
            )
        except Exception as error:
            logger.warning("A writer of %s failed, and the stream could not be marked: %s", self.appender.path, error)


_open: set[StreamCommitter] = set()
"""Committers that have begun and not ended."""

_writing: set[StreamCommitter] = set()
"""Open committers with messages. The others wait for their next message, and take no processor time."""

_process = os.getpid()
"""The id of this process. A system call for each message takes far longer than a comparison."""


def _begin_child() -> None:
    """Begin anew in a fork. The parent continues with its writers, and a child process has none of its threads."""
    global _process
    _process = os.getpid()
    _open.clear()
    _writing.clear()


@atexit.register
def _end_all() -> None:
    """End the writers that still run when the process ends: in daemon threads, or in abandoned event loops."""
    error = RuntimeError("The process ended before the writer.")
    endings = [committer.end(committer.error_endings.make_surely(error)) for committer in list(_open)]
    deadline = time.monotonic() + EXIT_SECONDS
    for future in endings:
        try:
            future.exception(max(deadline - time.monotonic(), 0))
        except TimeoutError:
            logger.error("A writer did not end before the process, because the database did not answer in time.")


os.register_at_fork(after_in_child=_begin_child)
