"""Chunks as rows: how a commit's appends are laid out in them, and where they end inside."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import lt
from sys import byteorder

MAX_CHUNK_BYTES = 1024 * 1024
"""A commit's data is cut into rows of about this size, between appends, so that a page never drags in much more."""


class CorruptChunk(ValueError):
    """A chunk's row contradicts itself: something other than this app has changed it."""


def chunks(start: int, appends: Sequence[bytes], ends: Sequence[int]) -> Iterator[tuple[int, int, bytes, bytes]]:
    """Yield (start, end, data, ends) of the chunks for several appends: one, or more where it is much.

    Args:
        start: position of the first byte.
        ends: position after each append.
    """
    first = 0
    for last, end in enumerate(ends):
        if last > first and end - start > MAX_CHUNK_BYTES:
            yield start, ends[last - 1], b"".join(appends[first:last]), pack_ends(start, ends[first:last])
            start, first = ends[last - 1], last
    yield start, ends[-1], b"".join(appends[first:]), pack_ends(start, ends[first:])


def pack_ends(start: int, ends: Iterable[int]) -> bytes:
    """Return a chunk's `ends`: positions relative to its start as 32-bit little-endian, empty for one append."""
    relative = array("I", [end - start for end in ends])
    if len(relative) == 1:
        return b""
    if byteorder == "big":
        relative.byteswap()
    return relative.tobytes()


def unpack_ends(start: int, end: int, packed: bytes) -> list[int]:
    """Return the positions at which a chunk's appends end: the reverse of `pack_ends`."""
    if not packed:
        return [end]
    relative = array("I", packed)
    if byteorder == "big":
        relative.byteswap()
    return [start + value for value in relative]


def checked_ends(start: int, end: int, size: int, packed: bytes) -> list[int]:
    """Return the same for a chunk that is about to be written anew: what is wrong in it must not spread.

    Args:
        size: bytes of its data.

    Raises:
        CorruptChunk: its positions, its data and its `ends` do not agree.
    """
    try:
        ends = unpack_ends(start, end, packed)
    except ValueError as error:
        raise CorruptChunk(f"The chunk from {start} to {end} has {len(packed)} bytes in `ends`: {error}.") from error
    if end - start != size or not _fit(start, end, ends):
        raise CorruptChunk(
            f"The chunk from {start} to {end} has {size} bytes of data, and its `ends` do not fit these."
        )
    return ends


def readable_ends(start: int, end: int, packed: bytes) -> list[int]:
    """Return the same for a chunk that is read. One whose `ends` are wrong is one append: its data is there still."""
    try:
        ends = unpack_ends(start, end, packed)
    except ValueError:
        return [end]
    return ends if _fit(start, end, ends) else [end]


def _fit(start: int, end: int, ends: Sequence[int]) -> bool:
    return ends[0] > start and ends[-1] == end and all(map(lt, ends, ends[1:]))
