"""One stream inside a batch: a working copy of its row, and the protocol's rules for the changes to it.

The rules for new streams are in `stream_creation`. Knows no database: `batch` loads and saves these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from ...models.stream import LinkState
from ...protocol import content, headers, offsets
from ...protocol.errors import (
    ContentTypeMismatch,
    Header,
    OffsetOutOfRange,
    SequenceConflict,
    StreamClosed,
    TailMismatch,
)
from ...protocol.offsets import Offset
from ...protocol.producers import ProducerClaim, ProducerState, advance
from .. import lifetime
from ..operations import Append, Appended, Commit, Created, Delete, TakenOver, TakeOver, Trimmed
from ..stream_info import StreamInfo


class StreamState:
    """A stream's row while a batch works on it, and what has changed since it was loaded or last saved."""

    __slots__ = (
        "appends",
        "changed",
        "changed_producers",
        "closed",
        "closed_by",
        "content_type",
        "deadline",
        "deleted_at",
        "ends",
        "expired",
        "expires_at",
        "first_position",
        "fork_position",
        "generation",
        "id",
        "last_seq",
        "lifetime_changed",
        "lineage",
        "link_state",
        "path",
        "producers",
        "row_version",
        "source_id",
        "start",
        "tail",
        "trimmed",
        "ttl",
        "was_closed",
    )

    def __init__(self, info: StreamInfo) -> None:
        (
            self.id,  # 0 until the row is inserted
            self.path,
            self.content_type,
            self.generation,
            self.tail,
            self.closed,
            self.closed_by,
            self.last_seq,
            self.ttl,
            self.expires_at,
            self.deadline,
            self.first_position,
            self.source_id,
            self.fork_position,
            self.lineage,
            self.deleted_at,
            self.link_state,
        ) = info
        # The row, as it was last saved.
        self.start = self.tail
        self.was_closed = self.closed
        self.row_version: int | None = None  # where rows have versions, and this connection wrote the row
        # The changes since then.
        self.changed = False
        self.lifetime_changed = False
        self.trimmed = False
        self.expired = False
        self.appends: list[bytes] = []
        self.ends: list[int] = []  # the position after each append
        self.changed_producers: dict[str, bool] = {}  # by producer id, whether the producer is new
        self.producers: dict[str, ProducerState] = {}  # only those that were loaded

    def add(self, data: bytes) -> None:
        """Append data, without any rule."""
        self.appends.append(data)
        self.tail += len(data)
        self.ends.append(self.tail)
        if self.link_state is not None:
            self.link_state = LinkState.UNSEEN.value

    def created_result(self, *, created: bool) -> Created:
        """Return the result of a create.

        Args:
            created: whether the create made the stream, or confirmed an existing one.
        """
        return Created(created, self.content_type, self.tail, self.closed, self.generation_at(self.tail))

    def append(self, operation: Append, now: datetime) -> Appended:
        """Append, close, or both, with the checks in the order of section 5.2.

        Raises:
            StreamClosed, ContentTypeMismatch, SequenceConflict: 409.
            TailMismatch: the condition of the operation does not hold (412).
            ProducerFenced, InvalidEpoch, ProducerSequenceGap: see `protocol.producers`.
            BadRequest: the defect that the operation carries.
        """
        claim = operation.producer
        if self.closed:
            return self._append_closed(operation, claim)
        if operation.data or operation.defect is not None:
            kind = operation.content_type
            if kind != self.content_type and (kind is None or not content.same_type(kind, self.content_type)):
                raise ContentTypeMismatch(f"This stream's content type is {self.content_type}.")
            if operation.defect is not None:
                raise operation.defect
        if claim is not None:
            producer = self.producers.get(claim.id)
            accepted = advance(producer, claim, operation.count)
            if accepted is None:
                assert producer is not None
                return self._appended(producer.epoch, producer.seq, duplicate=True)
        if operation.if_tail is not None:
            self._check_tail(operation.if_tail)
        if operation.seq is not None:
            self._check_seq(operation.seq)
            self.last_seq = operation.seq
        if claim is not None:
            assert accepted is not None
            self._set_producer(claim.id, accepted)
        if operation.data:
            self.add(operation.data)
        if operation.close:
            self.closed = True
            self.closed_by = _closing_claim(claim) if claim is not None else ""
            if self.link_state is not None and content.holds_text(self.content_type):
                self.link_state = LinkState.UNSEEN.value  # an incomplete character at the end is a message from now on
        if self.ttl is not None:
            self.deadline = lifetime.deadline(self.ttl, self.expires_at, now)
        self.changed = True
        if claim is not None:
            return self._appended(claim.epoch, claim.seq + operation.count - 1)
        if self.lineage is None:  # most appends: a batch has hundreds
            return Appended(self.tail, self.closed, False, None, None, self.generation)
        return self._appended()

    def _append_closed(self, operation: Append, claim: ProducerClaim | None) -> Appended:
        """Append to a closed stream: only the operation that closed it, or another plain close, succeeds."""
        if claim is not None and self.closed_by == _closing_claim(claim):
            producer = self.producers.get(claim.id)
            return self._appended(claim.epoch, producer.seq if producer is not None else claim.seq, duplicate=True)
        if operation.close and not operation.data and operation.defect is None and claim is None:
            if operation.if_tail is not None:
                self._check_tail(operation.if_tail)
            return self._appended()
        raise StreamClosed("The stream has ended; nothing can be appended to it.", self._tail_headers())

    def _tail_headers(self) -> tuple[Header, ...]:
        """Return the headers of a refusal from which a client learns the present tail."""
        at_tail = (headers.STREAM_NEXT_OFFSET, offsets.encode_bytes(self.generation_at(self.tail), self.tail))
        return ((headers.STREAM_CLOSED, b"true"), at_tail) if self.closed else (at_tail,)

    def _check_tail(self, expected: Offset) -> None:
        # At position 0 all streams have the same token, whatever their generation.
        if expected != (self.generation_at(self.tail) if self.tail else 0, self.tail):
            token = offsets.encode(self.generation_at(self.tail), self.tail)
            raise TailMismatch(
                f"The stream's tail is at {token}, and not at {expected}. Read what was appended, then try again.",
                self._tail_headers(),
                next_offset=token,
            )

    def check_deletion(self, operation: Delete) -> None:
        """Check the condition of a deletion.

        Raises:
            TailMismatch: it does not hold.
        """
        if operation.if_tail not in (None, self.tail):
            raise TailMismatch("The stream was appended to meanwhile, and was not deleted.")

    def _check_seq(self, seq: str) -> None:
        # Python compares text by code points, which is the byte-wise order that the specification requires.
        if self.last_seq is not None and seq <= self.last_seq:
            raise SequenceConflict(f"The last Stream-Seq was {self.last_seq!r}; the next one must be greater.")

    def _appended(self, epoch: int | None = None, seq: int | None = None, *, duplicate: bool = False) -> Appended:
        return Appended(self.tail, self.closed, duplicate, epoch, seq, self.generation_at(self.tail))

    def take_over(self, operation: TakeOver) -> TakenOver:
        """Begin a producer's next epoch. The first epoch begins before the first append, with -1 as its last number."""
        producer = self.producers.get(operation.producer_id)
        state = ProducerState(0, -1) if producer is None else ProducerState(producer.epoch + 1, producer.seq)
        if not self.closed:
            self._set_producer(operation.producer_id, state)
            self.changed = True
        return TakenOver(state.epoch, state.seq, self.tail, self.closed)

    def _set_producer(self, producer_id: str, state: ProducerState) -> None:
        if producer_id not in self.changed_producers:
            self.changed_producers[producer_id] = producer_id not in self.producers
        self.producers[producer_id] = state

    def touch(self, moment: datetime) -> None:
        """Restart the TTL at the moment of a read."""
        if lifetime.needs_touch(self.ttl, self.deadline, moment):
            self.deadline = lifetime.deadline(self.ttl, self.expires_at, moment)
            self.changed = True

    def set_lifetime(self, ttl: int | None, expires_at: datetime | None, now: datetime) -> None:
        """Set another TTL, in seconds, or another expiry. The TTL starts now."""
        self.ttl, self.expires_at = ttl, expires_at
        self.deadline = lifetime.deadline(ttl, expires_at, now)
        self.changed = self.lifetime_changed = True

    def trim(self, position: int) -> Trimmed:
        """Retain the data from a position on. An earlier trim may have gone further.

        Raises:
            OffsetOutOfRange: the position is past the tail.
        """
        if position > self.tail:
            raise OffsetOutOfRange("A stream cannot be trimmed past its tail.")
        if position > self.first_position:
            self.first_position = position
            self.changed = self.trimmed = True
        return Trimmed(self.first_position)

    def info(self) -> StreamInfo:
        """Return the stream as its readers see it."""
        return StreamInfo(
            self.id,
            self.path,
            self.content_type,
            self.generation,
            self.tail,
            self.closed,
            first_position=self.first_position,
            fork_position=self.fork_position,
            lineage=self.lineage,
        )

    def generation_at(self, position: int) -> int:
        """Return the generation of the stream to which the byte before a position was appended."""
        if self.lineage is None:
            return self.generation
        return self.info().generation_at(position)

    @property
    def has_visible_changes(self) -> bool:
        """Whether readers see a difference. Changes of the TTL and of producers are invisible to them."""
        return self.tail != self.start or self.closed != self.was_closed

    @property
    def is_plain(self) -> bool:
        """Whether an append without conditions depends on nothing but that the stream exists and is open."""
        return (
            self.last_seq is None
            and self.deadline is None
            and self.link_state is None
            and self.lineage is None
            and not self.closed
            and not self.producers
        )

    def move(self, size: int) -> None:
        """Move the changes since the last save behind so many bytes, which others have appended meanwhile."""
        self.start += size
        self.tail += size
        self.ends = [end + size for end in self.ends]

    def commit(self, *, created: bool = False) -> Commit:
        """Return the changes since the last save.

        Args:
            created: whether the stream itself is new.
        """
        closes = self.closed and (created or not self.was_closed)
        return Commit(
            self.id,
            self.path,
            self.content_type,
            self.start,
            self.tail,
            self.closed,
            appends=self.appends if self.ends else (),
            ends=self.ends if self.ends else (),
            created=created,
            closes=closes,
            generation=self.generation,
            generation_before=self.generation if self.lineage is None else self.generation_at(self.start),
            concerns_delivery=self.link_state is not None,
        )

    def removal(self) -> Commit:
        """Return the change that ends the stream."""
        return Commit(
            self.id,
            self.path,
            self.content_type,
            self.tail,
            self.tail,
            self.closed,
            removed=True,
            expired=self.expired,
            generation=self.generation,
        )

    def mark_saved(self) -> None:
        """Record that the row in the database has all changes."""
        self.start = self.tail
        self.was_closed = self.closed
        self.changed = self.lifetime_changed = self.trimmed = False
        if self.ends:  # new lists, because the commit has these
            self.appends = []
            self.ends = []
        if self.changed_producers:
            self.changed_producers.clear()


def add_producers(states: Mapping[int, StreamState], rows: Iterable[Sequence[Any]]) -> None:
    """Add loaded producers, (stream id, producer id, epoch, seq) each, to their streams, which are given by id."""
    for stream_id, producer_id, epoch, seq in rows:
        if stream_id in states:  # on PostgreSQL the rows may be of a stream that another transaction holds
            states[stream_id].producers[producer_id] = ProducerState(epoch, seq)


def _closing_claim(claim: ProducerClaim) -> str:
    """Return the text by which a row names the producer's operation that closed the stream."""
    return f"{claim.epoch}:{claim.seq}:{claim.id}"
