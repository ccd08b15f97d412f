"""The types that statements take and return, and how rows are cut into statements.

Knows neither a database nor a connection.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, TypeVar

from ..stream_info import StreamInfo

Row = tuple[Any, ...]
T = TypeVar("T")

Lock = Literal["no", "share", "wait", "skip"]
"""How a query locks the rows that it returns. "wait" and "skip" take them for the transaction, and wait for rows that
another transaction holds, or leave these out. "share" reads the newest committed rows in spite of an older snapshot."""


class CommitUncertain(Exception):
    """The connection was lost during the commit. Another try could append the data a second time."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise the database's error in place of CommitUncertain, for code that does not repeat a commit that was lost."""
    try:
        yield
    except CommitUncertain as error:
        if error.__cause__ is None:
            raise
        raise error.__cause__ from error.__cause__.__cause__


TO_THE_END = 2**63 - 1
"""A position after every possible byte."""

ROWS_PER_STATEMENT = 500
"""Times the number of columns, this stays below every database's limit for parameters of a statement."""

BYTES_PER_STATEMENT = 4 * 1024 * 1024
"""Data in one statement. MySQL accepts 16 MiB by default, and the driver may double the bytes."""


class LoadedRows(NamedTuple):
    """The rows that a transaction has locked for a batch."""

    streams: list[StreamInfo]
    producers: list[Sequence[Any]]
    """(stream id, producer id, epoch, seq) of each."""
    locked: Collection[str]
    """Paths of the streams whose rows another transaction holds."""


class StagedSpan(NamedTuple):
    """The place of a staged chunk in its stream, its packed ends, and the size of its data in bytes."""

    id: int
    stream_id: int
    stream_exists: bool
    start: int
    end: int
    ends: bytes
    size: int


class ChunkContents(NamedTuple):
    """The contents of several chunks: their ids, the data of all, and the packed ends and data size of each."""

    ids: Sequence[int]
    data: bytes
    ends: Sequence[bytes]
    sizes: Sequence[int]


class Insert(NamedTuple):
    """An INSERT up to its rows, and the types of its columns."""

    head: str
    types: tuple[str, ...]


def slices(rows: Sequence[T], length: int = ROWS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    """Yield the rows in slices of at most `length`."""
    for first in range(0, len(rows), length):
        yield rows[first : first + length]


def chunk_slices(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield rows of chunks in slices with at most BYTES_PER_STATEMENT of data. A larger chunk is a slice by itself."""
    for rows_of_statement in slices(rows):
        first = size = 0
        for number, row in enumerate(rows_of_statement):
            size += len(row[3])
            if size > BYTES_PER_STATEMENT and number > first:
                yield rows_of_statement[first:number]
                first, size = number, len(row[3])
        yield rows_of_statement[first:]
