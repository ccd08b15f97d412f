"""How the result of a task gets back to the event loop that waits for it.

A worker's thread makes one call into the event loop for all results of a pending batch. Knows no worker and no queue.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable, Sequence
from contextlib import ContextDecorator
from threading import Lock, current_thread, main_thread
from types import TracebackType
from typing import Any, Protocol, cast

logger = logging.getLogger(__name__)

Future = asyncio.Future[object]


class ResultCallback(Protocol):
    """Receives the result of a task, in the event loop in which the task was submitted."""

    def prepare(self, value: object) -> object:
        """Get ready for a value that follows unless the commit fails. The caller must not learn of it yet."""

    def resolve(self, value: object) -> object:
        """Receive the value. An exception is the failure of the task."""


class Reply(Future):
    """The future of a task's value. `then`, if it is set, is called as soon as the value arrives.

    A future's own callbacks are called one turn of the event loop later, each by an object of its own.

    Attributes:
        make_early: makes something of a value that is about to be committed, or returns None.
        early: that value, and what `make_early` has made of it. It counts only if the value itself arrives.
    """

    then: Callable[[Reply], object] | None = None
    make_early: Callable[[object], Any] | None = None
    early: tuple[object, Any] | None = None

    def prepare(self, value: object) -> None:
        """Use the time in which the thread waits for the commit. What cannot be made now is made later."""
        if self.make_early is None or self.done():
            return
        made = self.make_early(value)
        if made is not None:
            self.early = value, made

    def resolve(self, value: object) -> None:
        """Set the value or the exception, unless the future was cancelled."""
        if self.done():
            return
        if isinstance(value, BaseException):
            self.set_exception(as_failure(value))
        else:
            self.set_result(value)
        if self.then is not None:
            self.then(self)


def as_failure(error: BaseException) -> Exception:
    """Return an error in a form that a future accepts, and that ends neither a task nor a thread nor an event loop.

    Code of the project may raise anything, `SystemExit` and `CancelledError` included.

    Raises:
        KeyboardInterrupt, SystemExit: a signal handler may have raised it, to end the process.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    if _may_end_process(error):
        raise error
    failure = RuntimeError(f"{type(error).__name__} was raised: {error}")
    failure.__cause__ = error
    return failure


def _may_end_process(error: BaseException) -> bool:
    """Return whether a signal handler may have raised an error: it runs in the main thread.

    The handlers of servers with an event loop raise no SystemExit, so there it comes from the project's code.
    """
    if current_thread() is not main_thread():
        return False
    if isinstance(error, SystemExit):
        return asyncio._get_running_loop() is None
    return isinstance(error, KeyboardInterrupt)


class _Contained(ContextDecorator):
    """Raises `as_failure` of whatever the code inside raises. For code of the project, without an `await`."""

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and (not isinstance(error, Exception) or isinstance(error, StopIteration)):
            raise as_failure(error) from error


contained = _Contained()


def copy_of(error: BaseException) -> BaseException:
    """Return an error for one more caller to raise.

    An error keeps the frames through which it was raised, and all that is in them. The original, which lasts, must not
    keep the callers.
    """
    kind = type(error)
    try:
        result = copy.copy(error)
    except Exception:  # its class has other parameters than its arguments
        result = kind.__new__(kind, *error.args)
        result.__dict__.update(error.__dict__)
    result.__cause__ = error.__cause__
    return result.with_traceback(error.__traceback__)


class _NoLoop:
    """Stands for the event loop where no event loop has submitted a task: callbacks run in the worker's thread."""

    @staticmethod
    def call_soon_threadsafe(function: Callable[..., object], *args: object) -> None:
        """Call a function now."""
        function(*args)


NO_LOOP = cast("asyncio.AbstractEventLoop", _NoLoop)
"""The loop of tasks whose callbacks run in the worker's thread."""


def settle(loop: asyncio.AbstractEventLoop, callbacks: Sequence[ResultCallback], values: Sequence[object]) -> None:
    """Give values to their callbacks in an event loop of another thread."""
    call_in(loop, _resolve, callbacks, values)


def call_in(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    """Call a function in an event loop of another thread, if the loop still runs."""
    try:
        loop.call_soon_threadsafe(function, *args)
    except RuntimeError:  # the loop was closed, so nothing waits for the results
        logger.debug("An event loop ended before its results came.")


def wait_for_turn(loop: asyncio.AbstractEventLoop, seconds: float) -> bool:
    """Wait until an event loop of another thread has made all calls that it was given before.

    Returns:
        Whether it has, within some seconds.
    """
    turn = Lock()
    turn.acquire()
    call_in(loop, turn.release)
    return turn.acquire(timeout=seconds)


def prepare_all(callbacks: Sequence[ResultCallback], values: Sequence[object]) -> None:
    """Let each callback get ready for its value. To be called in the callbacks' event loop."""
    for callback, value in zip(callbacks, values, strict=True):
        callback.prepare(value)


def _resolve(callbacks: Sequence[ResultCallback], values: Sequence[object]) -> None:
    for callback, value in zip(callbacks, values, strict=True):
        try:
            callback.resolve(value)
        except Exception:  # one failing callback must not delay the others
            logger.exception("The step that follows a result failed. The other results are delivered.")
