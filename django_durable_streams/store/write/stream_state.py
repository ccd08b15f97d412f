"""One stream inside a batch: a working copy of its row, and the rules by which operations change it.

No database is touched here: `writing` loads these, applies operations to them in order, and stores the outcome.
"""

from __future__ import annotations

from datetime import datetime

from ...protocol import content, headers, offsets
from ...protocol.errors import ContentTypeMismatch, SequenceConflict, StreamClosed, StreamExists
from ...protocol.producers import ProducerClaim, ProducerState, advance
from .. import lifetime
from ..operations import Append, Appended, Commit, Create, Created, TakenOver, TakeOver
from ..read.lineage import of_fork
from ..stream_info import StreamInfo


class StreamState:
    """A stream's row while a batch works on it."""

    __slots__ = (
        "changed",
        "changed_producers",
        "closed",
        "closed_by",
        "content_type",
        "data",
        "deadline",
        "deleted_at",
        "ends",
        "expired",
        "expires_at",
        "fork_position",
        "generation",
        "id",
        "last_seq",
        "lifetime_changed",
        "lineage",
        "path",
        "producers",
        "source_id",
        "start",
        "tail",
        "ttl",
        "version",
        "was_closed",
    )

    def __init__(self, info: StreamInfo) -> None:
        (
            self.id,  # 0 until the row is there
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
            _,
            self.source_id,
            self.fork_position,
            self.lineage,
            self.deleted_at,
        ) = info
        self.start = self.tail
        self.was_closed = self.closed
        self.version: int | None = None  # of its row, where the database has them and this connection wrote it
        self.changed = False
        self.lifetime_changed = False
        self.expired = False
        self.data: list[bytes] = []
        self.ends: list[int] = []
        self.producers: dict[str, ProducerState] = {}
        self.changed_producers: dict[str, bool] = {}  # and whether each is new

    @classmethod
    def make(cls, operation: Create, now: datetime, after: int = 0) -> StreamState:
        """Return a new stream as a create asks for it, its initial content included.

        Args:
            after: its generation is a greater one: that of the stream that was at its path in the same moment.
        """
        state = cls(new_info(operation, now, after))
        state._begin(operation)
        return state

    @classmethod
    def make_fork(cls, operation: Create, source: StreamState, cut: int, now: datetime, after: int = 0) -> StreamState:
        """Return a new stream that begins with another one's data up to `cut`.

        Raises:
            ContentTypeMismatch: a content type is given, and is not the source's (409).
        """
        if operation.content_type is not None and not content.same_type(operation.content_type, source.content_type):
            raise ContentTypeMismatch(f"The content type of the source is {source.content_type}.")
        ttl, expires_at = _fork_lifetime(operation, source)
        state = cls(
            StreamInfo(
                0,
                operation.path,
                operation.content_type or source.content_type,
                offsets.new_generation(max(after, source.generation)),
                tail=cut,
                closed=operation.closed,
                ttl=ttl,
                expires_at=expires_at,
                deadline=lifetime.deadline(ttl, expires_at, now),
                source_id=source.id,
                fork_position=cut,
                lineage=of_fork(source.info(), cut),
            )
        )
        state._begin(operation)
        return state

    def _begin(self, operation: Create) -> None:
        if operation.defect is not None:
            raise operation.defect
        data = operation.data
        if operation.content_type is None:
            data = content.pack_initial(self.content_type, data)
        if data:
            self._add(data)

    def confirm(self, operation: Create) -> Created:
        """Answer a create for a path that has this stream (section 5.1).

        Raises:
            StreamExists: the configuration is another one.
        """
        if (
            self.source_id is not None
            or not content.same_type(operation.content_type or content.DEFAULT_CONTENT_TYPE, self.content_type)
            or (operation.ttl, operation.expires_at) != (self.ttl, self.expires_at)
            or operation.closed != self.closed
        ):
            raise self._exists()
        return self.describe(created=False)

    def confirm_fork(self, operation: Create, source: StreamState | None, cut: int | None) -> Created:
        """Answer a create of a fork for a path that has this stream (section 4.2, "Idempotent fork creation").

        Args:
            source: the stream that the request names, if there is one.
            cut: where the request wants it cut. None for the source's tail: that moves on, and a request that is
                only repeated must not fail for it.

        Raises:
            StreamExists: the configuration is another one.
        """
        if (
            source is None
            or self.source_id != source.id
            or (cut is not None and cut != self.fork_position)
            or not content.same_type(operation.content_type or source.content_type, self.content_type)
            or (self.ttl, self.expires_at) != _fork_lifetime(operation, source)
            or operation.closed != self.closed
        ):
            raise self._exists()
        return self.describe(created=False)

    def _exists(self) -> StreamExists:
        return StreamExists(
            "There is a stream at this path whose content type, TTL, expiry, closure or source is another one. "
            "Use another path, or delete that stream first.",
            ((headers.STREAM_CLOSED, b"true"),) if self.closed else (),
        )

    def describe(self, *, created: bool) -> Created:
        """Return the answer to a create."""
        return Created(created, self.content_type, self.tail, self.closed, self.generation_at(self.tail))

    def append(self, operation: Append, now: datetime) -> Appended:
        """Append, close, or both, by the rules and in the order of section 5.2.

        Raises:
            StreamClosed, ContentTypeMismatch, SequenceConflict: 409.
            ProducerFenced, InvalidEpoch, ProducerSequenceGap: see `protocol.producers`.
            BadRequest: the defect that the operation carries.
        """
        claim = operation.producer
        if self.closed:
            return self._append_closed(operation, claim)
        if operation.data or operation.defect is not None:
            if operation.content_type is None or not content.same_type(operation.content_type, self.content_type):
                raise ContentTypeMismatch(f"This stream's content type is {self.content_type}.")
            if operation.defect is not None:
                raise operation.defect
        if claim is not None:
            known = self.producers.get(claim.id)
            accepted = advance(known, claim)
            if accepted is None:
                assert known is not None
                return self._appended(known.epoch, known.seq, duplicate=True)
        if operation.seq is not None:
            self._check_seq(operation.seq)
            self.last_seq = operation.seq
        if claim is not None:
            assert accepted is not None
            self._remember(claim.id, accepted)
        if operation.data:
            self._add(operation.data)
        if operation.close:
            self.closed = True
            self.closed_by = _signature(claim) if claim is not None else ""
        if self.ttl is not None:
            self.deadline = lifetime.deadline(self.ttl, self.expires_at, now)
        self.changed = True
        return self._appended() if claim is None else self._appended(claim.epoch, claim.seq)

    def _appended(self, epoch: int | None = None, seq: int | None = None, *, duplicate: bool = False) -> Appended:
        return Appended(self.tail, self.closed, duplicate, epoch, seq, self.generation_at(self.tail))

    def generation_at(self, position: int) -> int:
        """Return the generation of the stream to which the byte before a position was appended."""
        if self.lineage is None:
            return self.generation
        return self.info().generation_at(position)

    def take_over(self, operation: TakeOver) -> TakenOver:
        """Begin a producer's next epoch. The first has no append behind it: its last sequence number is -1."""
        known = self.producers.get(operation.producer_id)
        state = ProducerState(0, -1) if known is None else ProducerState(known.epoch + 1, known.seq)
        if not self.closed:
            self._remember(operation.producer_id, state)
            self.changed = True
        return TakenOver(state.epoch, state.seq, self.tail, self.closed)

    def _remember(self, producer_id: str, state: ProducerState) -> None:
        if producer_id not in self.changed_producers:
            self.changed_producers[producer_id] = producer_id not in self.producers
        self.producers[producer_id] = state

    def touch(self, moment: datetime) -> None:
        """Start the TTL anew at the moment of a read."""
        if lifetime.needs_touch(self.ttl, self.deadline, moment):
            self.deadline = lifetime.deadline(self.ttl, self.expires_at, moment)
            self.changed = True

    def set_lifetime(self, ttl: int | None, expires_at: datetime | None, now: datetime) -> None:
        """Give it another lifetime, which begins now."""
        self.ttl, self.expires_at = ttl, expires_at
        self.deadline = lifetime.deadline(ttl, expires_at, now)
        self.changed = self.lifetime_changed = True

    def info(self) -> StreamInfo:
        """Return the stream as readers of its data see it."""
        return StreamInfo(
            self.id,
            self.path,
            self.content_type,
            self.generation,
            self.tail,
            self.closed,
            fork_position=self.fork_position,
            lineage=self.lineage,
        )

    def commit(self, *, created: bool = False) -> Commit:
        """Return what has changed since the last time the stream was saved."""
        closes = self.closed and (created or not self.was_closed)
        return Commit(
            self.id,
            self.path,
            self.content_type,
            self.start,
            self.tail,
            self.closed,
            appends=self.data if self.ends else (),
            ends=self.ends if self.ends else (),
            created=created,
            closes=closes,
            generation=self.generation,
            generation_before=self.generation_at(self.start),
        )

    @property
    def has_news(self) -> bool:
        """Whether readers see a difference: a stream may also be changed in its TTL or its producers only."""
        return self.tail != self.start or self.closed != self.was_closed

    def removal(self) -> Commit:
        """Return that the stream is no more."""
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

    def saved(self) -> None:
        """Take note that the database has it all."""
        self.start = self.tail
        self.was_closed = self.closed
        self.changed = self.lifetime_changed = False
        if self.ends:  # the commit has these
            self.data = []
            self.ends = []
        if self.changed_producers:
            self.changed_producers.clear()

    def _append_closed(self, operation: Append, claim: ProducerClaim | None) -> Appended:
        """Answer an append to a closed stream: only what closed it, or closes it again, succeeds."""
        if claim is not None and self.closed_by == _signature(claim):
            known = self.producers.get(claim.id)
            return self._appended(claim.epoch, known.seq if known is not None else claim.seq, duplicate=True)
        if operation.close and not operation.data and operation.defect is None and claim is None:
            return self._appended()
        raise StreamClosed(
            "The stream has ended; nothing can be appended to it.",
            (
                (headers.STREAM_CLOSED, b"true"),
                (headers.STREAM_NEXT_OFFSET, offsets.encode_bytes(self.generation_at(self.tail), self.tail)),
            ),
        )

    def _check_seq(self, seq: str) -> None:
        # Text compares by code points, which is the byte-wise order that the specification asks for.
        if self.last_seq is not None and seq <= self.last_seq:
            raise SequenceConflict(f"The last Stream-Seq was {self.last_seq!r}; the next one must be greater.")

    def _add(self, data: bytes) -> None:
        self.data.append(data)
        self.tail += len(data)
        self.ends.append(self.tail)


def new_info(operation: Create, now: datetime, after: int = 0) -> StreamInfo:
    """Return a new stream as a create asks for it, still without an id and with nothing in it."""
    return StreamInfo(
        0,
        operation.path,
        operation.content_type or content.DEFAULT_CONTENT_TYPE,
        offsets.new_generation(after),
        closed=operation.closed,
        ttl=operation.ttl,
        expires_at=operation.expires_at,
        deadline=lifetime.deadline(operation.ttl, operation.expires_at, now),
    )


def _signature(claim: ProducerClaim) -> str:
    return f"{claim.epoch}:{claim.seq}:{claim.id}"


def _fork_lifetime(operation: Create, source: StreamState) -> tuple[int | None, datetime | None]:
    """Return a fork's TTL and expiry: its own, or else its source's (section 4.2, the table)."""
    if operation.ttl is not None or operation.expires_at is not None:
        return operation.ttl, operation.expires_at
    return source.ttl, source.expires_at
