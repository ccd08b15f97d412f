"""What can be done to streams, as values: the operations that a batch applies and their results.

An operation names a path. Where it is meant for one stream, and not for whichever is there, `stream_id` says so: a
stream that was deleted and made anew is another one (`batch.expect`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import final

from ..protocol import offsets
from ..protocol.errors import DurableStreamsError
from ..protocol.offsets import Offset
from ..protocol.producers import ProducerClaim


@dataclass(slots=True)
class Fork:
    """What a stream is to begin with: another stream, up to a position (specification, section 4.2).

    `offset` is one of the source's, None for its tail; `sub_offset` counts messages in JSON mode and bytes otherwise.
    """

    source: str
    offset: Offset | None = None
    sub_offset: int = 0
    source_id: int | None = None


@final
@dataclass(slots=True)
class Create:
    """Make a stream, or see that it is there with this configuration (specification, section 5.1).

    `data` is the initial content as it is stored (see `protocol.content.pack_initial`). Where it could not be made,
    `defect` says why, and is raised only if the stream has to be made: a repeated PUT needs no body. Without a content
    type, as only a fork can be, `data` is the body as it came, since how to store it is for the source to say.
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
    """Append to a stream, close it, or both in one step (sections 5.2 and 5.3). Without data it only closes.

    `data` is what is stored (see `protocol.content.pack`), all of it one append. A `defect` of the body is raised
    after the checks that the specification puts before it: the stream exists, is open, and is of this type.
    """

    path: str
    content_type: str | None
    data: bytes
    close: bool = False
    seq: str | None = None
    producer: ProducerClaim | None = None
    defect: DurableStreamsError | None = None
    stream_id: int | None = None


@dataclass(slots=True)
class Delete:
    """Delete a stream (section 5.4)."""

    path: str
    stream_id: int | None = None


@dataclass(slots=True)
class Touch:
    """Start a stream's TTL anew at the moment of a read, which does not wait for this (section 5.1, `Stream-TTL`)."""

    path: str
    moment: datetime
    stream_id: int | None = None


@dataclass(slots=True)
class SetLifetime:
    """Give a stream another TTL, in seconds, or another expiry; without either it lives until it is deleted."""

    path: str
    ttl: int | None
    expires_at: datetime | None
    stream_id: int | None = None


@dataclass(slots=True)
class TakeOver:
    """Begin a producer's next epoch, so that whoever still writes with the last one is fenced (section 5.2.1).

    Its sequence numbers go on, unlike those of an epoch that a client begins: they count what it has appended so far.
    The first epoch begins at once too, before the first append, so that two who begin at the same time are told apart.
    """

    path: str
    producer_id: str
    stream_id: int | None = None


Operation = Create | Append | Delete | Touch | SetLifetime | TakeOver


@dataclass(slots=True)
class Created:
    """A stream is there: made now (`created`), or found as asked for. `generation`: see `StreamInfo.generation_at`."""

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
    """An append is in the stream; `duplicate` where an earlier request of the producer had put it there.

    `generation` is that of the stream to which the byte before `tail` was appended.
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
    """A producer's epoch has begun. `seq` is the last sequence number accepted, -1 for none.

    A closed stream is left as it is: there is nothing to fence.
    """

    epoch: int
    seq: int
    tail: int
    closed: bool


@dataclass(slots=True)
class Done:
    """A delete, a touch or a change of the lifetime has happened."""


Result = Created | Appended | TakenOver | Done


@dataclass(slots=True)
class Commit:
    """What a batch changed in one stream, for those who wait on it.

    `appends` are the bytes from `start` to `tail`; `ends` the positions at which its appends end. Both are empty where
    the data is too much to be handed around. `generation` is the stream's own, and `generation_before` that of the
    stream to which the byte before `start` was appended, which may be one that this was forked from. `closed` is how
    the stream is now, `closes` whether it came to that here.
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

    @property
    def offset(self) -> str:
        """The offset at which the change begins."""
        return offsets.encode(self.generation_before, self.start)

    @property
    def next_offset(self) -> str:
        """The offset after it."""
        return offsets.encode(self.generation if self.tail > self.start else self.generation_before, self.tail)

    def data(self) -> bytes:
        """Return the appends as one. That is left to those who need it: most streams have nobody who waits."""
        return b"".join(self.appends)
