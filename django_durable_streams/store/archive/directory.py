"""The files of an archive: packs of records, and an index that is written last.

    archive/index.json             what it is, the patterns, and the size and SHA-256 of each pack
    archive/packs/000001.streams   records of streams
    archive/subscriptions.records  subscriptions and cursors, if there are any

The index of an unfinished export is `index.json.partial`. The next export to the same directory goes on after the last
complete pack, because packs have the streams in one order. A tar file has the same files. It is written from a
directory beside it.

Knows no database.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from .dump import ReadRecords
from .index import FORMAT as FORMAT
from .index import PACKS, Index, Pack, SubscriptionFile, parse_index
from .pack_writer import PackWriter
from .records import VERSION, ArchiveError, Record, RecordReader, StreamRecord, line
from .subscription_records import SubscriptionFileRecord, SubscriptionReader, SubscriptionRecord

INDEX = "index.json"
PARTIAL = "index.json.partial"
SUBSCRIPTIONS = "subscriptions.records"

PACK_BYTES = 64 * 1024 * 1024
"""Size from which a pack ends after the present stream."""

MAX_INDEX_BYTES = 64 * 1024 * 1024
"""Size of an index, at most: that of 200,000 packs, or 12 TB. A tar file can pretend any size."""

_READ_BYTES = 1024 * 1024


Written = tuple[str, bool]
"""The path of a stream, and whether it is in the archive."""

Place = tuple[str, int]
"""Where a stream begins: the name of the pack, and the byte."""


class ArchiveWriter:
    """Writes an archive into a directory, or goes on with one.

    Args:
        directory: the directory. It is made if it is missing.
        patterns: the patterns of the streams, for the index.

    Raises:
        ArchiveError: the directory has other files, a finished archive, or one with other patterns.
    """

    def __init__(self, directory: Path, patterns: list[str]) -> None:
        self._directory = directory
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        names = {entry.name for entry in directory.iterdir()}
        if INDEX in names:
            raise ArchiveError(f"{directory} has a finished archive. Choose another directory.")
        if not names <= {PARTIAL, PACKS, SUBSCRIPTIONS}:
            raise ArchiveError(f"{directory} has other files. Choose an empty directory.")
        self.index = Index(FORMAT, VERSION, patterns, [])
        if PARTIAL in names:
            self.index = parse_index((directory / PARTIAL).read_bytes(), f"{directory / PARTIAL}")
            if self.index.patterns != patterns:
                raise ArchiveError(f"{directory} has an unfinished archive of other streams. Choose another directory.")
        (directory / PACKS).mkdir(exist_ok=True)
        self._save_index(PARTIAL)

    @property
    def last(self) -> tuple[int, str]:
        """Generation and path of the last stream that a complete pack has."""
        return self.index.packs[-1].last if self.index.packs else (-1, "")

    @property
    def newest(self) -> tuple[int, str] | None:
        """The place of the last stream that was there when the export began. None: it begins now.

        Later streams stay out. They could have the path of a stream that is written, or sources that are not.
        """
        return self.index.newest

    @newest.setter
    def newest(self, place: tuple[int, str]) -> None:
        self.index.newest = place
        self._save_index(PARTIAL)

    def write_subscriptions(self, records: Iterable[SubscriptionFileRecord]) -> None:
        """Write subscriptions, before the streams."""
        path = self._directory / SUBSCRIPTIONS
        digest = hashlib.sha256()
        count = 0
        with _open_private(path) as file:
            for record in records:
                data = line(record)
                digest.update(data)
                file.write(data)
                count += isinstance(record, SubscriptionRecord)
            _sync(file)
            size = file.tell()
        if count:
            self.index.subscriptions = SubscriptionFile(size, digest.hexdigest(), count)
            self._save_index(PARTIAL)
        else:
            path.unlink()

    def write(self, streams: Iterable[tuple[str, ReadRecords]]) -> Iterator[Written]:
        """Write streams. Yield the path of each, and whether it is in the archive: a deleted one is left out."""
        iterator = iter(streams)
        is_over = False
        while not is_over:
            is_over = yield from self._write_pack(iterator)

    def _write_pack(self, streams: Iterator[tuple[str, ReadRecords]]) -> Generator[Written, None, bool]:
        """Write streams until the pack is full. Return whether there are no more streams."""
        name = f"{PACKS}/{len(self.index.packs) + 1:06}.streams"
        path = self._directory / name
        is_over = True
        with _open_private(path) as file:
            pack = PackWriter(file, self.last)
            for stream_path, read in streams:
                is_written = pack.add(stream_path, read)
                yield stream_path, is_written
                if is_written and file.tell() >= PACK_BYTES:
                    is_over = False
                    break
            _sync(file)
            if pack.streams:
                size, sha256 = file.tell(), pack.digest.hexdigest()
                self.index.packs.append(Pack(name, size, sha256, pack.streams, pack.last))
                self._save_index(PARTIAL)
        if not pack.streams:
            path.unlink()
        return is_over

    def finish(self) -> None:
        """Write the index. The archive is complete."""
        self.index.newest = None
        self._save_index(INDEX)
        (self._directory / PARTIAL).unlink()

    def finish_tar(self, target: Path) -> None:
        """Write the archive as a tar file, the same bytes for equal archives, and remove the directory.

        Until the file is complete, the export is unfinished, and goes on here if it is interrupted.
        """
        self.index.newest = None
        temporary = target.with_name(f"{target.name}.new")
        with _open_private(temporary) as target_file:
            with tarfile.open(fileobj=target_file, mode="w:") as tar:
                _add(tar, INDEX, BytesIO(self._index_text()))
                names = [pack.name for pack in self.index.packs]
                for name in [SUBSCRIPTIONS, *names] if self.index.subscriptions is not None else names:
                    with (self._directory / name).open("rb") as file:
                        _add(tar, name, file)
            _sync(target_file)
        (self._directory / PARTIAL).unlink()  # first: without it, what is left of the directory is no archive
        shutil.rmtree(self._directory)
        temporary.replace(target)

    def _index_text(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self.index), indent=1) + b"\n"

    def _save_index(self, name: str) -> None:
        temporary = self._directory / f"{PACKS}/{name}.new"
        with _open_private(temporary) as file:
            file.write(self._index_text())
            _sync(file)
        temporary.replace(self._directory / name)


class ArchiveReader:
    """Reads an archive: a directory, or a tar file.

    Args:
        path: the directory or file.

    Raises:
        ArchiveError: it is no finished archive of a version that this code knows.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.place: Place = "", 0
        """The place of the stream that `streams` has come to."""
        if not path.exists():
            raise ArchiveError(f"There is no file or directory {path}.")
        try:
            with self._open(INDEX) as file:
                text = file.read(MAX_INDEX_BYTES + 1)
        except (OSError, KeyError, tarfile.TarError) as error:
            if path.is_dir() and (path / PARTIAL).exists():
                raise ArchiveError(f"The export to {path} was not finished. Run it again.") from error
            raise ArchiveError(f"{path} is not an archive of streams: it has no {INDEX}.") from error
        if len(text) > MAX_INDEX_BYTES:
            raise ArchiveError(f"{path}/{INDEX} has more than {MAX_INDEX_BYTES:,} bytes.")
        self.index = parse_index(text, f"{path}/{INDEX}")

    @property
    def subscriptions_name(self) -> str:
        """The name of the file of subscriptions, for messages."""
        return f"{self._path}/{SUBSCRIPTIONS}"

    def check_packs(self) -> Iterator[int]:
        """Compare size and SHA-256 of all packs with the index, and yield how many bytes were read.

        Raises:
            ArchiveError: a pack differs. `streams` finds the place.
        """
        if (file := self.index.subscriptions) is not None:
            yield from self._check_file(SUBSCRIPTIONS, file, lambda: [*self.subscriptions()])
        for pack in self.index.packs:
            yield from self._check_file(pack.name, pack, partial(self._find_damage, pack))

    def _check_file(
        self, name: str, expected: Pack | SubscriptionFile, find_damage: Callable[[], object]
    ) -> Iterator[int]:
        digest = hashlib.sha256()
        size = 0
        with self._pack(name) as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
                size += len(data)
                yield len(data)
        if (size, digest.hexdigest()) != (expected.size, expected.sha256):
            find_damage()
            raise ArchiveError(f"{self._path}/{name} differs from the index: it has {size} bytes.")

    def _find_damage(self, pack: Pack) -> None:
        with self._pack(pack.name) as file:
            for records in RecordReader(file, f"{self._path}/{pack.name}").streams():
                for _ in records:
                    pass

    def streams(self) -> Iterator[Iterator[Record]]:
        """Yield the records of each stream, which have to be consumed. They come in the order of the generations.

        Raises:
            ArchiveError: a record is damaged or out of order.
        """
        last = (-1, "")
        for pack in self.index.packs:
            with self._pack(pack.name) as file:
                reader = RecordReader(file, f"{self._path}/{pack.name}")
                for records in reader.streams():
                    head = next(records)
                    assert isinstance(head, StreamRecord)
                    key = head.generation, head.path
                    if key <= last:
                        raise reader.error(f"{head.path} is out of order.")
                    last = key
                    self.place = pack.name, reader.position
                    yield _with(head, records)

    def subscriptions(self) -> Iterator[tuple[SubscriptionFileRecord, SubscriptionReader]]:
        """Yield the records of subscriptions and links, each with the reader, which knows its position.

        Raises:
            ArchiveError: a record is damaged or out of order.
        """
        if self.index.subscriptions is not None:
            with self._pack(SUBSCRIPTIONS) as file:
                reader = SubscriptionReader(file, self.subscriptions_name)
                for record in reader.records():
                    yield record, reader

    def stream_at(self, place: Place) -> Iterator[Record]:
        """Yield the records of the stream at a place where `streams` has found one."""
        name, position = place
        with self._pack(name) as file:
            file.seek(position)
            yield from next(RecordReader(file, f"{self._path}/{name}", position).streams())

    def _pack(self, name: str) -> AbstractContextManager[BinaryIO]:
        try:
            return self._open(name)
        except (OSError, KeyError) as error:
            raise ArchiveError(f"{self._path}/{name} is missing.") from error

    def _open(self, name: str) -> AbstractContextManager[BinaryIO]:
        if self._path.is_dir():
            return (self._path / name).open("rb")
        return _tar_member(tarfile.open(self._path, "r:"), name)


def _with(head: StreamRecord, records: Iterator[Record]) -> Iterator[Record]:
    yield head
    yield from records


def _tar_member(tar: tarfile.TarFile, name: str) -> AbstractContextManager[BinaryIO]:
    try:
        file = tar.extractfile(name)  # read only: nothing is written to a path of the archive
    except BaseException:
        tar.close()
        raise
    if file is None:
        tar.close()
        raise KeyError(name)
    return _closing(tar, cast("BinaryIO", file))


@contextmanager
def _closing(tar: tarfile.TarFile, file: BinaryIO) -> Iterator[BinaryIO]:
    with tar, file:
        yield file


def _add(tar: tarfile.TarFile, name: str, file: BinaryIO) -> None:
    member = tarfile.TarInfo(name)
    member.size = file.seek(0, os.SEEK_END)
    file.seek(0)
    tar.addfile(member, file)


def _open_private(path: Path) -> BinaryIO:
    """Open a new file that only its owner can read, whoever can read the directory: it has the data of all users."""
    return open(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
