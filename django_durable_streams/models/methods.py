"""What streams can do in Python: the wire's operations, with the wire's rules and errors.

Every method but those that wait or write for long (`tail`, `writer`) joins the caller's transaction. Each has a twin
with an `a` in front for asynchronous code (`asynchronous`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any, Unpack

from django.db import router

from ..conf import config
from ..protocol import arguments, content, offsets
from ..protocol.errors import EmptyAppend, StreamNotFound
from ..protocol.producers import ProducerClaim, server_claim
from ..protocol.values import Data
from ..store.encoding import encode, encode_initial
from .guard import GuardedModel

if TYPE_CHECKING:
    from ..api.tail import Page
    from ..api.writer import SyncWriter, WriterOptions
    from ..store.operations import Append, Appended
    from .stream import Stream


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
        from ..api import transactions

        total = 0

        def encoded() -> Iterator[bytes]:
            nonlocal total
            for value in values:
                total += 1
                yield encode(self.content_type, value)

        claims = _claims(server_claim(producer)) if producer is not None else None
        portions = _portions(encoded(), batch_bytes or config().page_bytes)
        result = transactions.append_all((self._appends(portion, claims) for portion in portions), self._alias())
        if result is not None:
            self._has_become(result)
        return total

    def close(self) -> None:
        """Close the stream: nothing can be appended any more, and readers learn that they have it all (5.3)."""
        self._append(b"", close=True)

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """Delete the stream (5.4). With forks it is soft-deleted: its data is kept for them, its path stays taken.

        Rows of the project's own models that refer to it follow their `on_delete`.

        Raises:
            StreamNotFound, StreamGone; ProtectedError, RestrictedError, if one of these rows forbids it.
        """
        from ..api import transactions

        self._expected()
        count, others = transactions.delete([self], using or self._alias(), all_there=True)
        return count + sum(others.values()), {self._meta.label: count, **others}

    def set_lifetime(self, *, ttl: int | None = None, expires_at: datetime | None = None) -> None:
        """Give the stream another lifetime, which begins now; without arguments it lives until it is deleted.

        Args:
            ttl: seconds of idle life; `expires_at`, an absolute end. A PUT that repeats the old ones is refused then.

        Raises:
            StreamNotFound, StreamGone, InvalidHeader.
        """
        from ..api import transactions
        from ..store.operations import SetLifetime
        from .stream import lifetime_of

        seconds, moment = lifetime_of(ttl, expires_at)
        transactions.apply(SetLifetime(self.path, seconds, moment, self._expected()), self._alias())
        self.ttl, self.expires_at = seconds, moment

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
            StreamExists, StreamNotFound, SourceGone, InvalidOffset, OffsetOutOfRange, InvalidPath, InvalidHeader.
        """
        from ..api import transactions
        from ..store.operations import Create, Fork
        from .stream import lifetime_of

        cut, past = arguments.fork_offset(offset), arguments.sub_offset(sub_offset)
        fork = Fork(self.path, cut, past, self._expected())
        seconds, moment = lifetime_of(ttl, expires_at)
        initial = encode_initial(self.content_type, data)
        return transactions.create(
            Create(arguments.path(path), self.content_type, seconds, moment, data=initial, fork=fork), self._alias()
        )

    def read(self, offset: str = "-1") -> Iterator[Data]:
        """Yield the messages past an offset, up to the tail: JSON values, text or bytes, one for each message.

        A character that appends to a `text/*` stream have cut comes with the append that completes it. JSON numbers
        of more digits than Python's `int` takes are `decimal.Decimal`.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
        """
        for page in self._messages(offset):
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
        from ..api.tail import follow_in_thread

        return follow_in_thread(self.path, self._expected(), offset, self._alias(), timeout)

    def writer(self, **options: Unpack[WriterOptions]) -> SyncWriter:
        """Return a writer for what comes in small pieces, for use as a context manager: `writer.write(token)`.

        What comes within an interval shares a commit. The writer commits by itself, and takes no part in a transaction.
        For the options see `writer.WriterOptions`.

        Raises:
            StreamNotFound, StreamGone, ServiceUnavailable: on entering; for `write` see `Writer.write`.
            RuntimeError: on entering, inside `transaction.atomic()` or with autocommit off.
            ValueError: an option cannot be.
        """
        from ..api.writer import SyncWriter, Writer

        self._expected()
        using = self._alias()
        return SyncWriter(Writer(self, using, **options), using)

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

    def _messages(self, offset: str) -> Iterator[list[Data]]:
        from ..api import transactions

        stream_id, using = self._expected(), self._alias()
        start = arguments.offset(offset)
        if start is offsets.Sentinel.NOW:
            transactions.find(self.path, using, stream_id)
            return
        for page in transactions.pages(self.path, stream_id, start, using, config().page_bytes):
            yield page.messages

    def _appends(self, encoded: list[bytes], claims: Iterator[ProducerClaim] | None) -> list[Append]:
        """Return the appends for some messages: one for all in JSON mode, where they stay apart, else one each."""
        from ..store.operations import Append

        if not all(encoded):
            raise EmptyAppend("There is nothing to append.")
        path, kind, stream_id = self.path, self.content_type, self._expected()
        if claims is not None:
            return [Append(path, kind, part, producer=next(claims), stream_id=stream_id) for part in encoded]
        parts = [b"".join(encoded)] if content.is_json(kind) else encoded
        return [Append(path, kind, part, stream_id=stream_id) for part in parts]

    def _append(
        self,
        data: bytes,
        *,
        close: bool = False,
        seq: str | None = None,
        producer: ProducerClaim | tuple[str, int, int] | None = None,
    ) -> Appended:
        from ..api import transactions
        from ..store.operations import Append, Appended

        if not data and not close:
            raise EmptyAppend("There is nothing to append.")
        claim = server_claim(producer) if producer is not None else None
        if seq is not None:
            seq = arguments.opaque("seq", seq)
        append = Append(self.path, self.content_type, data, bool(close), seq, claim, stream_id=self._expected())
        result = transactions.apply(append, self._alias())
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
