"""What streams can do in Python: the wire's operations, with the wire's rules and errors.

Every method joins the caller's transaction and has a twin with an `a` in front for asynchronous code.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from asgiref.sync import sync_to_async
from django.db import models, router, transaction

from ..conf import config
from ..protocol import content, offsets, paths
from ..protocol.errors import EmptyAppend, InvalidJSON, InvalidOffset
from ..protocol.producers import ProducerClaim

if TYPE_CHECKING:
    from ..store.operations import Appended
    from .stream import Stream

Data = Any
"""bytes or str; for JSON streams anything that JSON can say."""


def encode(content_type: str, value: Data) -> bytes:
    """Return one message as it is stored in a stream of a content type.

    Raises:
        InvalidJSON: JSON cannot say it.
        TypeError: the stream is not in JSON mode, and the value is neither bytes nor text.
    """
    if content.is_json(content_type):
        try:
            return msgspec.json.encode(value) + b"\n"
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InvalidJSON(f"The message is not JSON: {error}") from error
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"A stream of {content_type} takes bytes or str, not {type(value).__name__}.")


def decode(content_type: str, stored: bytes) -> Data:
    """Return a stored message as Python sees it: the JSON value, text for `text/*`, else bytes."""
    if content.is_json(content_type):
        return msgspec.json.decode(stored)
    return stored.decode(errors="replace") if content.is_text(content_type) else stored


class StreamMethods(models.Model):
    """The operations on a stream."""

    class Meta:
        abstract = True

    if TYPE_CHECKING:
        path: Any
        content_type: Any
        tail: Any
        closed: Any

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

    def append_many(self, values: Iterable[Data], *, batch_bytes: int | None = None) -> int:
        """Append many messages, and return how many. They become appends of about `batch_bytes`, in one transaction.

        Memory stays bounded however many there are; readers see them when the transaction commits.
        """
        limit = batch_bytes or config().page_bytes
        count = 0
        size = 0
        parts: list[bytes] = []
        with transaction.atomic(using=self._alias()):
            for value in values:
                part = encode(self.content_type, value)
                parts.append(part)
                size += len(part)
                count += 1
                if size >= limit:
                    self._append(b"".join(parts))
                    parts, size = [], 0
            if parts:
                self._append(b"".join(parts))
        return count

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

        position = offsets.decode(offset) if offset is not None else None
        if isinstance(position, offsets.Sentinel):
            raise InvalidOffset("The offset of a fork is one that a stream has returned; leave it out for the tail.")
        return calls.create(
            Create(
                paths.validate(path),
                self.content_type,
                ttl,
                expires_at,
                data=b"" if data is None else encode(self.content_type, data),
                fork=Fork(self.path, position, sub_offset),
            ),
            self._alias(),
        )

    def read(self, offset: str = "-1") -> Iterator[Data]:
        """Yield the messages past an offset, up to the tail: JSON values, text or bytes, one for each message.

        Raises:
            InvalidOffset, StreamNotFound, StreamGone.
        """
        from ..store import calls

        position = offsets.decode(offset)
        if position is offsets.Sentinel.NOW:
            return
        start = 0 if isinstance(position, offsets.Sentinel) else position
        for info, segment in calls.segments(self.path, start, self._alias(), config().page_bytes):
            for message in segment.messages(info.content_type):
                yield decode(info.content_type, message.data)

    async def aappend(self, value: Data, **options: Any) -> Appended:
        """The same as `append`."""
        return await sync_to_async(self.append)(value, **options)

    async def aappend_many(self, values: Iterable[Data], **options: Any) -> int:
        """The same as `append_many`."""
        return await sync_to_async(self.append_many)(values, **options)

    async def aclose(self) -> None:
        """The same as `close`."""
        await sync_to_async(self.close)()

    async def adelete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """The same as `delete`."""
        return await sync_to_async(self.delete)(using, keep_parents)

    async def afork(self, path: str, **options: Any) -> Stream:
        """The same as `fork`."""
        return await sync_to_async(self.fork)(path, **options)

    def _alias(self) -> str:
        return self._state.db or router.db_for_write(type(self), instance=self)

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
        self.tail = result.tail
        self.closed = result.closed
        return result
