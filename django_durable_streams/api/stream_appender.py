"""A writer's operations on its stream: the start, the messages and the end. They are repeated where that is safe.

Runs in the background loop. Knows neither threads nor buffers, which are in `stream_committer`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..engine import engine_for
from ..engine.snapshot_reader import Snapshot
from ..protocol import content
from ..protocol.errors import DurableStreamsError, ServiceUnavailable, StreamClosed, StreamNotFound
from ..protocol.producers import ProducerClaim
from ..runtime.batch_worker import WorkerEnded
from ..store.chunk_rows import MAX_CHUNK_BYTES
from ..store.operations import Append, Appended, Operation, Result, TakenOver, TakeOver
from ..store.write.batch import expect

if TYPE_CHECKING:
    from ..models.methods import StreamMethods

logger = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""Time for which operations are repeated while the database does not answer."""

RETRY_PAUSE_SECONDS = 0.25
"""Time between two attempts."""


class StreamAppender:
    """Appends a writer's messages to its stream, in their order, from one task at a time.

    Args:
        stream: its `tail_position` and `closed` are updated after each commit.
        using: alias of the database.
        producer: stored id of the producer that counts the messages, or None.

    Attributes:
        written, resumed, closed: see `Writer`.
        taken_over: the result of a takeover that was committed with other changes, before `begin`.
    """

    taken_over: TakenOver | None = None

    def __init__(self, stream: StreamMethods, using: str, producer: str | None) -> None:
        self.written = 0
        self.resumed = False
        self.closed = False
        self.stream = stream
        self.path: str = stream.path
        self.content_type: str = stream.content_type
        self._stream_id: int = stream.pk
        self._using = using
        self._producer = producer
        self._epoch = 0

    async def begin(self) -> None:
        """Read the tail of the stream, and fence earlier writers of the producer's name.

        Raises:
            DurableStreamsError: the stream does not exist, or the database does not answer.
        """
        if self._producer is not None:
            taken_over: Result | None = self.taken_over
            if taken_over is None:
                (taken_over,) = await self._persist([TakeOver(self.path, self._producer, self._stream_id)])
            assert isinstance(taken_over, TakenOver)
            self._epoch, self.written, self.closed = taken_over.epoch, taken_over.seq + 1, taken_over.closed
            self.resumed = self.written > 0
            tail = taken_over.tail
        else:
            snapshot = await self._read()
            expect(self._stream_id, snapshot.info.id, self.path)
            self.closed, tail = snapshot.closed, snapshot.tail
        self.stream.tail_position, self.stream.closed = tail, self.closed

    async def _read(self) -> Snapshot:
        """Read the stream, again with a new engine if the present one ends with its server."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + RETRY_SECONDS
        while True:
            try:
                return await engine_for(self._using).read(self.path)
            except WorkerEnded:
                if clock() >= deadline:
                    raise
            await asyncio.sleep(RETRY_PAUSE_SECONDS)

    async def append(self, batch: list[bytes]) -> None:
        """Append encoded messages, each with its own sequence number of the producer.

        In JSON mode they are one append, or more where they are large: the committer's time would otherwise grow with
        their number.
        """
        if content.is_json(self.content_type):
            appends = [self._append(data, number, count=count) for number, count, data in _joined(batch)]
        else:
            appends = [self._append(data, number) for number, data in enumerate(batch)]
        last = (await self._persist(appends))[-1]
        assert isinstance(last, Appended)
        self.written += len(batch)
        self.stream.tail_position = last.tail

    async def close(self) -> None:
        """Close the stream."""
        await self._persist([self._append(b"", 0, close=True)])
        self.closed = self.stream.closed = True

    async def mark_failure(self, message: bytes, *, close: bool) -> None:
        """Mark in the stream that its writer has failed: by a last message, by closing the stream, or both."""
        if self._producer is not None:
            # A repeated sequence number changes nothing. It fails if another writer has taken over.
            await self._persist([self._append(b"", -1)])
        # Without the producer: another run must not count this message as one of its own.
        try:
            await self._persist([self._append(message, close=close)])
        except DurableStreamsError as error:
            if not (close and message) or error.status >= 500 or isinstance(error, StreamClosed | StreamNotFound):
                raise
            logger.warning(
                "The stream %s refused the error_message of its writer. It is closed without that message: %s",
                self.path,
                error,
            )
            await self._persist([self._append(b"", close=True)])
        self.closed = self.stream.closed = close

    def _append(self, data: bytes, number: int | None = None, *, close: bool = False, count: int = 1) -> Append:
        """Return an append to the writer's stream.

        Args:
            data: encoded messages.
            number: counts the producer's messages, 0 for the next one. None: the producer does not count them.
            close: whether the stream ends.
            count: how many messages the data has.
        """
        claim = None
        if number is not None and self._producer is not None:
            claim = ProducerClaim(self._producer, self._epoch, self.written + number)
        return Append(self.path, self.content_type, data, close, producer=claim, stream_id=self._stream_id, count=count)

    async def _persist(self, operations: Sequence[Operation]) -> list[Result]:
        """Apply operations, usually in one commit, and return their results.

        Operations that a full queue or an ended committer refused are repeated. Other operations are repeated only with
        a producer, because then the stream recognises an append that was committed before.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + RETRY_SECONDS
        results: list[Result] = []
        while True:
            futures, error = self._submit(operations[len(results) :])
            may_repeat = True
            for outcome in await _outcomes_of(futures):
                if isinstance(outcome, BaseException):
                    error = outcome
                    # The operations share a batch, so an ended committer has begun none of them.
                    may_repeat = self._producer is not None or isinstance(outcome, WorkerEnded)
                    break
                results.append(outcome)
            if error is None:
                return results
            if not (may_repeat and isinstance(error, ServiceUnavailable) and clock() < deadline):
                raise error
            await asyncio.sleep(RETRY_PAUSE_SECONDS)

    def _submit(self, operations: Sequence[Operation]) -> tuple[list[Awaitable[Result]], BaseException | None]:
        """Queue operations, and return their futures, and the error if the queue is full."""
        # The engine may be new: a server that ends stops its engines, and the next use makes new ones.
        engine = engine_for(self._using)
        futures: list[Awaitable[Result]] = []
        try:
            for operation in operations:
                futures.append(engine.write(operation))
        except ServiceUnavailable as error:
            return futures, error
        return futures, None


def _joined(messages: Sequence[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Join messages up to the size of a chunk, which no store divides between them. A larger one stays alone.

    Yields:
        The number of the first message, how many messages there are, and their data.
    """
    first, size = 0, 0
    for number, message in enumerate(messages):
        size += len(message)
        if number > first and size > MAX_CHUNK_BYTES:
            yield first, number - first, b"".join(messages[first:number])
            first, size = number, len(message)
    yield first, len(messages) - first, b"".join(messages[first:])


async def _outcomes_of(futures: Sequence[Awaitable[Result]]) -> Sequence[Result | BaseException]:
    """Wait for all futures, and return their results and exceptions."""
    if len(futures) != 1:
        return await asyncio.gather(*futures, return_exceptions=True)
    try:  # most commits of a writer have one append, and a gather takes longer than the append
        return [await futures[0]]
    except Exception as error:
        return [error]
