"""The files of prometheus_client's multi-process mode, written so that a full disk raises an error.

prometheus_client maps its files into memory. On a full disk, a write to such memory ends the process by a signal. A
write to a file raises `OSError` instead, and can be repeated.

Invariant: every reader finds a file whole, at any moment. It is made under another name, which readers do not look
for. A new entry counts only after the header is written, and that is the last step.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prometheus_client import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector

from ...runtime.log_once import LogOnce

logger = logging.getLogger(__name__)

_HEADER = struct.Struct("ixxxx")
_LENGTH = struct.Struct("i")
_NUMBERS = struct.Struct("dd")
"""The value and a timestamp, which is not used."""

DAMAGED = (RuntimeError, ValueError, KeyError, IndexError, TypeError, struct.error)
"""What prometheus_client raises for a file that is empty, cut off, or no file of its own."""


class ValueFile:
    """A file with the numbers of one process. Not safe to use from several threads.

    Args:
        path: the file. If an earlier process has left one there, its numbers are kept.

    Attributes:
        earlier: the numbers that the file had, by their keys.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.earlier = _numbers(path)
        self._positions: dict[str, int] = {}
        self._used = _HEADER.size
        draft = path.with_name(f"{path.name}.new")
        self._descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            self._write_at(0, _HEADER.pack(self._used))
            for key, number in self.earlier.items():
                self.set(key, number)
            draft.replace(path)
        except OSError:
            self.close()
            with contextlib.suppress(OSError):
                draft.unlink()
            raise

    def set(self, key: str, number: float) -> None:
        """Write a number.

        Args:
            key: a key as `prometheus_client.mmap_dict.mmap_key` makes it.
            number: the number.

        Raises:
            OSError: the number is not written.
        """
        position = self._positions.get(key)
        if position is not None:
            self._write_at(position, _NUMBERS.pack(number, 0.0))
            return
        text = key.encode()
        padding = b" " * (8 - (len(text) + _LENGTH.size) % 8)
        entry = _LENGTH.pack(len(text)) + text + padding + _NUMBERS.pack(number, 0.0)
        self._write_at(self._used, entry)
        self._write_at(0, _HEADER.pack(self._used + len(entry)))
        self._used += len(entry)
        self._positions[key] = self._used - _NUMBERS.size

    def is_removed(self) -> bool:
        """Return whether the file was removed, so that no scrape reads it."""
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _write_at(self, position: int, data: bytes) -> None:
        if os.pwrite(self._descriptor, data, position) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _numbers(path: Path) -> dict[str, float]:
    """Return the numbers of a file, or none if it is missing or damaged."""
    if not _is_whole(str(path)):
        return {}
    try:
        entries: Iterable[tuple[str, float, float, int]] = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
        return {key: number for key, number, _, _ in entries}
    except FileNotFoundError:
        return {}


class WholeFilesCollector(MultiProcessCollector):
    """Collects the metrics of all processes. A file that is damaged or unreadable takes no other's metrics away."""

    _failures = LogOnce(60.0)

    def collect(self) -> Iterable[Metric]:
        """Return the metrics."""
        try:
            return super().collect()  # type: ignore[no-untyped-call, no-any-return]
        except (OSError, *DAMAGED):
            files = [str(path) for path in Path(self._path).glob("*.db")]
            whole = [file for file in files if _is_shown(file)]
            if self._failures.is_due():
                names = ", ".join(sorted(Path(file).name for file in {*files} - {*whole}))
                logger.warning("Files of metrics are damaged or unreadable, and not shown: %s. Remove them.", names)
            return self.merge(whole)  # type: ignore[no-untyped-call, no-any-return]


def _is_whole(file: str) -> bool:
    try:
        collected: Any = MultiProcessCollector.merge([file])  # type: ignore[no-untyped-call]
        list(collected)
    except (FileNotFoundError, *DAMAGED):
        return False
    return True


def _is_shown(file: str) -> bool:
    try:
        return _is_whole(file)
    except OSError:  # such as a file of another user
        return False
