"""The layout of chunks: how a commit's appends become rows, and how a row says where its appends end.

The `ends` of a chunk are positions relative to its start, 32-bit little-endian. Empty: one append. A **sparse** chunk,
of which key compaction has removed messages, begins with the byte 1. The ends of its appends follow, and then the
number of its bytes up to each of them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from operator import lt
from sys import byteorder
from typing import NamedTuple

from ..protocol.segments import Segment

MAX_CHUNK_BYTES = 1024 * 1024
"""Size of a row's data, about. Larger commits are cut between appends, so pages read little more than they need."""


MAX_SPARSE_RANGE = 2**31
"""Positions between the start and the end of a sparse chunk, at most: its `ends` have 32 bits."""

_SPARSE = b"\x01"


class Layout(NamedTuple):
    """Where the appends of a chunk end: in the stream and, of a sparse chunk, in its data."""

    ends: list[int]
    places: list[int] | None = None


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
    """Return the `ends` of a chunk that has all bytes of its range."""
    relative = [end - start for end in ends]
    return b"" if len(relative) == 1 else _numbers(relative)


def pack_layout(start: int, ends: Sequence[int], places: Sequence[int] | None) -> bytes:
    """Return the `ends` of a chunk that may be sparse.

    Args:
        start: the start of the chunk.
        ends: the position after each append, at most `MAX_SPARSE_RANGE` after the start.
        places: of a sparse chunk, the number of its bytes up to each of them.
    """
    if places is None or places[-1] == ends[-1] - start:
        return pack_ends(start, ends)
    last = len(ends) - 1
    # An append without bytes only says where a chunk ends.
    kept = [number for number in range(last + 1) if places[number] > (places[number - 1] if number else 0)]
    if not kept or kept[-1] != last:
        kept.append(last)
    return _SPARSE + _numbers([*(ends[number] - start for number in kept), *(places[number] for number in kept)])


def _numbers(numbers: Sequence[int]) -> bytes:
    packed = array("I", numbers)
    if byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_layout(start: int, end: int, packed: bytes) -> Layout:
    """Return where the appends of a chunk end. The reverse of `pack_layout`.

    Raises:
        ValueError: the bytes are no layout.
    """
    if not packed:
        return Layout([end])
    is_sparse = len(packed) % 4 == 1 and packed[:1] == _SPARSE
    numbers = array("I", packed[1:] if is_sparse else packed)
    if byteorder == "big":
        numbers.byteswap()
    if not is_sparse:
        return Layout([start + number for number in numbers])
    count, odd = divmod(len(numbers), 2)
    if odd or not count:
        raise ValueError("the numbers of a sparse chunk are no pairs")
    return Layout([start + number for number in numbers[:count]], [*numbers[count:]])


def data_size(start: int, end: int, layout_size: int, last: bytes) -> int:
    """Return the number of bytes of a chunk, from a part of its `ends`.

    Args:
        start: the start of the chunk.
        end: its end.
        layout_size: the size of its `ends`, in bytes.
        last: the last four of these bytes.
    """
    return int.from_bytes(last, "little") if layout_size % 4 == 1 and len(last) == 4 else end - start


def segment_of(start: int, end: int, data: bytes, packed: bytes) -> Segment | None:
    """Return the segment of a chunk that is read. None: the chunk is damaged.

    With wrong `ends`, a chunk that has all of its bytes counts as one append, and stays readable.
    """
    if len(data) == end - start:
        return Segment(start, data, readable_ends(start, end, packed))
    try:
        return checked_segment(start, end, data, packed)
    except CorruptChunk:
        return None


def checked_segment(start: int, end: int, data: bytes, packed: bytes) -> Segment:
    """Return the segment of a chunk that is going to be replaced.

    Raises:
        CorruptChunk: its positions, its data and its `ends` contradict each other.
    """
    ends, places = checked_layout(start, end, len(data), packed)
    return Segment(start, data, ends, places=places)


def checked_ends(start: int, end: int, size: int, packed: bytes) -> list[int]:
    """Return the `ends` of `checked_layout` for a chunk that has all bytes of its range.

    Raises:
        CorruptChunk: it is sparse, or its positions, its data and its `ends` contradict each other.
    """
    ends, places = checked_layout(start, end, size, packed)
    if places is not None:
        raise CorruptChunk(f"The chunk from {start} to {end} is sparse, where no sparse chunk can be.")
    return ends


def checked_layout(start: int, end: int, size: int, packed: bytes) -> Layout:
    """Return `unpack_layout` of a chunk that is going to be merged into another one.

    Args:
        start: the start of the chunk.
        end: its end.
        size: the size of its data, in bytes.
        packed: its `ends`.

    Raises:
        CorruptChunk: its positions, its data and its `ends` contradict each other.
    """
    try:
        layout = unpack_layout(start, end, packed)
    except ValueError as error:
        raise CorruptChunk(f"The chunk from {start} to {end} has {len(packed)} bytes in `ends`: {error}.") from error
    if not _fit(start, end, layout.ends) or not _holds(start, layout, size):
        raise CorruptChunk(f"The chunk from {start} to {end} has {size} bytes of data, which its `ends` do not match.")
    return layout


def readable_ends(start: int, end: int, packed: bytes) -> list[int]:
    """Return the ends of the appends of a chunk that is read. With wrong `ends` it counts as one append."""
    try:
        ends = unpack_layout(start, end, packed).ends
    except ValueError:
        return [end]
    return ends if _fit(start, end, ends) else [end]


def _fit(start: int, end: int, ends: Sequence[int]) -> bool:
    return ends[0] > start and ends[-1] == end and all(map(lt, ends, ends[1:]))


def _holds(start: int, layout: Layout, size: int) -> bool:
    """Return whether data of a size has the bytes of a layout, each append within its own range."""
    ends, places = layout
    if places is None:
        return size == ends[-1] - start
    before_end = before = 0
    for end, place in zip(ends, places, strict=True):
        if not 0 <= place - before <= end - start - before_end:
            return False
        before_end, before = end - start, place
    return before == size
