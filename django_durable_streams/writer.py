"""Writing what comes in small pieces, such as the tokens of a language model, into a stream.

Pieces are collected for a moment, and what was collected shares a commit: of the writer's own, and with whatever else
waits in the lane. With a producer's name it goes on after a crash where the last process was stopped, exactly once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, TypedDict

from django.db import connections

from .engine import background, engine_for
from .protocol import content, headers
from .protocol.errors import DurableStreamsError, ServiceUnavailable, StreamClosed
from .protocol.producers import ProducerClaim
from .protocol.values import Data, encode
from .store.operations import Append, Appended, Operation, Result, TakenOver, TakeOver

if TYPE_CHECKING:
    from .models.methods import StreamMethods

logger = logging.getLogger(__name__)

INTERVAL = 0.05
"""Seconds between the commits of a writer: 20 in a second."""

MAX_BYTES = 64 * 1024
MAX_MESSAGES = 500
"""What is collected at the most. With that much the writer commits at once, and `write` waits until it has begun."""

PATIENCE = 60.0
"""Seconds for which a writer that can tell what has come through tries again while the database does not answer."""

PAUSE = 0.25
"""Seconds between two attempts."""


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
    """A last message in that case, or a function that makes it of the exception. It is not counted in `written`."""

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
        self.written = 0
        self.resumed = False
        self.closed = False
        self._stream = stream
        self._using = using
        self._path: str = stream.path
        self._kind: str = stream.content_type
        self._producer = headers.opaque("Producer-Id", producer) if producer is not None else None
        self._epoch = 0
        self._close_at_end = close
        self._on_error = on_error
        self._error_message = error_message
        self._interval = interval
        self._max_bytes = max_bytes
        self._buffer: list[bytes] = []
        self._size = 0
        self._in_flight = False
        self._hurried = False
        self._ending = False
        self._failure: BaseException | None = None
        self._changed = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    @property
    def next_offset(self) -> str:
        """The offset behind what the writer has committed."""
        return self._stream.next_offset

    async def __aenter__(self) -> Self:
        self._engine = engine_for(self._using)
        if self._producer is not None:
            (taken,) = await self._persist([TakeOver(self._path, self._producer)])
            assert isinstance(taken, TakenOver)
            self._epoch, self.written, self.closed = taken.epoch, taken.seq + 1, taken.closed
            self.resumed = self.written > 0
            tail = taken.tail
        else:
            view = await self._engine.look(self._path)
            self.closed, tail = view.closed, view.tail
        self._stream.tail_position, self._stream.closed = tail, self.closed
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._drain()
        if error is None:
            if self._failure is not None:
                raise self._failure
            if self._close_at_end and not self.closed:
                await self._close()
        elif self._failure is None and not self.closed:
            try:
                await self._mark(error)
            except DurableStreamsError as other:
                logger.warning("That writing to %s has failed could not be marked there: %s", self._path, other)

    async def write(self, value: Data) -> None:
        """Write one message. Returns when it is taken; it is committed within the interval.

        Where messages come faster than the database commits them, it waits. An empty text or empty bytes, as models
        send them, are passed over.

        Raises:
            InvalidJSON, TypeError: the stream cannot have it.
            StreamClosed, StreamNotFound, ProducerFenced, ServiceUnavailable: what was written before it failed.
        """
        data = encode(self._kind, value)
        if not data:
            return
        async with self._changed:
            while self._is_full() and self._failure is None:
                await self._changed.wait()
            self._check()
            self._buffer.append(data)
            self._size += len(data)
            if len(self._buffer) == 1 or self._is_full():
                self._changed.notify_all()

    async def flush(self) -> None:
        """Commit everything that was written, without waiting for the interval.

        Raises:
            The errors of `write`.
        """
        async with self._changed:
            self._hurried = True
            self._changed.notify_all()
            while (self._buffer or self._in_flight) and self._failure is None:
                await self._changed.wait()
            self._check()

    async def write_from(self, values: AsyncIterable[Data] | Iterable[Data]) -> int:
        """Write all that an iterator yields, without what earlier runs of the producer have written.

        It has to yield the same messages again from its beginning; `written` of them are skipped.

        Returns how many were written now. On a closed stream that is none.
        """
        skip, count = self.written, 0
        if self.closed:
            return 0
        async for value in _asynchronous(values):
            if not encode(self._kind, value):
                continue
            if skip:
                skip -= 1
                continue
            await self.write(value)
            count += 1
        return count

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self.closed:
            raise StreamClosed("The stream has ended; nothing can be appended to it.")
        if self._task is None or self._ending:
            raise RuntimeError("A writer writes inside its `async with` only.")

    def _is_full(self) -> bool:
        return self._size >= self._max_bytes or len(self._buffer) >= MAX_MESSAGES

    async def _run(self) -> None:
        """Commit what is collected, until the end."""
        clock = asyncio.get_running_loop().time
        due = clock()
        try:
            while await self._something(due):
                due = clock() + self._interval
                batch, self._buffer, self._size = self._buffer, [], 0
                self._in_flight = True
                async with self._changed:
                    self._changed.notify_all()
                await self._commit(batch)
                self._in_flight = False
                async with self._changed:
                    self._changed.notify_all()
        except BaseException as error:
            self._failure = error
            async with self._changed:
                self._changed.notify_all()

    async def _something(self, due: float) -> bool:
        """Wait until there is something to commit and it is time for it. False: that was all."""
        async with self._changed:
            while not self._buffer and not self._ending:
                await self._changed.wait()
        try:
            async with asyncio.timeout_at(due), self._changed:
                while not (self._ending or self._hurried or self._is_full()):
                    await self._changed.wait()
        except TimeoutError:
            pass
        self._hurried = False
        return bool(self._buffer)

    async def _drain(self) -> None:
        """Commit what is left, and end the task. Goes on by itself if the one who waits is cancelled."""
        assert self._task is not None
        async with self._changed:
            self._ending = True
            self._changed.notify_all()
        await asyncio.shield(self._task)

    async def _commit(self, batch: list[bytes]) -> None:
        if self._producer is None and content.is_json(self._kind):
            appends = [Append(self._path, self._kind, b"".join(batch))]
        else:
            appends = [Append(self._path, self._kind, data, producer=self._claim(n)) for n, data in enumerate(batch)]
        last = (await self._persist(appends))[-1]
        assert isinstance(last, Appended)
        self.written += len(batch)
        self._stream.tail_position = last.tail

    async def _close(self) -> None:
        await self._persist([Append(self._path, None, b"", close=True, producer=self._claim(0))])
        self.closed = self._stream.closed = True

    async def _mark(self, error: BaseException) -> None:
        """Say in the stream that whoever wrote it has failed, as the arguments have it."""
        message = self._error_message(error) if callable(self._error_message) else self._error_message
        data = encode(self._kind, message) if message is not None else b""
        close = self._on_error == "close"
        if not data and not close:
            return
        if self._producer is not None:
            # The last message once more: no news for the stream, unless somebody else has taken over.
            await self._persist([Append(self._path, self._kind, b"", producer=self._claim(-1))])
        # Without the producer, as it is none of the messages that another run would skip.
        await self._persist([Append(self._path, self._kind, data, close=close)])
        self.closed = self._stream.closed = close

    def _claim(self, number: int) -> ProducerClaim | None:
        """Return the producer's claim for a message, counted from the next one."""
        return ProducerClaim(self._producer, self._epoch, self.written + number) if self._producer is not None else None

    async def _persist(self, operations: Sequence[Operation]) -> list[Result]:
        """Apply operations, in one commit as a rule, and return their results.

        What did not even get into the lane's queue is tried again. What did can be tried again with a producer: what
        has come through is recognised.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + PATIENCE
        results: list[Result] = []
        while True:
            futures, error = self._submit(operations[len(results) :])
            may_repeat = True
            for outcome in await asyncio.gather(*futures, return_exceptions=True):
                if isinstance(outcome, BaseException):
                    error = outcome
                    may_repeat = self._producer is not None
                    break
                results.append(outcome)
            if error is None:
                return results
            if not (may_repeat and isinstance(error, ServiceUnavailable) and clock() < deadline):
                raise error
            await asyncio.sleep(PAUSE)

    def _submit(self, operations: Sequence[Operation]) -> tuple[list[Awaitable[Result]], BaseException | None]:
        """Hand operations to their lane, and return what is to be awaited, and the error if the lane is full."""
        futures: list[Awaitable[Result]] = []
        try:
            for operation in operations:
                futures.append(self._engine.write(operation))
        except ServiceUnavailable as error:
            return futures, error
        return futures, None


async def _asynchronous(values: AsyncIterable[Data] | Iterable[Data]) -> AsyncIterable[Data]:
    if isinstance(values, AsyncIterable):
        async for value in values:
            yield value
    else:
        for value in values:
            yield value


class SyncWriter:
    """The same for synchronous code. `Stream.writer` makes one; use it as a context manager."""

    def __init__(self, writer: Writer, using: str) -> None:
        self._writer = writer
        self._using = using

    def __enter__(self) -> Self:
        if connections[self._using].in_atomic_block:
            raise RuntimeError("A writer commits by itself: it cannot be used inside transaction.atomic().")
        background.run(self._writer.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        background.run(self._writer.__aexit__(kind, error, traceback))

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
        background.run(self._writer.write(value))

    def flush(self) -> None:
        """See `Writer`."""
        background.run(self._writer.flush())
