"""A stream's row, as a query has seen it, and the offsets of its positions. Knows no database."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ..protocol import offsets
from ..protocol.errors import OffsetGone
from ..protocol.offsets import Offset, Sentinel


class LineageEntry(NamedTuple):
    """An entry of a lineage: a range of positions whose bytes belong to one stream (see `read.lineage`).

    `generation` is the generation of this stream. A negative one makes the entry a run of that level: the bytes are
    those that the owner has there, through its own lineage.
    """

    owner: int
    start: int
    end: int
    generation: int

    @property
    def is_run(self) -> bool:
        """Whether the entry stands for other entries."""
        return self.generation < 0

    @property
    def level(self) -> int:
        """The number of levels of entries for which the entry stands: 0 for a piece."""
        return max(-self.generation, 0)


class StreamInfo(NamedTuple):
    """A stream at one moment. The fields are those of `models.Stream`, in the order in which `sql` selects them."""

    id: int
    path: str
    content_type: str
    generation: int = 0
    tail: int = 0
    closed: bool = False
    closed_by: str = ""
    last_seq: str | None = None
    ttl: int | None = None
    expires_at: datetime | None = None
    deadline: datetime | None = None
    first_position: int = 0
    source_id: int | None = None
    fork_position: int | None = None
    lineage: list[list[int]] | None = None
    deleted_at: datetime | None = None
    link_state: int | None = None

    def bytes_after(self, position: int | None) -> int:
        """Return how many bytes a reader has not read yet that has come to a position. None: it has read nothing."""
        return max(self.tail - max(position or 0, self.first_position), 0)

    def pieces(self) -> Iterator[LineageEntry]:
        """Yield the ranges of the stream in order: the pieces and runs of its sources, then its own piece."""
        for entry in self.lineage or ():
            yield LineageEntry(*entry)
        yield LineageEntry(self.id, self.fork_position or 0, self.tail, self.generation)

    def generation_at(self, position: int) -> int:
        """Return the generation of the stream to which the byte before a position was appended."""
        if position > (self.fork_position or 0):
            return self.generation
        for _, start, end, generation in self.lineage or ():
            if start < position <= end:
                return generation
        return 0  # position 0 has no byte before it

    def has_offset(self, position: int) -> bool:
        """Whether the offset of a position is known, and not in a run."""
        return self.generation_at(position) >= 0

    def offset(self, position: int) -> Offset:
        """Return the offset of a position."""
        return Offset(self.generation_at(position), position)

    def token(self, position: int) -> str:
        """Return the token of a position."""
        return offsets.encode(self.generation_at(position), position)

    def header(self, position: int) -> bytes:
        """Return the token of a position for a header."""
        return offsets.encode_bytes(self.generation_at(position), position)

    def find(self, offset: Offset) -> int | None:
        """Return the position of an offset in this stream, or None if the offset is not one of this stream's."""
        generation, position = offset
        if not position:
            return None if generation else 0
        if generation == self.generation:
            return position if (self.fork_position or 0) < position <= self.tail else None
        for _, start, end, inherited in self.lineage or ():
            if generation == inherited and start < position <= end:
                return position
        return None

    def locate(self, offset: Offset | Sentinel) -> int:
        """Return the position from which to read for the offset that a client sends.

        An offset one past the last byte counts as the end: some clients add 1 to the offset that they have. Anywhere
        else that makes no difference, because appends are read whole.

        Raises:
            OffsetGone: the offset belongs to an earlier stream at this path, or to data that the database has lost
                (410).
        """
        if offset is Sentinel.START:
            return self.first_position
        if offset is Sentinel.NOW:
            return self.tail
        assert isinstance(offset, Offset)
        position = self.find(offset)
        if position is None:
            position = self.find(Offset(offset.generation, offset.position - 1))
            if position is None or not offset.generation:
                raise OffsetGone(
                    "This offset belongs to an earlier stream at this path, or to data that was lost. Read from -1."
                )
        return position
