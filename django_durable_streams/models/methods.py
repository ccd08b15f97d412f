"""What streams can do in Python: the wire's operations, with the wire's rules and errors.

Every method but those that wait or write for long (`tail`, `writer`) joins the caller's transaction. Each has a twin
with an `a` in front for asynchronous code. Those run their database work with Django's `sync_to_async`, in the thread
whose transaction the caller may be in, be it a view's around `async_to_sync`, or one that a middleware has opened. That
is why `aappend` does not hand its data to the lanes, which commit by themselves: whether there is a transaction to be
joined can only be asked in that thread. What is to share commits with other writers goes through `awriter`.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any, Unpack

from asgiref.sync import sync_to_async
from django.db import models, router

from ..conf import config
from ..protocol import content, offsets, paths
from ..protocol.errors import EmptyAppend, InvalidOffset
from ..protocol.producers import ProducerClaim
from ..protocol.segments import Segment
from ..protocol.values import Data, encode, messages

if TYPE_CHECKING:
    from ..store.info import StreamInfo
    from ..store.operations import Append, Appended
    from ..tailing import Page
    from ..writer import SyncWriter, Writer, WriterOptions
    from .stream import Stream


class StreamMethods(models.Model):
    """The operations on a stream."""

    class Meta:
        abstract = True

    if TYPE_CHECKING:
        path: Any
        content_type: Any
        tail_position: Any
        closed: Any

        @property
        def next_offset(self) -> str: ...

    def append(
        self,
        value: Data,
        *,
        close: bool = False,
        seq: str | None = None,
        producer: ProducerClaim | tuple[str, int, int] | None = None,
    ) -> Appended:
        """Append one message (specification, section 5.2).

        Args:
            value: bytes or str; for JSON streams any value, a list too being one message.
            close: close the stream in the same step.
            seq: `Stream-Seq`, greater than the last one.
            producer: id, epoch and sequence number, for exactly-once appends (section 5.2.1).

        Raises:
            StreamClosed, StreamNotFound, StreamGone, SequenceConflict, ProducerFenced, ProducerSequenceGap,
            InvalidJSON, EmptyAppend.
        """
        return self._append(encode(self.content_type, value), close=close, seq=seq, producer=producer)

    def append_many(
        self,
        values: Iterable[Data],
        *,
        batch_bytes: int | None = None,
        producer: ProducerClaim | tuple[str, int, int] | None = None,
    ) -> int:
        """Append many messages in one transaction, and return how many they are.

        Memory stays bounded however many there are; readers see them when the transaction commits.

        Args:
            batch_bytes: about how many bytes are written at a time, a page's if it is left out.
            producer: id, epoch, and the sequence number of the first message; each takes one. So the call can be
                repeated: what is there already is passed over.

        Raises:
            The errors of `append`; then none of the messages is there.
        """
        from ..store import calls

        total = 0

        def encoded() -> Iterator[bytes]:
            nonlocal total
            for value in values:
                total += 1
                yield encode(self.content_type, value)

        claims = _claims(ProducerClaim(*producer)) if producer is not None else None
        portions = _portions(encoded(), batch_bytes or config().page_bytes)
        result = calls.append_all((self._appends(portion, claims) for portion in portions), self._alias())
        if result is not None:
            self._has_become(result)
        return total

    def close(self) -> None:
        """Close the stream: nothing can be appended any more, and readers learn that they have it all (5.3)."""
        self._append(b"", close=True)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the stream (5.4). With forks it is soft-deleted: its data is kept for them, its path stays taken."""
        from ..store import calls
        from ..store.operations import Delete

        calls.apply(Delete(self.path), using or self._alias())
        return 1, {self._meta.label: 1}

    def fork(
        self,
        path: str,
        *,
        offset: str | None = None,
        sub_offset: int = 0,
        ttl: int | None = None,
        expires_at: datetime | None = None,
        data: Data = None,
    ) -> Stream:
        """Create a stream that begins with this one's data, without copying it (section 4.2), and return it.

        Args:
            path: of the new stream.
            offset: where to cut, as a `Stream-Next-Offset`; the tail, if it is left out.
            sub_offset: messages (JSON) or bytes past the offset.
            ttl: seconds of idle life; `expires_at`, an absolute end. Without either this stream's are inherited.
            data: a first message of the fork's own.

        Raises:
            StreamExists, StreamNotFound, SourceGone, InvalidOffset, OffsetOutOfRange.
        """
        from ..store import calls
        from ..store.operations import Create, Fork

        cut = offsets.decode(offset) if offset is not None else None
        if isinstance(cut, offsets.Sentinel):
            raise InvalidOffset("The offset of a fork is one that a stream has returned; leave it out for the tail.")
        return calls.create(
            Create(
                paths.validate(path),
                self.content_type,
                ttl,
                expires_at,
                data=b"" if data is None else encode(self.content_type, data),
                fork=Fork(self.path, cut, sub_offset),
            ),
            self._alias(),
        )

    def read(self, offset: str = "-1") -> Iterator[Data]:
        """Yield the messages past an offset, up to the tail: JSON values, text or bytes, one for each message.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
        """
        for info, segment in self._segments(offset):
            yield from messages(info.content_type, segment)

    def tail(self, offset: str = "-1", *, timeout: float | None = None) -> Iterator[Page]:
        """Yield what is there past an offset, and then what comes, as pages: lists of messages with their offset.

        What is there is read in the caller's transaction. Then it waits as readers by HTTP do, without a connection,
        and without asking the database for each; use it outside of transactions, as in a management command.

        Args:
            offset: `-1` is the start, `now` the end.
            timeout: seconds to wait for the next page; after that it ends. None waits for ever, 0 not at all.

        It ends as well when the stream is closed, after a page that says so; when the stream is deleted or expires;
        and when the process is asked to end.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone; ServiceUnavailable, if the database does not answer: go on at
            the last page's `next_offset`.
        """
        from ..tailing import follow_in_thread

        return follow_in_thread(self.path, offset, self._alias(), timeout)

    def writer(self, **options: Unpack[WriterOptions]) -> SyncWriter:
        """Return a writer for what comes in small pieces, for use as a context manager: `writer.write(token)`.

        What comes within an interval shares a commit. The writer commits by itself, and takes no part in a transaction.
        For the options see `writer.WriterOptions`.

        Raises:
            StreamNotFound, StreamGone, ServiceUnavailable: on entering; for `write` see `Writer.write`.
            RuntimeError: on entering, inside `transaction.atomic()`.
        """
        from ..writer import SyncWriter, Writer

        using = self._alias()
        return SyncWriter(Writer(self, using, **options), using)

    async def aappend(self, value: Data, **options: Any) -> Appended:
        """The same as `append`: it joins the transaction of the thread that `sync_to_async` uses, if that is in one.

        So it commits by itself only where there is none, and does not wait for other requests' commits.
        """
        return await sync_to_async(self.append)(value, **options)

    async def aappend_many(self, values: Iterable[Data], **options: Any) -> int:
        """The same as `append_many`."""
        return await sync_to_async(self.append_many)(values, **options)

    async def aread(self, offset: str = "-1") -> AsyncIterator[Data]:
        """The same as `read`."""
        segments = self._segments(offset)
        while (found := await sync_to_async(lambda: next(segments, None))()) is not None:
            for message in messages(found[0].content_type, found[1]):
                yield message

    def atail(self, offset: str = "-1", *, timeout: float | None = None) -> AsyncIterator[Page]:
        """The same as `tail`, but that it sees only what is committed. It holds neither thread nor connection.

        Wrap it in `contextlib.aclosing` where it may be left in the middle of a longer-lived task.
        """
        from ..tailing import follow

        return follow(self.path, offset, self._alias(), timeout)

    def awriter(self, **options: Unpack[WriterOptions]) -> Writer:
        """The same as `writer`: `async with stream.awriter() as writer: await writer.write(token)`."""
        from ..writer import Writer

        return Writer(self, self._alias(), **options)

    async def aappend_from(self, values: AsyncIterable[Data] | Iterable[Data], **options: Unpack[WriterOptions]) -> int:
        """Append what an iterator yields, as it comes, through a writer, and return how many messages were written.

        Unlike `append_many`, readers see them at once. With `producer`, an iterator that yields the same messages again
        from its beginning goes on where an earlier run was stopped. The stream stays open, but for `close`.

        Raises:
            The errors of `writer` and of `Writer.write`, and those of the iterator.
        """
        options.setdefault("close", False)
        async with self.awriter(**options) as writer:
            return await writer.write_from(values)

    async def aclose(self) -> None:
        """The same as `close`."""
        await sync_to_async(self.close)()

    async def adelete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """The same as `delete`."""
        return await sync_to_async(self.delete)(using=using, keep_parents=keep_parents)

    async def afork(self, path: str, **options: Any) -> Stream:
        """The same as `fork`."""
        return await sync_to_async(self.fork)(path, **options)

    def _alias(self) -> str:
        # For reading too: a replica may not have what was acknowledged.
        return router.db_for_write(type(self), instance=self)

    def _segments(self, offset: str) -> Iterator[tuple[StreamInfo, Segment]]:
        from ..store import calls

        start = offsets.decode(offset)
        if start is offsets.Sentinel.NOW:
            return iter(())
        return calls.segments(self.path, start, self._alias(), config().page_bytes)

    def _appends(self, encoded: list[bytes], claims: Iterator[ProducerClaim] | None) -> list[Append]:
        """Return the appends for some messages: one for all in JSON mode, where they stay apart, else one each."""
        from ..store.operations import Append

        if not all(encoded):
            raise EmptyAppend("There is nothing to append.")
        if claims is not None:
            return [Append(self.path, self.content_type, part, producer=next(claims)) for part in encoded]
        parts = [b"".join(encoded)] if content.is_json(self.content_type) else encoded
        return [Append(self.path, self.content_type, part) for part in parts]

    def _append(
        self,
        data: bytes,
        *,
        close: bool = False,
        seq: str | None = None,
        producer: ProducerClaim | tuple[str, int, int] | None = None,
    ) -> Appended:
        from ..store import calls
        from ..store.operations import Append, Appended

        if not data and not close:
            raise EmptyAppend("There is nothing to append.")
        claim = ProducerClaim(*producer) if producer is not None else None
        result = calls.apply(Append(self.path, self.content_type, data, close, seq, claim), self._alias())
        assert isinstance(result, Appended)
        self._has_become(result)
        return result

    def _has_become(self, result: Appended) -> None:
        self.tail_position = result.tail
        self.closed = result.closed


MAX_PORTION = 10_000
"""Messages that are written at a time at the most, however small they are."""


def _claims(first: ProducerClaim) -> Iterator[ProducerClaim]:
    """Yield a producer's claims from one on."""
    return (first._replace(seq=seq) for seq in count(first.seq))


def _portions(parts: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield parts in lists of about a size in bytes."""
    portion: list[bytes] = []
    collected = 0
    for part in parts:
        portion.append(part)
        collected += len(part)
        if collected >= size or len(portion) >= MAX_PORTION:
            yield portion
            portion, collected = [], 0
    if portion:
        yield portion
