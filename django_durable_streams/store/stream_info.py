"""A stream's row, as a query saw it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from ..protocol import offsets
from ..protocol.errors import OffsetGone
from ..protocol.offsets import Offset, Sentinel


class LineageEntry(NamedTuple):
    """A range of positions whose bytes belong to one stream, of a generation: an entry of a lineage.

    A negative `generation` makes it a run, of the level that this is the negative of (see `lineage`): its bytes are not
    its owner's own, but what that stream has there.
    """

    owner: int
    start: int
    end: int
    generation: int

    @property
    def is_run(self) -> bool:
        """Whether it stands for other entries."""
        return self.generation < 0

    @property
    def level(self) -> int:
        """How many levels of entries it stands for: 0 for a piece."""
        return max(-self.generation, 0)


class StreamInfo(NamedTuple):
    """A stream at a moment. The fields are those of `models.Stream`, in the order in which `sql` selects them."""

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

    def pieces(self) -> Iterator[LineageEntry]:
        """Yield the ranges that the stream consists of, in order: those of its sources, runs of them, then its own."""
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
        return 0  # nothing lies before it

    def offset(self, position: int) -> Offset:
        """Return what the token of a position says."""
        return Offset(self.generation_at(position), position)

    def token(self, position: int) -> str:
        """Return the token of a position."""
        return offsets.encode(self.generation_at(position), position)

    def header(self, position: int) -> bytes:
        """Return the token of a position as it stands in a header."""
        return offsets.encode_bytes(self.generation_at(position), position)

    def find(self, offset: Offset) -> int | None:
        """Return the position that an offset stands for in this stream, or None: it is none of this stream's."""
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
        """Return the position from which to read where a client asks for an offset.

        One past the last byte that a stream has is where it ends: some clients ask for the byte behind what they have,
        which makes no difference anywhere else, as an append is read whole.

        Raises:
            OffsetGone: it was handed out for what is not there: by another stream that was at this path, or by this
                one before it lost its last appends (410).
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
                    "This offset is of a stream that is not at this path any more, or of data that was lost. "
                    "Read from -1."
                )
        return position
