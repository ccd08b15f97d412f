"""The lines of an archive: JSON, each with the CRC-32 of its text before it. Knows no record."""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO
from zlib import crc32

MAX_LINE_BYTES = 4 * 1024 * 1024


class ArchiveError(Exception):
    """An archive is damaged, incomplete or foreign, or does not fit the database. The message names the place."""


def line_of(text: bytes) -> bytes:
    """Return a JSON text as a line with its checksum."""
    return b"%08x %b\n" % (crc32(text), text)


def checked_line(file: BinaryIO, error: Callable[[str], ArchiveError]) -> bytes | None:
    """Return the next line of a file, with its checksum. None: there is no more.

    Args:
        file: the file.
        error: makes the error for this line.

    Raises:
        ArchiveError: the line is damaged.
    """
    text = file.readline(MAX_LINE_BYTES)
    if not text:
        return None
    if not text.endswith(b"\n") or text[8:9] != b" ":
        raise error("this is not a whole line of an archive.")
    if text[:8] != b"%08x" % crc32(text[9:-1]):
        raise error("the checksum of the line is wrong.")
    return text
