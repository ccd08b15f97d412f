"""Deletes of many streams by Python callers, with the rows of the project that refer to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from operator import itemgetter
from typing import Any, TypeVar

from ..models import Stream
from ..models.methods import StreamMethods
from ..protocol.errors import StreamGone, StreamNotFound
from ..runtime import caller_transaction
from ..store.operations import Commit, Delete, Done
from ..store.read.listing import StreamKey
from ..store.sql.ids import has_id
from ..store.upkeep import related_rows
from .conflicts import snapshot_errors
from .transactions import notify_on_commit, result_of, write, write_lock_of

Row = TypeVar("Row", bound=tuple[Any, ...])


def delete(streams: Sequence[StreamMethods], using: str, *, must_exist: bool = False) -> tuple[int, dict[str, int]]:
    """Delete streams in one transaction. Return their number, and the number of rows of other models by label.

    Args:
        must_exist: whether a stream that is gone already is an error. Otherwise it is skipped.

    Raises:
        StreamNotFound, StreamGone: `must_exist` is set, and a stream is gone.
        ProtectedError, RestrictedError: a row of the project forbids the deletion.
    """
    if not streams:
        return 0, {}
    with snapshot_errors(), write_lock_of(using), _with_related_rows(using):
        keys = [StreamKey(stream.path, stream.pk) for stream in streams]
        # Before the rows: a receiver of the project may delete the stream of a deleted row, and has nothing to do then.
        count, commits = _delete(keys, using, must_exist=must_exist)
        related_counts = related_rows.follow(streams, using)
    notify_on_commit(commits, using)
    return count, related_counts


def is_under_way(stream: StreamMethods, using: str) -> bool:
    """Return whether a deletion of a stream is under way, and a receiver for one of its rows deletes it again."""
    return related_rows.is_followed(stream.pk, using)


def delete_keys(keys: Sequence[StreamKey], using: str) -> int:
    """Delete streams as `delete` does, and return their number. Only those are loaded to which other rows refer.

    Raises:
        ProtectedError, RestrictedError: a row of the project forbids the deletion.
    """
    if not keys:
        return 0
    streams = Stream.objects.using(using).filter(has_id("id", [key.id for key in keys], using))
    if related_rows.refer_to(streams, using):
        return delete(list(streams.filter(path__isnull=False)), using)[0]
    with snapshot_errors(), write_lock_of(using):
        count, commits = _delete(keys, using)
    notify_on_commit(commits, using)
    return count


def delete_unchanged(rows: Sequence[tuple[str, int, int]], using: str) -> int:
    """Delete streams to which nothing was appended since they were read, and return their number.

    A caller that deletes streams because they are unused has not seen appends of transactions that were still open.

    Args:
        rows: path, id and tail position of each stream.
        using: alias of the database.

    Raises:
        ProtectedError, RestrictedError: a row of the project forbids the deletion.
    """
    if not rows:
        return 0
    operations = [Delete(path, stream_id, tail) for path, stream_id, tail in _youngest_first(rows)]
    with snapshot_errors(), write_lock_of(using), _with_related_rows(using):
        query = Stream.objects.using(using).filter(has_id("id", [stream_id for _, stream_id, _ in rows], using))
        streams = list(query) if related_rows.refer_to(query, using) else []
        outcomes, commits = write(operations, using)
        pairs = zip(operations, outcomes, strict=True)
        deleted = {operation.stream_id for operation, outcome in pairs if isinstance(outcome, Done)}
        related_rows.follow([stream for stream in streams if stream.pk in deleted], using)
    notify_on_commit(commits, using)
    return len(deleted)


def _delete(keys: Iterable[StreamKey], using: str, *, must_exist: bool = False) -> tuple[int, list[Commit]]:
    outcomes, commits = write([Delete(path, stream_id) for path, stream_id in _youngest_first(keys)], using)
    deleted = [outcome for outcome in outcomes if not isinstance(outcome, StreamNotFound | StreamGone)]
    for outcome in outcomes if must_exist else deleted:
        result_of(outcome)
    return len(deleted), commits


def _youngest_first(rows: Iterable[Row]) -> list[Row]:
    """Return forks, which are younger, before their sources: a source without forks need not be kept.

    The second value of a row is the id.
    """
    return sorted(rows, key=itemgetter(1), reverse=True)


def _with_related_rows(using: str) -> AbstractContextManager[object]:
    """Return a transaction where other models refer to streams. Elsewhere one that begins with a read may fail."""
    return _transaction_with_related_rows(using) if related_rows.are_there() else nullcontext()


@contextmanager
def _transaction_with_related_rows(using: str) -> Iterator[None]:
    with related_rows.counted_if_kept(), caller_transaction.atomic(using):
        yield
