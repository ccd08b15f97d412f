"""The layout of chunks: how a commit's appends become rows, and how a row says where its appends end."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import lt
from sys import byteorder

MAX_CHUNK_BYTES = 1024 * 1024
"""Size of a row's data, about. Larger commits are cut between appends, so pages read little more than they need."""


class CorruptChunk(ValueError):
    """The columns of a chunk contradict each other: something other than this app has changed the row."""


def chunks(start: int, appends: Sequence[bytes], ends: Sequence[int]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield (start, end, data, ends) of the chunks for several appends: one chunk, or more for much data.

    Args:
        start: the position of the first byte.
        appends: the data of each append.
        ends: the position after each append.
    """
    first = 0
    for last, end in enumerate(ends):
        if last > first and end - start > MAX_CHUNK_BYTES:
            yield start, ends[last - 1], b"".join(appends[first:last]), pack_ends(start, ends[first:last])
            start, first = ends[last - 1], last
    yield start, ends[-1], b"".join(appends[first:]), pack_ends(start, ends[first:])


def pack_ends(start: int, ends: Iterable[int]) -> bytes:
    """Return the `ends` of a chunk: positions relative to its start, 32-bit little-endian; empty for one append."""
    relative = array("I", [end - start for end in ends])
    if len(relative) == 1:
        return b""
    if byteorder == "big":
        relative.byteswap()
    return relative.tobytes()


def unpack_ends(start: int, end: int, packed: bytes) -> list[int]:
    """Return the positions at which the appends of a chunk end. The reverse of `pack_ends`."""
    if not packed:
        return [end]
    relative = array("I", packed)
    if byteorder == "big":
        relative.byteswap()
    return [start + value for value in relative]


def checked_ends(start: int, end: int, size: int, packed: bytes) -> list[int]:
    """Return `unpack_ends` of a chunk that is going to be merged into another one.

    Args:
        start: the start of the chunk.
        end: its end.
        size: the size of its data, in bytes.
        packed: its `ends`.

    Raises:
        CorruptChunk: its positions, its data and its `ends` contradict each other.
    """
    try:
        ends = unpack_ends(start, end, packed)
    except ValueError as error:
        raise CorruptChunk(f"The chunk from {start} to {end} has {len(packed)} bytes in `ends`: {error}.") from error
    if end - start != size or not _fit(start, end, ends):
        raise CorruptChunk(f"The chunk from {start} to {end} has {size} bytes of data, which its `ends` do not match.")
    return ends


def readable_ends(start: int, end: int, packed: bytes) -> list[int]:
    """Return `unpack_ends` of a chunk that is read. With wrong `ends` it counts as one append, and stays readable."""
    try:
        ends = unpack_ends(start, end, packed)
    except ValueError:
        return [end]
    return ends if _fit(start, end, ends) else [end]


def _fit(start: int, end: int, ends: Sequence[int]) -> bool:
    return ends[0] > start and ends[-1] == end and all(map(lt, ends, ends[1:]))
