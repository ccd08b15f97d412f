"""What streams can do in Python: the wire's operations, with the wire's rules and errors.

Every method but those that wait or write for long (`tail`, `writer`) joins the caller's transaction. Each has a twin
with an `a` in front for asynchronous code (`async_methods`). The work is done in `api.stream_methods`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self, Unpack

from django.db import router

from ..protocol.errors import StreamNotFound
from ..protocol.producers import ProducerClaim
from ..protocol.values import Data
from .guard import GuardedModel
from .hinge import api

if TYPE_CHECKING:
    from .hinge import Appended, Page, SyncWriter, WriterOptions


class StreamMethods(GuardedModel):
    """The operations on a stream: the one that was loaded or created, and not another one that is at its path now."""

    class Meta:
        abstract = True

    if TYPE_CHECKING:
        path: Any
        content_type: Any
        tail_position: Any
        closed: Any
        ttl: Any
        expires_at: Any

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
            producer: id, epoch and sequence number, for exactly-once appends (section 5.2.1). The ids that Python code
                names are its own: a client that sends the same one is another producer.

        Raises:
            StreamClosed, StreamNotFound, StreamGone, SequenceConflict, ProducerFenced, ProducerSequenceGap,
            InvalidHeader, InvalidJSON, EmptyAppend, PayloadTooLarge.
        """
        result: Appended = api().append_value(self, value, close=close, seq=seq, producer=producer)
        return result

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
        count: int = api().append_many(self, values, batch_bytes, producer)
        return count

    def close(self) -> None:
        """Close the stream: nothing can be appended any more, and readers learn that they have it all (5.3)."""
        api().append(self, b"", close=True)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the stream (5.4). With forks it is soft-deleted: its data is kept for them, its path stays taken.

        Rows of the project's own models that refer to it follow their `on_delete`.

        Raises:
            StreamNotFound, StreamGone; ProtectedError, RestrictedError, if one of these rows forbids it.
        """
        result: tuple[int, dict[str, int]] = api().delete(self, using)
        return result

    def set_lifetime(self, *, ttl: int | None = None, expires_at: datetime | None = None) -> None:
        """Give the stream another lifetime, which begins now; without arguments it lives until it is deleted.

        Args:
            ttl: seconds of idle life; `expires_at`, an absolute end. A PUT that repeats the old ones is refused then.

        Raises:
            StreamNotFound, StreamGone, InvalidHeader.
        """
        api().set_lifetime(self, ttl, expires_at)

    def fork(
        self,
        path: str,
        *,
        offset: str | None = None,
        sub_offset: int = 0,
        ttl: int | None = None,
        expires_at: datetime | None = None,
        data: Data = None,
    ) -> Self:
        """Create a stream that begins with this one's data, without copying it (section 4.2), and return it.

        Args:
            path: of the new stream.
            offset: where to cut, as a `Stream-Next-Offset`; the tail, if it is left out.
            sub_offset: messages (JSON) or bytes past the offset.
            ttl: seconds of idle life; `expires_at`, an absolute end. Without either this stream's are inherited.
            data: a first message of the fork's own.

        Raises:
            StreamExists, StreamNotFound, SourceGone, InvalidOffset, OffsetOutOfRange, InvalidPath, InvalidHeader.
        """
        fork: Self = api().fork(self, path, offset=offset, sub_offset=sub_offset, lifetime=(ttl, expires_at), data=data)
        return fork

    def read(self, offset: str = "-1") -> Iterator[Data]:
        """Yield the messages past an offset, up to the tail: JSON values, text or bytes, one for each message.

        A character that appends to a `text/*` stream have cut comes with the append that completes it. JSON numbers
        of more digits than Python's `int` takes are `decimal.Decimal`.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
        """
        for page in api().pages(self, offset):
            yield from page

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
        pages: Iterator[Page] = api().tail(self, offset, timeout)
        return pages

    def writer(self, **options: Unpack[WriterOptions]) -> SyncWriter:
        """Return a writer for what comes in small pieces, for use as a context manager: `writer.write(token)`.

        What comes within an interval shares a commit. The writer commits by itself, and takes no part in a transaction.
        For the options see `api.writer_options.WriterOptions`.

        Raises:
            StreamNotFound, StreamGone, ServiceUnavailable: on entering; for `write` see `Writer.write`.
            RuntimeError: on entering, inside `transaction.atomic()` or with autocommit off.
            ValueError: an option cannot be.
        """
        writer: SyncWriter = api().writer(self, **options)
        return writer

    def _alias(self) -> str:
        # For reading too: a replica may not have what was acknowledged.
        return router.db_for_write(type(self), instance=self)

    def _expected(self) -> int:
        """Return the id of the stream that the instance stands for, which has to be the one at its path still.

        Raises:
            ValueError: the instance was made, and not loaded, so that it stands for none.
            StreamNotFound: the stream was removed before it was loaded.
        """
        if self.pk is None:
            raise ValueError(
                "This Stream was not loaded from the database, so it stands for no stream. "
                "Load it with Stream.objects.get(path=...), or make it with Stream.objects.create() or ensure()."
            )
        if self.path is None:
            raise StreamNotFound("The stream was deleted.")
        return int(self.pk)
