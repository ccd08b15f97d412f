"""One stream inside a batch: a working copy of its row, and the rules by which operations change it.

No database is touched here: `writing` loads these, applies operations to them in order, and stores the outcome.
"""

from __future__ import annotations

from datetime import datetime

from ..protocol import content, headers, offsets
from ..protocol.errors import ContentTypeMismatch, SequenceConflict, StreamClosed, StreamExists
from ..protocol.producers import ProducerClaim, ProducerState, advance
from . import lifetime
from .operations import Append, Appended, Create, Created


class StreamState:
    """A stream's row while a batch works on it."""

    __slots__ = (
        "appended",
        "changed",
        "closed",
        "closed_by",
        "content_type",
        "created",
        "data",
        "deadline",
        "ends",
        "expires_at",
        "id",
        "last_seq",
        "new_producers",
        "path",
        "producers",
        "start",
        "tail",
        "touched_producers",
        "ttl",
    )

    def __init__(
        self,
        id: int,
        path: str,
        content_type: str,
        tail: int,
        closed: bool,
        closed_by: str,
        last_seq: str | None,
        ttl: int | None,
        expires_at: datetime | None,
        deadline: datetime | None,
    ) -> None:
        self.id = id  # 0 until the row is there
        self.path = path
        self.content_type = content_type
        self.tail = self.start = tail
        self.closed = closed
        self.closed_by = closed_by
        self.last_seq = last_seq
        self.ttl = ttl
        self.expires_at = expires_at
        self.deadline = deadline
        self.created = id == 0
        self.changed = False
        self.appended = False
        self.data: list[bytes] = []
        self.ends: list[int] = []
        self.producers: dict[str, ProducerState] = {}
        self.new_producers: set[str] = set()
        self.touched_producers: set[str] = set()

    @classmethod
    def make(cls, operation: Create, now: datetime) -> StreamState:
        """Return a new stream as a create asks for it, its initial content included."""
        if operation.defect is not None:
            raise operation.defect
        state = cls(
            0,
            operation.path,
            operation.content_type,
            0,
            operation.closed,
            "",
            None,
            operation.ttl,
            operation.expires_at,
            lifetime.deadline(operation.ttl, operation.expires_at, now),
        )
        if operation.data:
            state._add(operation.data)
        return state

    def confirm(self, operation: Create) -> Created:
        """Answer a create for a path that has this stream (section 5.1).

        Raises:
            StreamExists: the configuration is another one.
        """
        if (
            not content.same_type(operation.content_type, self.content_type)
            or operation.ttl != self.ttl
            or operation.expires_at != self.expires_at
            or operation.closed != self.closed
        ):
            raise StreamExists(
                "There is a stream at this path whose content type, TTL, expiry or closure is another one. "
                "Use another path, or delete that stream first.",
                ((headers.STREAM_CLOSED, b"true"),) if self.closed else (),
            )
        return self.describe(created=False)

    def describe(self, *, created: bool) -> Created:
        """Return the answer to a create."""
        return Created(created, self.content_type, self.tail, self.closed)

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
                return Appended(self.tail, False, True, known.epoch, known.seq)
        if operation.seq is not None:
            self._check_seq(operation.seq)
            self.last_seq = operation.seq
        if claim is not None:
            assert accepted is not None
            (self.new_producers if known is None else self.touched_producers).add(claim.id)
            self.producers[claim.id] = accepted
        if operation.data:
            self._add(operation.data)
        if operation.close:
            self.closed = True
            self.closed_by = _signature(claim) if claim is not None else ""
        self.deadline = lifetime.deadline(self.ttl, self.expires_at, now)
        self.changed = True
        if claim is None:
            return Appended(self.tail, self.closed)
        return Appended(self.tail, self.closed, False, claim.epoch, claim.seq)

    def touch(self, now: datetime) -> None:
        """Start the TTL anew."""
        if lifetime.needs_touch(self.ttl, self.deadline, now):
            self.deadline = lifetime.deadline(self.ttl, self.expires_at, now)
            self.changed = True

    def _append_closed(self, operation: Append, claim: ProducerClaim | None) -> Appended:
        """Answer an append to a closed stream: only what closed it, or closes it again, succeeds."""
        if claim is not None and self.closed_by == _signature(claim):
            known = self.producers.get(claim.id)
            return Appended(self.tail, True, True, claim.epoch, known.seq if known is not None else claim.seq)
        if operation.close and not operation.data and operation.defect is None and claim is None:
            return Appended(self.tail, True)
        raise StreamClosed(
            "The stream has ended; nothing can be appended to it.",
            (
                (headers.STREAM_CLOSED, b"true"),
                (headers.STREAM_NEXT_OFFSET, offsets.encode(self.tail).encode("ascii")),
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
        self.appended = True


def _signature(claim: ProducerClaim) -> str:
    return f"{claim.epoch}:{claim.seq}:{claim.id}"
