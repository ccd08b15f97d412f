"""A writer's operations on its stream: beginning, messages, and the end, tried again where that is safe.

Runs in the background loop. Knows neither threads nor buffers: `committing` has these.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

from ..engine import engine_for
from ..protocol import content
from ..protocol.errors import DurableStreamsError, ServiceUnavailable, StreamClosed, StreamNotFound
from ..protocol.producers import ProducerClaim
from ..store.operations import Append, Appended, Operation, Result, TakenOver, TakeOver
from ..store.write.batch import expect

if TYPE_CHECKING:
    from ..models.methods import StreamMethods

logger = logging.getLogger(__name__)

PATIENCE = 60.0
"""Seconds for which a writer that can tell what has come through tries again while the database does not answer."""

PAUSE = 0.25
"""Seconds between two attempts."""


class StreamAppender:
    """Appends a writer's messages to its stream, in their order, from one task at a time.

    Args:
        stream: is told how far it goes, and whether it is closed.
        using: alias of the database.
        producer: a name under which each message is there once.

    Attributes:
        written, resumed, closed: see `Writer`.
    """

    def __init__(self, stream: StreamMethods, using: str, producer: str | None) -> None:
        self.written = 0
        self.resumed = False
        self.closed = False
        self.stream = stream
        self.path: str = stream.path
        self.kind: str = stream.content_type
        self._stream_id: int = stream.pk
        self._using = using
        self._producer = producer
        self._epoch = 0

    async def begin(self) -> None:
        """Find out how far the stream is, and fence earlier writers of the name.

        Raises:
            DurableStreamsError: the stream is not there, or the database is not.
        """
        if self._producer is not None:
            (taken,) = await self._persist([TakeOver(self.path, self._producer, self._stream_id)])
            assert isinstance(taken, TakenOver)
            self._epoch, self.written, self.closed = taken.epoch, taken.seq + 1, taken.closed
            self.resumed = self.written > 0
            tail = taken.tail
        else:
            view = await engine_for(self._using).look(self.path)
            expect(self._stream_id, view.info.id, self.path)
            self.closed, tail = view.closed, view.tail
        self.stream.tail_position, self.stream.closed = tail, self.closed

    async def append(self, batch: list[bytes]) -> None:
        """Append messages."""
        if self._producer is None and content.is_json(self.kind):
            appends = [self._append(b"".join(batch))]
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
        """Say in the stream that whoever wrote it has failed, by a last message or by closing it, or both."""
        if self._producer is not None:
            # The last message once more: no news for the stream, unless somebody else has taken over.
            await self._persist([self._append(b"", -1)])
        # Without the producer, as it is none of the messages that another run would skip.
        try:
            await self._persist([self._append(message, close=close)])
        except DurableStreamsError as error:
            if not (close and message) or error.status >= 500 or isinstance(error, StreamClosed | StreamNotFound):
                raise
            logger.warning("%s does not take the error_message of its writer: %s", self.path, error)
            await self._persist([self._append(b"", close=True)])
        self.closed = self.stream.closed = close

    def _append(self, data: bytes, number: int | None = None, *, close: bool = False) -> Append:
        """Return an append to the writer's own stream. `number` counts the producer's messages from the next one on."""
        claim = None
        if number is not None and self._producer is not None:
            claim = ProducerClaim(self._producer, self._epoch, self.written + number)
        return Append(self.path, self.kind, data, close, producer=claim, stream_id=self._stream_id)

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
        # Asked each time: a server that ends stops its engines, and the next use makes new ones.
        engine = engine_for(self._using)
        futures: list[Awaitable[Result]] = []
        try:
            for operation in operations:
                futures.append(engine.write(operation))
        except ServiceUnavailable as error:
            return futures, error
        return futures, None
