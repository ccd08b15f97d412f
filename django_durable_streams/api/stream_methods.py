"""The functions behind the methods of `Stream` and of its manager. `models.hinge` imports them at the first call.

The operations have the rules and errors of the protocol. All but `tail` and the writers take part in the caller's
transaction. Knows no request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from itertools import count
from typing import Any, TypeVar, Unpack

from django.conf import settings

from .. import clock
from ..conf import config
from ..models import Stream, StreamQuerySet
from ..models.methods import StreamMethods
from ..protocol import arguments, content, offsets
from ..protocol.errors import EmptyAppend
from ..protocol.listings import ListingQuery
from ..protocol.producers import ProducerClaim, server_claim
from ..protocol.values import Data
from ..store.encoding import encode, encode_initial
from ..store.operations import Append, Create, Fork, SetLifetime
from ..store.operations import Appended as Appended  # for the models, too
from ..store.read import lineage
from ..store.read import listing as listings
from ..store.read.listing import ListingPage as ListingPage
from ..store.stream_info import StreamInfo
from . import deletion, last_page, shared_appends, transactions
from .last_page import LastPage
from .retention import reset_retention as reset_retention
from .retention import retain as retain
from .retention import retention_of as retention_of
from .retention import trim as trim
from .tail import Page, follow, follow_in_thread
from .writer import SyncWriter, Writer
from .writer_options import WriterOptions

S = TypeVar("S", bound=StreamMethods)

Producer = ProducerClaim | tuple[str, int, int]

Lifetime = tuple[int | None, datetime | None]
"""A TTL in seconds and an absolute expiry, of which at most one is set."""

MAX_PORTION_MESSAGES = 10_000
"""Messages that one step of `append_many` writes at most, however small they are."""


def create(streams: StreamQuerySet, using: str, **options: Any) -> Stream:
    """Create a stream and return it. See `StreamQuerySet.create`."""
    return transactions.create(create_operation(**options), using, streams.model)


def ensure(streams: StreamQuerySet, using: str, path: str, **options: Any) -> tuple[Stream, bool]:
    """Return the stream at a path, and whether it was created now. See `StreamQuerySet.ensure`."""
    return transactions.ensure(create_operation(path, **options), using, streams.model)


def create_operation(
    path: str,
    content_type: str = content.DEFAULT_CONTENT_TYPE,
    *,
    ttl: int | None = None,
    expires_at: datetime | None = None,
    closed: bool = False,
    data: Any = None,
) -> Create:
    """Return the operation for the arguments of `create` and `ensure`.

    Raises:
        InvalidPath, InvalidHeader, InvalidJSON, PayloadTooLarge.
    """
    path, content_type = arguments.path(path), arguments.content_type(content_type)
    ttl, expires_at = lifetime_of(ttl, expires_at)
    return Create(path, content_type, ttl, expires_at, bool(closed), encode_initial(content_type, data))


def lifetime_of(ttl: int | None, expires_at: datetime | None) -> Lifetime:
    """Return a checked TTL in seconds and an aware expiry. Without USE_TZ the caller's times are in TIME_ZONE.

    Raises:
        InvalidHeader: one of them is invalid, or both are set (see `protocol.arguments`).
    """
    if isinstance(expires_at, datetime) and not settings.USE_TZ:
        expires_at = clock.from_project(expires_at)
    return arguments.lifetime(ttl, expires_at, clock.now())


def listing(using: str, prefix: str, pattern: str, cursor: str, limit: int) -> ListingPage:
    """Return a page of streams. See `StreamQuerySet.listing`."""
    return listings.page(ListingQuery.of(prefix, pattern, cursor, limit), using)


def delete_all(streams: StreamQuerySet, using: str) -> tuple[int, dict[str, int]]:
    """Delete the streams of a query. See `StreamQuerySet.delete`."""
    alive = streams.filter(path__isnull=False, deleted_at__isnull=True).using(using)
    count, related_counts = deletion.delete(list(alive), using)
    return count + sum(related_counts.values()), {streams.model._meta.label: count, **related_counts}


def offset_at(stream: Stream, position: int) -> str:
    """Return the offset of a position in bytes."""
    names = ("id", "path", "content_type", "generation")
    fields = {name: getattr(stream, name) for name in names}
    info = StreamInfo(**fields, fork_position=stream.fork_position, lineage=stream.lineage)
    return lineage.around(info, stream._alias(), position, position).token(position)


def append(stream: StreamMethods, data: bytes, **options: Any) -> Appended:
    """Append encoded data, or close the stream, or both. See `Stream.append`."""
    result = transactions.apply(_append_operation(stream, data, **options), stream._alias())
    assert isinstance(result, Appended)
    _update(stream, result)
    return result


def _append_operation(
    stream: StreamMethods,
    data: bytes,
    *,
    close: bool = False,
    seq: str | None = None,
    producer: Producer | None = None,
    if_tail: str | None = None,
) -> Append:
    if not data and not close:
        raise EmptyAppend("There is nothing to append.")
    claim = server_claim(producer) if producer is not None else None
    if seq is not None:
        seq = arguments.opaque("seq", seq)
    expected_tail = None if if_tail is None else arguments.exact_offset(if_tail, "if_tail")
    return Append(
        stream.path,
        stream.content_type,
        data,
        bool(close),
        seq,
        claim,
        stream_id=stream._expected(),
        if_tail=expected_tail,
    )


def append_value(stream: StreamMethods, value: Data, **options: Any) -> Appended:
    """Append one message. See `Stream.append`."""
    return append(stream, encode(stream.content_type, value), **options)


async def aappend_value(stream: StreamMethods, value: Data, options: dict[str, Any]) -> Appended:
    """Append one message from asynchronous code. See `Stream.aappend`."""
    return await shared_appends.append(stream, value, options, _value_operation)


def _value_operation(stream: StreamMethods, value: Data, options: dict[str, Any]) -> Append:
    return _append_operation(stream, encode(stream.content_type, value), **options)


def append_many(
    stream: StreamMethods, values: Iterable[Data], batch_bytes: int | None, producer: Producer | None
) -> int:
    """Append many messages in one transaction, and return their number. See `Stream.append_many`."""
    total = 0

    def encoded() -> Iterator[bytes]:
        nonlocal total
        for value in values:
            total += 1
            yield encode(stream.content_type, value)

    claims = _claims(server_claim(producer)) if producer is not None else None
    portions = _portions(encoded(), batch_bytes or config().page_bytes)
    appends = (_appends(stream, portion, claims) for portion in portions)
    result = transactions.append_all(appends, stream._alias())
    if result is not None:
        _update(stream, result)
    return total


def delete(stream: StreamMethods, using: str | None) -> tuple[int, dict[str, int]]:
    """Delete a stream. See `Stream.delete`."""
    alias = using or stream._alias()
    if deletion.is_under_way(stream, alias):
        return 0, {}
    stream._expected()
    count, related_counts = deletion.delete([stream], alias, must_exist=True)
    return count + sum(related_counts.values()), {stream._meta.label: count, **related_counts}


def set_lifetime(stream: StreamMethods, ttl: int | None, expires_at: datetime | None) -> None:
    """Give a stream another lifetime. See `Stream.set_lifetime`."""
    ttl, expires_at = lifetime_of(ttl, expires_at)
    transactions.apply(SetLifetime(stream.path, ttl, expires_at, stream._expected()), stream._alias())
    stream.ttl, stream.expires_at = ttl, expires_at


def fork(
    stream: S,
    path: str,
    *,
    offset: str | None,
    sub_offset: int,
    lifetime: Lifetime,
    data: Data,
) -> S:
    """Create a stream that begins with the data of another one. See `Stream.fork`."""
    cut, past_cut = arguments.fork_offset(offset), arguments.sub_offset(sub_offset)
    source = Fork(stream.path, cut, past_cut, stream._expected())
    ttl, expires_at = lifetime_of(*lifetime)
    initial = encode_initial(stream.content_type, data)
    operation = Create(arguments.path(path), stream.content_type, ttl, expires_at, data=initial, fork=source)
    return transactions.create(operation, stream._alias(), type(stream))


def pages(stream: StreamMethods, offset: str) -> Iterator[list[Data]]:
    """Yield the messages past an offset, up to the tail, page by page. See `Stream.read`."""
    stream_id, using = stream._expected(), stream._alias()
    start = arguments.offset(offset)
    if start is offsets.Sentinel.NOW:
        transactions.find(stream.path, using, stream_id)
        return
    for page in transactions.pages(stream.path, stream_id, start, using, config().page_bytes):
        yield page.messages


def read_last(stream: StreamMethods, count: int, before: str, max_bytes: int) -> LastPage:
    """Return the last messages, or the last ones before an offset. See `Stream.read_last`."""
    return last_page.read_last(stream.path, stream._expected(), count, before, max_bytes, stream._alias())


def tail(stream: StreamMethods, offset: str, timeout: float | None) -> Iterator[Page]:
    """Yield pages of existing messages, then of new ones. See `Stream.tail`."""
    return follow_in_thread(stream.path, stream._expected(), offset, stream._alias(), timeout)


def atail(stream: StreamMethods, offset: str, timeout: float | None) -> AsyncIterator[Page]:
    """Yield the same pages for asynchronous code. See `Stream.atail`."""
    return follow(stream.path, stream._expected(), offset, stream._alias(), timeout)


def writer(stream: StreamMethods, **options: Unpack[WriterOptions]) -> SyncWriter:
    """Return a writer for synchronous code. See `Stream.writer`."""
    stream._expected()
    using = stream._alias()
    return SyncWriter(Writer(stream, using, **options), using)


def awriter(stream: StreamMethods, **options: Unpack[WriterOptions]) -> Writer:
    """Return a writer for asynchronous code. See `Stream.awriter`."""
    stream._expected()
    return Writer(stream, stream._alias(), **options)


def _appends(stream: StreamMethods, encoded: list[bytes], claims: Iterator[ProducerClaim] | None) -> list[Append]:
    """Return the appends for encoded messages: one append in JSON mode without claims, else one for each message."""
    if not all(encoded):
        raise EmptyAppend("There is nothing to append.")
    path, content_type, stream_id = stream.path, stream.content_type, stream._expected()
    if claims is not None:
        return [Append(path, content_type, data, producer=next(claims), stream_id=stream_id) for data in encoded]
    parts = [b"".join(encoded)] if content.is_json(content_type) else encoded
    return [Append(path, content_type, data, stream_id=stream_id) for data in parts]


def _update(stream: StreamMethods, result: Appended) -> None:
    stream.tail_position = result.tail
    stream.closed = result.closed


def _claims(first: ProducerClaim) -> Iterator[ProducerClaim]:
    """Yield a producer's claims, from the first one on."""
    return (first._replace(seq=seq) for seq in count(first.seq))


def _portions(parts: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yield parts in lists of about `size` bytes."""
    portion: list[bytes] = []
    collected = 0
    for part in parts:
        portion.append(part)
        collected += len(part)
        if collected >= size or len(portion) >= MAX_PORTION_MESSAGES:
            yield portion
            portion, collected = [], 0
    if portion:
        yield portion
