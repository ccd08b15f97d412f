"""Writes streams to the file of a pack, each of them whole or not at all. Knows no database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import BinaryIO
from zlib import crc32

from .dump import ReadRecords, StreamTrimmed, StreamVanished
from .records import ArchiveError, EndRecord, Record, StreamRecord, line

TRIES = 10
"""How often a stream is read that is trimmed or compacted each time before its data was read."""


class PackWriter:
    """Writes streams to the file of a pack, each of them whole or not at all.

    Args:
        file: the file.
        last: the place of the stream before, in the order of all streams.
    """

    def __init__(self, file: BinaryIO, last: tuple[int, str]) -> None:
        self._file = file
        self.last = last
        self.digest = hashlib.sha256()
        self.streams = 0

    def add(self, path: str, read: ReadRecords) -> bool:
        """Write a stream, and return whether it still exists.

        Raises:
            ArchiveError: it is trimmed or compacted again and again while it is read, or its data is damaged.
        """
        for _ in range(TRIES):
            before = self._file.tell(), self.digest.copy(), self.last
            try:
                self._write(read())
            except (StreamTrimmed, StreamVanished) as error:
                position, self.digest, self.last = before
                self._file.seek(position)
                self._file.truncate()
                if isinstance(error, StreamVanished):
                    return False
            else:
                self.streams += 1
                return True
        raise ArchiveError(
            f"{path} was trimmed or compacted {TRIES} times while it was read. Repeat the command: the export goes on "
            "with it."
        )

    def _write(self, stream: Iterator[Record]) -> None:
        crc = 0
        for record in stream:
            if isinstance(record, EndRecord):
                record.crc = crc
            data = line(record)
            crc = crc32(data, crc)
            self._file.write(data)
            self.digest.update(data)
            if isinstance(record, StreamRecord):
                self.last = record.generation, record.path
