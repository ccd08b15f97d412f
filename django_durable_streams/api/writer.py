"""Writing what comes in small pieces, such as the tokens of a language model, into a stream.

Pieces are collected for a moment, and what was collected shares a commit: of the writer's own, and with whatever else
waits in the lane. With a producer's name it goes on after a crash where the last process was stopped, exactly once.

What a writer has taken is committed, and its stream ended, by `committing`, in a thread that none of the ways ends in
which a writer may end.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from asyncio import run_coroutine_threadsafe
from collections.abc import AsyncIterable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict

from asgiref.sync import sync_to_async
from django.db import connections

from ..protocol.producers import server_producer
from ..protocol.values import Data
from ..runtime import background, caller_transaction, execution, test_transactions
from ..store.encoding import encode
from .stream_committer import Ending, StreamCommitter

if TYPE_CHECKING:
    from ..models.methods import StreamMethods

logger = logging.getLogger(__name__)

INTERVAL = 0.05
"""Seconds between the commits of a writer: 20 in a second."""

MAX_BYTES = 64 * 1024
"""Bytes that are collected at the most. With that much it commits at once, and `write` waits until that begins."""


_COMMITS_BY_ITSELF = (
    "A writer commits by itself: it cannot be used inside transaction.atomic(), or where the transaction is the "
    "caller's, as autocommit is off. End the transaction first; with autocommit off, call set_autocommit(True) then."
)


class WriterOptions(TypedDict, total=False):
    """How a writer writes."""

    producer: str | None
    """A name under which a job that is started again goes on where it was stopped, exactly once. Whoever begins to
    write under the name fences all who did before (they get `ProducerFenced`), and `written` says how many messages
    are in the stream already: that many are to be skipped. A writer with a name also tries again for a minute while
    the database does not answer."""

    close: bool
    """Close the stream at the end: the default, but for `aappend_from`."""

    on_error: Literal["leave", "close"]
    """What becomes of the stream where the block ends with an exception: `leave` it open, the default, for a job that
    is started again, or `close` it. What was written before is committed in any case."""

    error_message: Data | Callable[[BaseException], Data]
    """A last message in that case, or a function that makes it of the exception. It is not counted in `written`. Where
    it cannot be made or encoded, that is logged, and "The writer failed." is written in its place."""

    interval: float
    """Seconds between two commits: 0.05, so 20 in a second."""

    max_bytes: int
    """Of messages that wait, 64 KiB. With more, it commits at once, and `write` waits until that has begun."""


class Writer:
    """Writes to a stream from asynchronous code. `Stream.awriter` makes one; use it as a context manager.

    Attributes:
        written: messages in the stream that come from this writer and, if it has a producer's name, from all before
            it of that name. A job that makes the same messages again skips as many. (On a stream that such a writer
            has closed, the close may count as one more; there is nothing to do then.)
        resumed: whether some of them were there already.
        closed: the stream is closed, perhaps by an earlier run that had come to its end: there is nothing to do.
    """

    def __init__(
        self,
        stream: StreamMethods,
        using: str,
        *,
        producer: str | None = None,
        close: bool = True,
        on_error: Literal["leave", "close"] = "leave",
        error_message: Data | Callable[[BaseException], Data] = None,
        interval: float = INTERVAL,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        if on_error not in ("leave", "close"):
            raise ValueError("on_error is 'leave' or 'close'.")
        if not (isinstance(interval, int | float) and interval >= 0):
            raise ValueError("interval is a number of seconds, 0 or more.")
        if not (isinstance(max_bytes, int) and max_bytes > 0):
            raise ValueError("max_bytes is a whole number, 1 or more.")
        self._using = using
        self.core = StreamCommitter(
            stream,
            using,
            producer=server_producer(producer) if producer is not None else None,
            close=close,
            on_error=on_error,
            error_message=error_message,
            interval=interval,
            max_bytes=max_bytes,
        )
        self.is_open = False
        # One that is forgotten inside its block has failed. It waits for nothing, so the collector may call it.
        weakref.finalize(self, self.core.abandon).atexit = False

    @property
    def written(self) -> int:
        """Messages in the stream that come from this writer, and from earlier ones of its name."""
        return self.core.appender.written

    @property
    def resumed(self) -> bool:
        """Whether some of them were there already."""
        return self.core.appender.resumed

    @property
    def closed(self) -> bool:
        """Whether the stream is closed."""
        return self.core.appender.closed

    @property
    def next_offset(self) -> str:
        """The offset behind what the writer has committed."""
        return self.core.appender.stream.next_offset

    async def __aenter__(self) -> Self:
        # Where synchronous code that is in a transaction has called this by `async_to_sync`, that code's thread knows.
        await sync_to_async(_check_not_atomic)(self._using)
        opening = run_coroutine_threadsafe(self.core.open(), background.loop())
        try:
            await background.arrival(opening)
        except BaseException:
            opening.cancel()
            raise
        self.is_open = self.core.is_entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = self.begin_end(error)
        # A coroutine or generator that is closed, perhaps by the garbage collector, may not wait.
        if not isinstance(error, GeneratorExit):
            await background.arrival(ended)

    async def write(self, value: Data) -> None:
        """Write one message. Returns when it is taken; it is committed within the interval.

        Where messages come faster than the database commits them, it waits. An empty text or empty bytes, as models
        send them, are passed over.

        Raises:
            InvalidJSON, TypeError: the stream cannot have it.
            StreamClosed, StreamNotFound, ProducerFenced, ServiceUnavailable: what was written before it failed.
        """
        data = self.encode(value)
        if data:
            while (room := self.core.put(data)) is not None:
                await background.arrival(room)

    async def flush(self) -> None:
        """Commit everything that was written, without waiting for the interval.

        Raises:
            The errors of `write`.
        """
        self.check_open()
        await background.arrival(self.core.flush())

    async def write_from(self, values: AsyncIterable[Data] | Iterable[Data]) -> int:
        """Write all that an iterator yields, without what earlier runs of the producer have written.

        It has to yield the same messages again from its beginning; `written` of them are skipped. A generator that is
        not taken to its end, as the stream refuses something, is closed.

        Returns how many were written now. On a closed stream that is none.
        """
        counter = _Counter(self)
        if self.closed:
            return 0
        try:
            if isinstance(values, AsyncIterable):
                async for value in values:
                    await counter.write(value)
            else:
                for value in values:
                    await counter.write(value)
        except GeneratorExit:  # nothing can be awaited any more
            raise
        except BaseException:
            await _close_source(values)
            raise
        return counter.count

    def begin_end(self, error: BaseException | None) -> Any:
        """Have the stream ended as told, and return the future of that. Waits for nothing."""
        self.is_open = False
        return self.core.end(Ending(None) if error is None else self.core.ending_for(error))

    def encode(self, value: Data) -> bytes:
        """Return a message as the stream has it.

        Raises:
            InvalidJSON, TypeError: it cannot have it.
            RuntimeError: the writer is not in use.
        """
        data = encode(self.core.appender.kind, value)
        if data:
            self.check_open()
        return data

    def check_open(self) -> None:
        """See that the writer is inside its block.

        Raises:
            RuntimeError: it is not.
        """
        if not self.is_open:
            raise RuntimeError("A writer writes inside its `with` or `async with` only.")


def _check_not_atomic(using: str) -> None:
    """See that the caller is not in a transaction, whose locks the writer would wait for.

    Raises:
        RuntimeError: it is.
        InvisibleTransaction: it is a test's.
    """
    test_transactions.check_engine(using)
    if connections[using].in_atomic_block and not execution.is_inline():
        raise RuntimeError(_COMMITS_BY_ITSELF)


class _Counter:
    """Writes what earlier runs have not written, and counts it."""

    def __init__(self, writer: Writer) -> None:
        self.count = 0
        self._writer = writer
        self._skip = writer.written

    async def write(self, value: Data) -> None:
        """Write one message, skip it, or pass over it where it is empty."""
        if not self._writer.encode(value):
            return
        if self._skip:
            self._skip -= 1
            return
        await self._writer.write(value)
        self.count += 1


async def _close_source(values: object) -> None:
    """Close a generator that nobody takes anything from any more. What it says of that is not the writer's matter."""
    try:
        if inspect.isasyncgen(values):
            await values.aclose()
        elif inspect.isgenerator(values):
            values.close()
    except Exception:
        logger.exception("The generator whose messages a writer took could not be closed.")


class SyncWriter:
    """The same for synchronous code. `Stream.writer` makes one; use it as a context manager."""

    def __init__(self, writer: Writer, using: str) -> None:
        self._writer = writer
        self._using = using

    def __enter__(self) -> Self:
        test_transactions.check_engine(self._using)
        if caller_transaction.holds_transaction(connections[self._using]):
            raise RuntimeError(_COMMITS_BY_ITSELF)
        background.run(self._writer.core.open())
        self._writer.is_open = self._writer.core.is_entered = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        ended = self._writer.begin_end(error)
        # A generator that is closed, perhaps by the garbage collector in any thread, may not wait.
        if not isinstance(error, GeneratorExit):
            background.wait(ended)

    @property
    def written(self) -> int:
        """See `Writer`."""
        return self._writer.written

    @property
    def resumed(self) -> bool:
        """See `Writer`."""
        return self._writer.resumed

    @property
    def closed(self) -> bool:
        """See `Writer`."""
        return self._writer.closed

    @property
    def next_offset(self) -> str:
        """See `Writer`."""
        return self._writer.next_offset

    def write(self, value: Data) -> None:
        """See `Writer`."""
        data = self._writer.encode(value)
        if data:
            while (room := self._writer.core.put(data)) is not None:
                background.wait(room)

    def flush(self) -> None:
        """See `Writer`."""
        self._writer.check_open()
        background.wait(self._writer.core.flush())
