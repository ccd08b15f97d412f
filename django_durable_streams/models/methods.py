"""The methods of streams: the operations of the protocol, with its rules and errors.

All methods but `tail` and `writer` take part in the caller's transaction. `async_methods` has the same methods for
asynchronous code. The methods are delegates to `api.stream_methods`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Self, Unpack

from django.db import router

from ..protocol.errors import StreamNotFound
from ..protocol.producers import ProducerClaim
from ..protocol.values import Data
from .guard import GuardedModel
from .hinge import api, pages

if TYPE_CHECKING:
    from django.http import HttpRequest
    from django.http.response import HttpResponseBase

    from ..protocol.retention import RetentionRules
    from .hinge import Appended, EventSourceOptions, LastPage, Page, SyncWriter, WriterOptions


LAST_PAGE_BYTES = 4 * 1024 * 1024
"""Bytes of messages that `read_last` returns, unless its caller says another number. A message may have megabytes."""


class StreamMethods(GuardedModel):
    """The operations on the stream that was loaded or created, and not on a later stream at the same path."""

    class Meta:
        abstract = True

    if TYPE_CHECKING:
        path: Any
        content_type: Any
        tail_position: Any
        closed: Any
        ttl: Any
        expires_at: Any
        first_position: Any

        @property
        def next_offset(self) -> str: ...

        def offset_at(self, position: int) -> str: ...

    def append(
        self,
        value: Data,
        *,
        close: bool = False,
        seq: str | None = None,
        producer: ProducerClaim | tuple[str, int, int] | None = None,
        if_tail: str | None = None,
    ) -> Appended:
        """Append one message (specification, section 5.2).

        Args:
            value: bytes or str; for JSON streams any JSON value. A list is one message.
            close: whether to close the stream in the same step.
            seq: `Stream-Seq`, greater than the last one.
            producer: id, epoch and sequence number, for exactly-once appends (section 5.2.1). A client that sends the
                same id is another producer.
            if_tail: append only if this is the offset after the stream's last byte. A producer's duplicate is a
                duplicate wherever the tail is.

        Raises:
            TailMismatch: the tail is at another offset. Its `next_offset` says where.
            StreamClosed, StreamNotFound, StreamGone, SequenceConflict, ProducerFenced, ProducerSequenceGap,
            InvalidOffset, InvalidHeader, InvalidJSON, EmptyAppend, PayloadTooLarge.
        """
        result: Appended = api().append_value(self, value, close=close, seq=seq, producer=producer, if_tail=if_tail)
        return result

    def append_many(
        self,
        values: Iterable[Data],
        *,
        batch_bytes: int | None = None,
        producer: ProducerClaim | tuple[str, int, int] | None = None,
    ) -> int:
        """Append many messages in one transaction, and return their number.

        Memory is bounded for any number of messages. Readers see them when the transaction commits.

        Args:
            values: the messages, as for `append`.
            batch_bytes: about how many bytes to write at a time; by default PAGE_BYTES.
            producer: id, epoch, and the sequence number of the first message. Each message takes one number, so a
                repeated call skips the messages that the stream has already.

        Raises:
            The errors of `append`. Then no message is stored.
        """
        count: int = api().append_many(self, values, batch_bytes, producer)
        return count

    def close(self) -> None:
        """Close the stream (section 5.3): it takes no more appends, and readers learn that it is complete."""
        api().append(self, b"", close=True)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the stream (section 5.4). A stream with forks keeps its data for them, and its path stays taken.

        Rows of the project's own models that refer to it follow their `on_delete`.

        Raises:
            StreamNotFound, StreamGone.
            ProtectedError, RestrictedError: such a row forbids the deletion.
        """
        result: tuple[int, dict[str, int]] = api().delete(self, using)
        return result

    def set_lifetime(self, *, ttl: int | None = None, expires_at: datetime | None = None) -> None:
        """Give the stream a new lifetime, which begins now. Without arguments it never expires.

        Args:
            ttl: seconds without appends and reads after which the stream expires.
            expires_at: time at which the stream expires, instead of `ttl`. A PUT with the old lifetime is refused
                afterwards.

        Raises:
            StreamNotFound, StreamGone, InvalidHeader.
        """
        api().set_lifetime(self, ttl, expires_at)

    def trim(self, before: str) -> str:
        """Drop the data before an offset, and return the offset of the first data that is left.

        Nobody reads the dropped data any more, except for forks that have it already. Readers at an earlier offset are
        refused with `OffsetTrimmed`, which has the offset to go on from. An append is kept whole, so data before the
        offset is left where the offset is inside an append. Housekeeping deletes the data soon after.

        Args:
            before: an offset of this stream, or `now` for all data.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
            OffsetOutOfRange: the offset is past the tail, or belongs to another stream.
        """
        first_offset: str = api().trim(self, before)
        return first_offset

    def retain(
        self,
        *,
        age: int | timedelta | None = None,
        bytes: int | None = None,
        messages: int | None = None,
    ) -> None:
        """Give the stream rules by which housekeeping trims it, instead of those of the setting `RETENTION`.

        Data is trimmed as soon as one of the rules allows it. Without arguments all data is kept.

        Args:
            age: time for which data is kept after its append, in seconds or as a `timedelta`.
            bytes: the newest bytes that are kept.
            messages: the newest messages that are kept.

        Raises:
            StreamNotFound, StreamGone.
            InvalidParameter: a rule is no whole number, or is not greater than zero.
        """
        api().retain(self, age=age, bytes=bytes, messages=messages)

    def reset_retention(self) -> None:
        """Give the stream the rules of the setting `RETENTION` again.

        Raises:
            StreamNotFound, StreamGone.
        """
        api().reset_retention(self)

    @property
    def retention(self) -> RetentionRules:
        """The rules of retention that are in force: `age` in seconds, `bytes` and `messages`, None without a limit."""
        rules: RetentionRules = api().retention_of(self)
        return rules

    @property
    def first_offset(self) -> str:
        """The offset of the first data that was left when the instance was loaded (`Stream-First-Offset`)."""
        return self.offset_at(self.first_position)

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
        """Create a stream that begins with this stream's data, without a copy of it, and return it (section 4.2).

        Args:
            path: path of the new stream.
            offset: where to cut, as a `Stream-Next-Offset`; by default the tail.
            sub_offset: messages (JSON) or bytes after the offset.
            ttl: seconds without appends and reads after which the fork expires.
            expires_at: time at which the fork expires, instead of `ttl`. By default it has this stream's lifetime.
            data: a first message of the fork itself.

        Raises:
            StreamExists, StreamNotFound, SourceGone, InvalidOffset, OffsetOutOfRange, InvalidPath, InvalidHeader.
        """
        fork: Self = api().fork(self, path, offset=offset, sub_offset=sub_offset, lifetime=(ttl, expires_at), data=data)
        return fork

    def read(self, offset: str = "-1") -> Iterator[Data]:
        """Yield the messages after an offset, up to the tail: JSON values, texts or bytes.

        In a `text/*` stream, a character that two appends share comes with the second append. JSON numbers with more
        digits than Python's `int` accepts are `decimal.Decimal`.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
            OffsetTrimmed: the data at the offset, or at a page that is about to be read, was trimmed.
        """
        for page in api().pages(self, offset):
            yield from page

    def read_last(self, count: int, *, before: str = "now", max_bytes: int = LAST_PAGE_BYTES) -> LastPage:
        """Return the last messages as a page, the oldest first. It reads no message before them.

        A page of the browser goes on at `next_offset`, and asks for earlier messages with `before=page.offset`.

        Args:
            count: the largest number of messages, from 1 to 10,000. All are in memory together.
            before: the page has messages that end at this offset or before it. `now` is the end. Of an append in which
                the offset lies, as a fork's may, it has the part before.
            max_bytes: the largest number of bytes that the messages have together. The page has fewer messages where
                they are larger, and one at least.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
            ServiceUnavailable: data of the stream is damaged.
            InvalidHeader: a number is out of these bounds.
            OffsetTrimmed: the data before the offset was trimmed.
        """
        page: LastPage = api().read_last(self, count, before, max_bytes)
        return page

    def tail(self, offset: str = "-1", *, timeout: float | None = None) -> Iterator[Page]:
        """Yield pages of the existing messages after an offset, then pages of new messages as they are committed.

        Existing messages are read in the caller's transaction. Then this waits as HTTP readers do, without a database
        connection. Use it outside of transactions, for example in a management command.

        Args:
            offset: `-1` is the start, `now` the end.
            timeout: seconds to wait for the next page; after that the iterator ends. None: no limit. 0: no wait.

        The iterator also ends after the last page of a closed stream, when the stream is deleted or expires, and when
        the process is asked to end.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
            OffsetTrimmed: the data at the next page was trimmed. Its `first_offset` is where to go on.
            ServiceUnavailable: the database does not answer. Continue at the last page's `next_offset`.
        """
        pages: Iterator[Page] = api().tail(self, offset, timeout)
        return pages

    def writer(self, **options: Unpack[WriterOptions]) -> SyncWriter:
        """Return a writer for many small messages, to be used as a context manager: `writer.write(token)`.

        Messages within an interval share a commit. The writer commits by itself, and takes no part in a transaction.
        For the options see `api.writer_options.WriterOptions`.

        Raises:
            StreamNotFound, StreamGone, ServiceUnavailable: on entering. For `write` see `Writer.write`.
            RuntimeError: on entering, inside `transaction.atomic()` or with autocommit off.
            ValueError: an option has an invalid value.
        """
        writer: SyncWriter = api().writer(self, **options)
        return writer

    def event_source(self, request: HttpRequest, **options: Unpack[EventSourceOptions]) -> HttpResponseBase:
        """Return the response of a view with the messages as Server-Sent Events for a page, one for each message.

        It needs ASGI. Under WSGI, it is a 501. It has committed data only. See docs/pages.md.

        Args:
            request: the request of the page's `EventSource`, htmx or Datastar.
            options: see `server.pages.options.EventSourceOptions`.

        Raises:
            StreamNotFound: the stream was removed before the instance was loaded. Refusals are responses.
            TypeError, ValueError, InvalidOffset: an option has an invalid value.
            RuntimeError: in an asynchronous view. Await `aevent_source` there.
        """
        response: HttpResponseBase = pages().stream_source(self, request, options)
        return response

    def _alias(self) -> str:
        # Also for reading: a replica may lack acknowledged data.
        return router.db_for_write(type(self), instance=self)

    def _expected(self) -> int:
        """Return the id of the instance's stream, which an operation expects at the path.

        Raises:
            ValueError: the instance was constructed, and not loaded from the database.
            StreamNotFound: the stream was removed before the instance was loaded.
        """
        if self.pk is None:
            raise ValueError(
                "This Stream was not loaded from the database, so there is no stream for it. "
                "Load it with Stream.objects.get(path=...), or create it with Stream.objects.create() or ensure()."
            )
        if self.path is None:
            raise StreamNotFound("The stream was deleted.")
        return int(self.pk)
