"""The operations on streams as values, their results, and the changes that a commit reports.

An operation names a path. `stream_id` restricts it to one stream: a stream that was deleted and created again at the
path is another one (`batch.expect`). Knows no table.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, final

from ..protocol import offsets
from ..protocol.errors import DurableStreamsError
from ..protocol.offsets import Offset
from ..protocol.producers import ProducerClaim


class _WithoutData:
    """An operation that stores no data."""

    __slots__ = ()
    data: ClassVar[bytes] = b""


@dataclass(slots=True)
class Fork:
    """The beginning of a new stream: the data of another stream up to a cut (section 4.2).

    Attributes:
        source: path of the other stream.
        offset: an offset of the source. None: its tail.
        sub_offset: messages in JSON mode, bytes otherwise, from the offset to the cut.
        source_id: see above.
    """

    source: str
    offset: Offset | None = None
    sub_offset: int = 0
    source_id: int | None = None


@final
@dataclass(slots=True)
class Create:
    """Create a stream, or confirm that it exists with this configuration (section 5.1).

    Attributes:
        path: the path.
        content_type: the content type. None only for a fork, which then has the source's.
        ttl: seconds since the last use after which it ends.
        expires_at: the time at which it ends.
        closed: whether nothing can be appended later.
        data: the initial content as it is stored (see `protocol.content.pack_initial`). Without a content type, the
            body as it was received: the source's content type decides how it is stored.
        defect: the reason why the body has no valid content. Raised only if the stream is created, because a repeated
            PUT needs no body.
        fork: the source of a fork.
    """

    path: str
    content_type: str | None
    ttl: int | None = None
    expires_at: datetime | None = None
    closed: bool = False
    data: bytes = b""
    defect: DurableStreamsError | None = None
    fork: Fork | None = None


@dataclass(slots=True)
class Append:
    """Append to a stream, close it, or both in one step (sections 5.2 and 5.3).

    Attributes:
        path: the path.
        content_type: the content type of the body, which must be the stream's.
        data: the data of one append as it is stored (see `protocol.content.pack`). Empty to close only.
        close: whether nothing can be appended afterwards.
        seq: the `Stream-Seq` header.
        producer: the producer's epoch and sequence number.
        defect: the reason why the body is invalid. Raised after the checks that the specification requires first: the
            stream exists, is open, and has this content type.
        stream_id: see above.
        if_tail: the offset at which the tail must be. None: anywhere.
        count: how many of the producer's sequence numbers the append takes. A writer's messages have one each.
    """

    path: str
    content_type: str | None
    data: bytes
    close: bool = False
    seq: str | None = None
    producer: ProducerClaim | None = None
    defect: DurableStreamsError | None = None
    stream_id: int | None = None
    if_tail: Offset | None = None
    count: int = 1


@dataclass(slots=True)
class Delete(_WithoutData):
    """Delete a stream (section 5.4).

    Attributes:
        path: the path.
        stream_id: see above.
        if_tail: the position at which the tail must be. None: anywhere.
    """

    path: str
    stream_id: int | None = None
    if_tail: int | None = None


@dataclass(slots=True)
class Touch(_WithoutData):
    """Restart a stream's TTL at the moment of a read. The read does not wait for it (section 5.1, `Stream-TTL`)."""

    path: str
    moment: datetime
    stream_id: int | None = None


@dataclass(slots=True)
class SetLifetime(_WithoutData):
    """Set another TTL of a stream, in seconds, or another expiry. Without both, the stream never ends by itself."""

    path: str
    ttl: int | None
    expires_at: datetime | None
    stream_id: int | None = None


@dataclass(slots=True)
class Trim(_WithoutData):
    """Retain a stream's data from a position on. Nobody reads the data before it any more, except for existing forks.

    The position is where an append begins, or, in a text, where a character does (`read.boundaries`).
    """

    path: str
    position: int
    stream_id: int | None = None


@dataclass(slots=True)
class Trimmed:
    """The result of a trim: the first retained position, which may have been greater before."""

    first_position: int


@dataclass(slots=True)
class TakeOver(_WithoutData):
    """Begin a producer's next epoch, which fences writers with earlier epochs (section 5.2.1).

    The sequence numbers continue, unlike those of an epoch that a client begins: they count the producer's appends. The
    first epoch begins before the first append, too. That separates two writers that begin at the same time.
    """

    path: str
    producer_id: str
    stream_id: int | None = None


@final
@dataclass(slots=True)
class MoveEntries(_WithoutData):
    """Move the oldest entries of changes into the registry, and create it if it is missing. Only the server does this.

    Attributes:
        path: the path of the registry.
        limit: the largest number of entries.
    """

    path: str
    limit: int


Operation = Create | Append | Delete | Touch | SetLifetime | Trim | TakeOver | MoveEntries


def names_in(operations: Iterable[Operation]) -> tuple[set[str], set[tuple[str, str]]]:
    """Return the paths of all streams that operations name, and the path and producer id of all producers."""
    paths: set[str] = set()
    producers: set[tuple[str, str]] = set()
    for operation in operations:
        paths.add(operation.path)
        if type(operation) is Append:
            if operation.producer is not None:
                producers.add((operation.path, operation.producer.id))
        elif type(operation) is Create:
            if operation.fork is not None:
                paths.add(operation.fork.source)
        elif type(operation) is TakeOver:
            producers.add((operation.path, operation.producer_id))
    return paths, producers


@dataclass(slots=True)
class Created:
    """The result of a create. `created` is False if the stream existed. `generation` is as in `Appended`."""

    created: bool
    content_type: str
    tail: int
    closed: bool
    generation: int = 0

    @property
    def offset(self) -> str:
        """The offset after the last byte (`Stream-Next-Offset`)."""
        return offsets.encode(self.generation, self.tail)


@dataclass(slots=True)
class Appended:
    """The result of an append. `duplicate` says that an earlier request of the producer had appended the data.

    `generation` is the generation of the stream to which the byte before `tail` was appended.
    """

    tail: int
    closed: bool
    duplicate: bool = False
    producer_epoch: int | None = None
    producer_seq: int | None = None
    generation: int = 0

    @property
    def offset(self) -> str:
        """The offset after the last byte (`Stream-Next-Offset`)."""
        return offsets.encode(self.generation, self.tail)


@dataclass(slots=True)
class TakenOver:
    """The result of a takeover: the new epoch, and the last accepted sequence number, -1 for none.

    A closed stream is not changed, because nothing can be appended to it.
    """

    epoch: int
    seq: int
    tail: int
    closed: bool


@dataclass(slots=True)
class Done:
    """The result of a delete, a touch or a change of the lifetime."""


@dataclass(slots=True)
class Moved:
    """The result of `MoveEntries`: how many entries were moved. The limit: there may be more."""

    count: int


Result = Created | Appended | Trimmed | TakenOver | Done | Moved


@dataclass(slots=True)
class Commit:
    """The change of one stream by one batch, for live readers and signals.

    `appends` are the bytes from `start` to `tail`, and `ends` the positions at which the appends end. Both are empty
    if the data is too large to be passed on. `generation` is the stream's own. `generation_before` is the generation of
    the stream to which the byte before `start` was appended: in a fork, maybe a source. `closed` is the state after the
    change, and `closes` says whether this change closed the stream. `concerns_delivery`: whether the delivery has work
    with it, because a subscription follows the stream, or because the registry tells of the change.
    """

    stream_id: int
    path: str
    content_type: str
    start: int
    tail: int
    closed: bool
    removed: bool = False
    appends: Sequence[bytes] = ()
    ends: Sequence[int] = ()
    created: bool = False
    closes: bool = False
    expired: bool = False
    generation: int = 0
    generation_before: int = 0
    concerns_delivery: bool = False

    @property
    def offset(self) -> str:
        """The offset at which the change begins."""
        return offsets.encode(self.generation_before, self.start)

    @property
    def next_offset(self) -> str:
        """The offset after it."""
        return offsets.encode(self.generation if self.tail > self.start else self.generation_before, self.tail)

    def data(self) -> bytes:
        """Return the joined appends. Not joined before, because most streams have no live reader."""
        return b"".join(self.appends)
