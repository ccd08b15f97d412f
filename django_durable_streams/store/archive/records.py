"""The records of an archive: lines that a person can read, each with a checksum, and blocks of data.

    a1b2c3d4 {"type":"stream","path":"chat/42",...}
    11223344 {"type":"producer",...}
    99aabbcc {"type":"data","start":0,"sizes":[11,8],"crc":305419896}
    ...19 bytes of data, then a line feed
    55667788 {"type":"data","start":19,"sizes":[7],"gaps":[40],"crc":271733878}
    ...7 bytes of data, before which key compaction has removed 40, then a line feed
    0badcafe {"type":"end","path":"chat/42","crc":878082192}

A line begins with the CRC-32 of its JSON. Streams follow each other in the order of their generations, so the source of
a fork comes before the fork. No id and no chunk boundary of a database is in it: equal streams give equal bytes.

Knows no database and no file names.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from operator import or_
from typing import Annotated, Any, BinaryIO
from zlib import crc32

import msgspec
from msgspec import Meta, Struct

from ...protocol import arguments, content, paths
from ...protocol.errors import DurableStreamsError
from ...protocol.offsets import MAX_NUMBER
from ...protocol.producers import MAX_STORED_NAME_LENGTH
from ...protocol.segments import Segment
from ..chunk_rows import MAX_CHUNK_BYTES, MAX_SPARSE_RANGE
from .lines import ArchiveError as ArchiveError
from .lines import checked_line, line_of

VERSION = 1

BLOCK_BYTES = MAX_CHUNK_BYTES
"""Data of a block. Only an append that is larger makes a larger block. Restored, a block is a chunk."""

BLOCK_APPENDS = 10_000
"""Appends of a block."""

MAX_BLOCK_BYTES = 2**31

Number = Annotated[int, Meta(ge=0, le=MAX_NUMBER)]
Size = Annotated[int, Meta(ge=0, le=MAX_BLOCK_BYTES)]
Limit = Annotated[int, Meta(gt=0, le=MAX_NUMBER)]
Microseconds = Annotated[int, Meta(ge=0, le=253_370_764_800_000_000)]
WITHOUT_NUL = r"^[^\x00]*\Z"  # PostgreSQL stores no NUL
Path = Annotated[str, Meta(min_length=1, max_length=paths.MAX_PATH_LENGTH, pattern=WITHOUT_NUL)]


class StreamRecord(Struct, tag="stream", forbid_unknown_fields=True):
    """A stream, without its data and its producers. Times are in microseconds since 1970."""

    path: Path
    content_type: Annotated[str, Meta(min_length=1, max_length=content.MAX_CONTENT_TYPE_LENGTH)]
    generation: Number
    tail: Number
    data_from: Number
    """The position of the first byte that the records have. Before it are data of sources, or dropped data."""
    first_position: Number
    closed: bool
    closed_by: Annotated[str, Meta(max_length=MAX_STORED_NAME_LENGTH + 39, pattern=WITHOUT_NUL)]
    last_seq: Annotated[str, Meta(max_length=arguments.MAX_NAME_LENGTH, pattern=WITHOUT_NUL)] | None
    ttl: Annotated[int, Meta(ge=0, le=arguments.MAX_TTL_SECONDS)] | None
    expires_at: Microseconds | None
    deadline: Microseconds | None
    source: Path | None
    fork_position: Number | None
    inherited_from: Number | None
    """The first retained position that the source of a fork had when the fork was made."""
    lineage: list[tuple[Path, Number, Number, Annotated[int, Meta(ge=-8, le=MAX_NUMBER)]]] | None
    """As in the table, with paths instead of ids."""
    deleted_at: Microseconds | None
    created_at: Microseconds
    appended_at: Microseconds | None
    retention: tuple[Limit | None, Limit | None, Limit | None] | None
    """The stream's own rules: age in seconds, bytes, messages. None: those of the setting."""

    def owners(self) -> set[tuple[str, int]]:
        """Return the paths of the streams that a fork needs, with their generations. Below 0: not known."""
        owners = {(path, generation) for path, _, _, generation in self.lineage or ()}
        return owners if self.source is None else owners | {(self.source, -1)}


class ProducerRecord(Struct, tag="producer", forbid_unknown_fields=True):
    """The state of a producer on the stream before."""

    id: Annotated[str, Meta(min_length=1, max_length=MAX_STORED_NAME_LENGTH, pattern=WITHOUT_NUL)]
    epoch: Annotated[int, Meta(ge=0, le=arguments.MAX_SAFE_INTEGER)]
    seq: Annotated[int, Meta(ge=-1, le=arguments.MAX_SAFE_INTEGER)]
    updated_at: Microseconds


class DataRecord(Struct, tag="data", forbid_unknown_fields=True):
    """Whole appends. The data follows the line."""

    start: Number
    sizes: Annotated[list[Size], Meta(min_length=1, max_length=BLOCK_APPENDS)]
    crc: Annotated[int, Meta(ge=0, lt=2**32)]
    gaps: list[Annotated[int, Meta(ge=0, le=MAX_SPARSE_RANGE)]] | None = None
    """The number of removed bytes before each append. None: all bytes are there. An append of no bytes stands for
    removed bytes that no append follows."""
    data: bytes = b""

    def extent(self) -> int:
        """Return the number of positions from the start to the end."""
        return sum(self.sizes) + sum(self.gaps or ())

    def has_whole_messages(self) -> bool:
        """Return whether each append ends with the end of a JSON message."""
        line_feed = self.data[-1]
        return line_feed == b"\n"[0] and all(self.data[place - 1] == line_feed for place in accumulate(self.sizes))


class EndRecord(Struct, tag="end", forbid_unknown_fields=True):
    """The end of a stream, with the CRC-32 of all bytes of its records before."""

    path: str
    crc: Annotated[int, Meta(ge=0, lt=2**32)] = 0


Record = StreamRecord | ProducerRecord | DataRecord | EndRecord


def line(record: Any) -> bytes:
    """Return a record as a line with its checksum, and the data of a data record after it."""
    if isinstance(record, DataRecord):
        bare = {"type": "data", "start": record.start, "sizes": record.sizes, "crc": record.crc}
        if record.gaps is not None:
            bare["gaps"] = record.gaps
        return b"%b%b\n" % (line_of(msgspec.json.encode(bare)), record.data)
    return line_of(msgspec.json.encode(record))


def data_record(start: int, sizes: list[int], data: bytes, gaps: list[int] | None = None) -> DataRecord:
    """Return the record of a block."""
    return DataRecord(start, sizes, crc32(data), gaps, data)


_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Record)


class RecordReader:
    """Reads and checks the records of a file.

    Args:
        file: the file.
        name: its name, for messages.
        position: the byte at which a stream begins, to which the file was moved.
    """

    def __init__(self, file: BinaryIO, name: str, position: int = 0) -> None:
        self._file = file
        self._name = name
        self.position = position
        """Where the present record begins."""
        self._next = position
        self._crc = 0
        """Of the bytes of the present stream, up to the present record."""

    def error(self, what: str) -> ArchiveError:
        """Return the error for the present record."""
        return ArchiveError(f"{self._name}, byte {self.position}: {what}")

    def streams(self) -> Iterator[Iterator[Record]]:
        """Yield for each stream its records, from the stream's own to its end, which have to be consumed.

        Raises:
            ArchiveError: a record is damaged, out of order, or does not fit the others.
        """
        while (record := self._read()) is not None:
            if not isinstance(record, StreamRecord):
                raise self.error("a stream should begin here.")
            self._check_stream(record)
            yield self._parts(record)

    def _parts(self, stream: StreamRecord) -> Iterator[Record]:
        yield stream
        position = stream.data_from
        last_producer = ""
        while True:
            before = self._crc
            record = self._read()
            if isinstance(record, ProducerRecord) and position == stream.data_from and record.id > last_producer:
                last_producer = record.id
            elif isinstance(record, DataRecord) and record.start == position:
                position += record.extent()
                is_json = content.is_json(stream.content_type)
                if is_json and record.data and not record.has_whole_messages():
                    raise self.error(f"an append to {stream.path} ends inside a message.")
                if record.gaps is not None and not is_json:
                    raise self.error(f"data of {stream.path} is missing, which is no JSON stream.")
            elif isinstance(record, EndRecord) and record.path == stream.path and position == stream.tail:
                if record.crc != before:
                    raise self.error(f"records of {stream.path} are missing, or were changed.")
                self._crc = 0
                yield record
                return
            else:
                kind = "nothing" if record is None else type(record).__name__.removesuffix("Record").lower()
                raise self.error(f"{stream.path} goes on with {kind}, which does not follow position {position}.")
            yield record

    def _check_stream(self, record: StreamRecord) -> None:
        begin = record.fork_position or 0
        try:
            arguments.path(record.path)
            arguments.content_type(record.content_type)
        except DurableStreamsError as error:
            raise self.error(f"{record.path!r}: {error.detail}") from error
        is_fork = record.source is not None
        retained = max(begin, record.first_position)
        if not begin <= record.data_from <= retained <= record.tail or not record.generation:
            raise self.error(f"the positions of {record.path} contradict each other.")
        if is_fork != (record.fork_position is not None) or is_fork != (record.lineage is not None):
            raise self.error(f"the source of {record.path} is incomplete.")
        end = 0
        for _, start, entry_end, _ in record.lineage or ():
            if start != end or entry_end <= start:
                raise self.error(f"the lineage of {record.path} has gaps.")
            end = entry_end
        if is_fork and end != begin:
            raise self.error(f"the lineage of {record.path} does not lead to its fork position.")

    def _read(self) -> Record | None:
        self.position = self._next
        text = checked_line(self._file, self.error)
        if text is None:
            return None
        self._next += len(text)
        self._crc = crc32(text, self._crc)
        try:
            record: Record = _decoder.decode(text[9:-1])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self.error(f"the record is not one of this version: {error}.") from error
        if isinstance(record, DataRecord):
            self._read_data(record)
        return record

    def _read_data(self, record: DataRecord) -> None:
        size = sum(record.sizes)
        if size > MAX_BLOCK_BYTES:
            raise self.error(f"the block has {size} bytes, more than {MAX_BLOCK_BYTES}.")
        gaps = record.gaps if record.gaps is not None else [0] * len(record.sizes)
        if len(gaps) != len(record.sizes) or not all(map(or_, record.sizes, gaps)):
            raise self.error("the sizes of the block's appends contradict each other.")
        if record.gaps is not None and record.extent() > 2 * MAX_SPARSE_RANGE - 1:
            raise self.error(f"the block goes over {record.extent()} positions, more than a chunk can have.")
        data = self._file.read(size)
        if len(data) < size or self._file.read(1) != b"\n":
            raise self.error("the data of the block is incomplete.")
        if crc32(data) != record.crc:
            raise self.error("the checksum of the block's data is wrong.")
        self._next += size + 1
        self._crc = crc32(b"\n", crc32(data, self._crc))
        record.data = data


class BlockWriter:
    """Cuts the data of a stream into blocks, always at the same places, whatever pieces it comes in.

    Args:
        start: the position of the first byte.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        self._sizes: list[int] = []
        self._gaps: list[int] = []
        self._parts: list[bytes] = []
        self._size = 0
        self._extent = 0
        """Positions from the start of the block on."""
        self._gap = 0
        """Removed bytes after the block, so far."""

    def add(self, segment: Segment) -> Iterator[DataRecord]:
        """Add data that follows. Yield the blocks that are complete now."""
        position, index, part = segment.start, 0, 0
        for number, end in enumerate(segment.ends):
            place = end - segment.start if segment.places is None else segment.places[number]
            size = place - index
            self._gap += end - position - size
            position = end
            if not size:  # the removed bytes come before the next append
                continue
            if self._is_full(size):
                self._parts.append(segment.data[part:index])
                part = index
                yield from self._cut()
            self._append(size)
            index = place
        self._parts.append(segment.data[part:])

    def rest(self) -> Iterator[DataRecord]:
        """Yield the last blocks, if there are any."""
        if self._gap and self._is_full(0):
            yield from self._cut()
        if self._gap:
            self._append(0)
        yield from self._cut()

    def _is_full(self, size: int) -> bool:
        """Return whether the next append, with the gap before it, begins another block."""
        if self._gap > MAX_SPARSE_RANGE // 2:
            return True
        too_large = self._size + size > BLOCK_BYTES or len(self._sizes) == BLOCK_APPENDS
        too_long = self._extent + self._gap + size > MAX_SPARSE_RANGE and (self._gap > 0 or any(self._gaps))
        return bool(self._sizes) and (too_large or too_long)

    def _append(self, size: int) -> None:
        self._sizes.append(size)
        self._gaps.append(self._gap)
        self._size += size
        self._extent += size + self._gap
        self._gap = 0

    def _cut(self) -> Iterator[DataRecord]:
        """Yield the block so far, and blocks without data for a long gap after it."""
        gap, self._gap = self._gap, 0
        if self._sizes:
            yield self._block()
        while gap > MAX_SPARSE_RANGE // 2:
            self._gap = MAX_SPARSE_RANGE // 2
            gap -= self._gap
            self._append(0)
            yield self._block()
        self._gap = gap

    def _block(self) -> DataRecord:
        gaps = self._gaps if any(self._gaps) else None
        record = data_record(self._start, self._sizes, b"".join(self._parts), gaps)
        self._start += self._extent
        self._sizes, self._gaps, self._parts, self._size, self._extent = [], [], [], 0, 0
        return record
