"""Writers: append many small messages, such as the tokens of a language model, with few commits.

A writer collects messages for a moment. They share one commit with each other, and with other operations that wait for
the committer. A writer with a producer's name continues after a crash where the last process stopped, with each message
exactly once.

`stream_committer` commits the collected messages and ends the stream. It works in a thread that none of the possible
ends of a writer can end.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from asyncio import run_coroutine_threadsafe
from collections.abc import AsyncIterable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from asgiref.sync import sync_to_async
from django.db import connections

from ..protocol.values import Data
from ..runtime import background, caller_transaction, execution, test_transactions
from ..store.encoding import check_size, encode
from .stream_committer import StreamCommitter
from .writer_endings import Ending
from .writer_options import WriterOptions, WriterSettings

if TYPE_CHECKING:
    from ..models.methods import StreamMethods

logger = logging.getLogger(__name__)

_COMMITS_BY_ITSELF = (
    "A writer commits by itself, so it cannot be used inside transaction.atomic() or with autocommit off. End the "
    "transaction first. With autocommit off, then call set_autocommit(True)."
)


class Writer:
    """Writes to a stream from asynchronous code. `Stream.awriter` returns one. Use it as a context manager.

    Attributes:
        written: number of messages of this writer in the stream. With a producer's name, messages of all earlier
            writers of the name count, too. A job that produces the same messages again skips that many. (On a stream
            that such a writer has closed, the close may count as one more. Then no message is left to write.)
        resumed: whether an earlier writer of the name has written messages.
        closed: whether the stream is closed, perhaps by an earlier run that completed. Then no message is left to
            write.
    """

    def __init__(
        self,
        stream: StreamMethods,
        using: str,
        **options: Unpack[WriterOptions],
    ) -> None:
        self._using = using
        self.core = StreamCommitter(stream, using, WriterSettings(**options))
        self.is_open = False
        # A writer that is garbage-collected inside its block has failed. `abandon` waits for nothing.
        self._finalizer = weakref.finalize(self, self.core.abandon)
        self._finalizer.atexit = False

    @property
    def written(self) -> int:
        """Number of messages in the stream from this writer, and from earlier writers of its name."""
        return self.core.appender.written

    @property
    def resumed(self) -> bool:
        """Whether an earlier writer of the name has written messages."""
        return self.core.appender.resumed

    @property
    def closed(self) -> bool:
        """Whether the stream is closed."""
        return self.core.appender.closed

    @property
    def next_offset(self) -> str:
        """The offset after the last message that the writer has committed."""
        return self.core.appender.stream.next_offset

    async def __aenter__(self) -> Self:
        # Synchronous code in a transaction may have called this by `async_to_sync`: only that code's thread knows.
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
        # A closed coroutine or generator may not wait: the garbage collector may have closed it.
        if not isinstance(error, GeneratorExit):
            await background.arrival(ended)

    async def write(self, value: Data) -> None:
        """Write one message. It is committed within the interval after this returns.

        If messages arrive faster than the database commits them, this waits. Empty texts and empty bytes, which
        language models send, are skipped.

        Raises:
            InvalidJSON, TypeError: a stream of this content type cannot hold the value.
            StreamClosed, StreamNotFound, ProducerFenced, ServiceUnavailable: the commit of earlier messages failed.
        """
        data = self.encode(value)
        if data:
            await self._put(data)

    async def write_line(self, line: bytes) -> None:
        """Write one message as a JSON stream stores it: JSON text without line feeds inside, and one at its end.

        Raises:
            PayloadTooLarge: the message is larger than MAX_APPEND_BYTES.
            The errors of `write`.
        """
        self.check_open()
        check_size(line)
        await self._put(line)

    async def _put(self, data: bytes) -> None:
        while (room := self.core.put(data)) is not None:
            await background.arrival(room)

    async def flush(self) -> None:
        """Commit all written messages now, without waiting for the interval.

        Raises:
            The errors of `write`.
        """
        self.check_open()
        await background.arrival(self.core.flush())

    async def write_from(self, values: AsyncIterable[Data] | Iterable[Data]) -> int:
        """Write the messages of an iterator, without the messages that earlier runs of the producer have written.

        The iterator must yield the same messages again from the beginning: the first `written` of them are skipped. If
        the stream refuses a message, a generator is closed.

        Returns the number of messages that this call has written: 0 on a closed stream.

        Raises:
            The errors of `write`, and those of the iterator.
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
        except GeneratorExit:  # this coroutine may not await any more
            raise
        except BaseException:
            await _close_source(values)
            raise
        return counter.count

    def begin_end(self, error: BaseException | None) -> Any:
        """Start the end of the stream, and return its future. Waits for nothing."""
        self.is_open = False
        # It would keep the writer, which the exception keeps by its frames, for as long as the process runs.
        self._finalizer.detach()
        if error is None:
            return self.core.end(Ending(None))
        try:
            ending = self.core.error_endings.make_surely(error, passes=KeyboardInterrupt)
        except KeyboardInterrupt:  # of a signal meanwhile
            self.core.end(self.core.error_endings.make_generic(error))
            raise
        return self.core.end(ending)

    def encode(self, value: Data) -> bytes:
        """Return a message as the stream stores it.

        Raises:
            InvalidJSON, TypeError: a stream of this content type cannot hold the value.
            RuntimeError: the writer is outside its block.
        """
        data = encode(self.core.appender.content_type, value)
        if data:
            self.check_open()
        return data

    def check_open(self) -> None:
        """Check that the writer is inside its block.

        Raises:
            RuntimeError: the writer is outside its block.
        """
        if not self.is_open:
            raise RuntimeError("The writer is not open. Write inside its `with` or `async with` block.")


def _check_not_atomic(using: str) -> None:
    """Check that the caller is not in a transaction, because the writer would wait for its locks.

    Raises:
        RuntimeError: the caller is in a transaction.
        InvisibleTransaction: the transaction is that of a TestCase.
    """
    test_transactions.check_engine(using)
    if connections[using].in_atomic_block and not execution.is_inline():
        raise RuntimeError(_COMMITS_BY_ITSELF)


class _Counter:
    """Writes the messages that earlier runs have not written, and counts them."""

    def __init__(self, writer: Writer) -> None:
        self.count = 0
        self._writer = writer
        self._skip = writer.written

    async def write(self, value: Data) -> None:
        """Write one message, unless an earlier run has written it or it is empty."""
        if not self._writer.encode(value):
            return
        if self._skip:
            self._skip -= 1
            return
        await self._writer.write(value)
        self.count += 1


async def _close_source(values: object) -> None:
    """Close a generator whose messages are not needed any more. Its own errors are logged only."""
    try:
        if inspect.isasyncgen(values):
            await values.aclose()
        elif inspect.isgenerator(values):
            values.close()
    except Exception:
        logger.exception("The generator of a writer's messages could not be closed.")


class SyncWriter:
    """Writes to a stream from synchronous code. `Stream.writer` returns one. Use it as a context manager."""

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
        # A closed generator may not wait: the garbage collector may have closed it, in any thread.
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
