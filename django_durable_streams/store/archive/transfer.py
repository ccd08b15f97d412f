"""Export and import: whole databases of streams, or those that match patterns, to an archive and back.

    for path in export_streams(Path("backup"), using="default"): ...
    for path in import_streams(Path("backup"), using="other"): ...

Both are resumed by another call. An import checks the whole archive before it changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...conf import config
from ...models import Stream
from ...protocol.globs import glob
from ...protocol.retention import RetentionRules
from ..upkeep import retention
from . import selection
from .directory import ArchiveReader, ArchiveWriter
from .dump import Dump
from .families import Families
from .presence import PATHS_PER_QUERY, Presence
from .records import ArchiveError, Record, StreamRecord
from .restore import Restore
from .subscription_dump import dump_subscriptions

TAR = ".tar"


class Step(NamedTuple):
    """One stream that an export or import has come to, or a part of a check."""

    path: str = ""
    done: int = 0
    """Streams that were written so far."""
    skipped: int = 0
    """Streams that were deleted meanwhile, or were there already."""
    checked_bytes: int = 0
    """Bytes that were checked with this step."""


def export_streams(target: Path, using: str, patterns: Sequence[str] = ()) -> Iterator[Step]:
    """Write an archive of streams, and yield each of them. Each stream is as it was at one moment.

    Args:
        target: a new or empty directory, one of an unfinished export, or a file that ends with `.tar`.
        using: alias of the database.
        patterns: the patterns of their paths. None of them: all streams. Sources of forks come along.

    Raises:
        ArchiveError: the target is not free, or data of a stream is damaged.
        InvalidPath: a pattern is invalid.
        OSError: the files cannot be written.
    """
    globs = [glob(pattern) for pattern in patterns]
    is_tar = target.suffix == TAR
    if is_tar and target.exists():
        raise ArchiveError(f"{target} is there already. Choose another name.")
    directory = target.with_name(f"{target.name}.partial") if is_tar else target
    writer = ArchiveWriter(directory, list(patterns))
    ids = selection.select(globs, using)
    if writer.newest is not None:
        ids = ids[_position_after(writer.last, ids, using) : _position_after(writer.newest, ids, using)]
    else:
        places = (_find_place(stream_id, using) for stream_id in reversed(ids))
        writer.write_subscriptions(dump_subscriptions(globs, using))
        writer.newest = next((place for place in places if place is not None), writer.last)
    done = writer.index.streams
    skipped = 0
    for path, is_written in writer.write(Dump(using).streams(ids)):
        done, skipped = done + is_written, skipped + (not is_written)
        yield Step(path, done, skipped)
    if is_tar:
        writer.finish_tar(target)
    else:
        writer.finish()
    yield Step("", done, skipped)


def _position_after(last: tuple[int, str], ids: Sequence[int], using: str) -> int:
    """Return how many of the ids belong to streams up to a place in the order."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high) // 2
        place = _find_place(ids[middle], using)
        if place is None:
            raise ArchiveError("Streams are deleted right now. Run the export again.")
        if place <= last:
            low = middle + 1
        else:
            high = middle
    return low


def _find_place(stream_id: int, using: str) -> tuple[int, str] | None:
    """Return the place of a stream in the order, its generation and path, or None if it was deleted meanwhile."""
    row = Stream.objects.using(using).filter(pk=stream_id).values_list("generation", "path").first()
    return None if row is None or row[1] is None else (row[0], row[1])


def check_archive(
    reader: ArchiveReader,
    using: str,
    patterns: Sequence[str] = (),
    check_stream: Callable[[StreamRecord], object] | None = None,
) -> Generator[Step, None, Families]:
    """Check an archive as a whole, and that the database has no other streams at its paths. Changes nothing.

    Returns the families of the chosen streams.

    Args:
        reader: the archive.
        using: alias of the database.
        patterns: the patterns of the paths to restore. None of them: all.
        check_stream: is called with each of the streams, and raises ArchiveError if it does not fit something else.

    Raises:
        ArchiveError: it is damaged, foreign or incomplete, or a path is taken, or that of the registry.
        InvalidPath: a pattern is invalid.
    """
    for size in reader.check_packs():
        yield Step(checked_bytes=size)
    presence = Presence(using)
    archived: set[int] = set()
    families = Families()
    portion: list[StreamRecord] = []
    for head, records in _chosen(reader, patterns):
        for path, generation in head.owners():
            if hash(path) not in archived and not presence.has(path, generation):
                raise ArchiveError(f"The stream {path}, whose data {head.path} has, is neither here nor imported.")
        if _is_unstable(head):
            families.mark_unstable(head.path)
        if head.source is not None and hash(head.source) in archived:
            families.add(head.path, head.source, reader.place)
        archived.add(hash(head.path))
        if head.path == config().registry_path and not presence.has(head.path, head.generation):
            raise ArchiveError(
                f"{head.path} is the path of the registry here, which only the server writes. Import with another "
                "REGISTRY_PATH, or leave this stream and its forks out."
            )
        if check_stream is not None:
            check_stream(head)
        portion.append(head)
        size = sum(len(getattr(record, "data", b"")) for record in records)
        if len(portion) == PATHS_PER_QUERY:
            presence.check_sources(portion, presence.check(portion))
            portion = []
        yield Step(checked_bytes=size)
    presence.check_sources(portion, presence.check(portion))
    return families


def _is_unstable(stream: StreamRecord) -> bool:
    """Return whether data of a stream may end while it has no forks, because of housekeeping."""
    if stream.deleted_at is not None or stream.deadline is not None or stream.first_position:
        return True
    own = stream.retention
    return bool(retention.patterns().find(stream.path) if own is None else RetentionRules(*own))


def import_streams(
    source: Path,
    using: str,
    patterns: Sequence[str] = (),
    check_stream: Callable[[StreamRecord], object] | None = None,
) -> Iterator[Step]:
    """Restore the streams of an archive, and yield each of them. Streams that are there already are left alone.

    Args:
        source: a directory or tar file that `export_streams` has written.
        using: alias of the database.
        patterns: the patterns of the paths to restore. None of them: all. A fork needs its source.
        check_stream: as for `check_archive`.

    Raises:
        ArchiveError: the archive is damaged, foreign or incomplete, or another stream has a path. Nothing was changed.
        InvalidPath: a pattern is invalid.
    """
    reader = ArchiveReader(source)
    families = yield from check_archive(reader, using, patterns, check_stream)
    restore = Restore(using)
    for head, records in _chosen(reader, patterns):
        if forks := families.forks_of(head.path):
            with restore.together():
                restore.add(_joined(head, records))
                for place in forks:
                    restore.add(reader.stream_at(place))
        elif not families.is_fork(head.path):
            restore.add(_joined(head, records))
        yield Step(head.path, restore.restored, restore.skipped)
    restore.flush()
    yield Step("", restore.restored, restore.skipped)


def _chosen(reader: ArchiveReader, patterns: Sequence[str]) -> Iterator[tuple[StreamRecord, Iterable[Record]]]:
    globs = [glob(pattern) for pattern in patterns]
    for records in reader.streams():
        head = next(records)
        assert isinstance(head, StreamRecord)
        if not globs or any(pattern.matches(head.path) for pattern in globs):
            yield head, records
        for _ in records:  # all must be read before the next stream
            pass


def _joined(head: StreamRecord, records: Iterable[Record]) -> Iterator[Record]:
    yield head
    yield from records
