"""A stream's row, as a query saw it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple


class Piece(NamedTuple):
    """A range of positions whose bytes belong to one stream: an entry of a lineage.

    A negative `generation` makes it a run, of the level that this is the negative of (see `lineage`): its bytes are not
    its owner's own, but what that stream has there.
    """

    owner: int
    start: int
    end: int
    generation: int = 0

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

    def pieces(self) -> Iterator[Piece]:
        """Yield the ranges that the stream consists of, in order: those of its sources, runs of them, then its own."""
        for entry in self.lineage or ():
            yield Piece(*entry)
        yield Piece(self.id, self.fork_position or 0, self.tail)
