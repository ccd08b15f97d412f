"""Single operations for Python callers, inside whatever transaction they are in.

The rules and the errors are the wire's. Readers are woken when the transaction commits, and not at all when it is
rolled back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from django.db import DatabaseError, IntegrityError, connections

from .. import clock
from ..engine.engine import announce
from ..models.methods import StreamMethods
from ..protocol import text
from ..protocol.errors import DurableStreamsError, StreamExists, StreamGone, StreamNotFound
from ..protocol.offsets import Offset, Sentinel
from ..protocol.segments import Segment
from ..protocol.values import Data, MessageReader
from ..runtime import caller_transaction, test_transactions
from ..runtime.after_commit import follow_up
from ..runtime.write_lock import write_lock
from ..store import lifetime
from ..store.operations import Append, Appended, Commit, Create, Created, Delete, Operation, Result, Touch
from ..store.read import lineage, log_reader
from ..store.read.segment_cache import SegmentCache
from ..store.sql import statements
from ..store.stream_info import StreamInfo
from ..store.upkeep import related_rows
from ..store.write import group_commit
from ..store.write.batch import Locked, Outcome, expect

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=StreamMethods)

Listener = Callable[[list[Commit], str], None]

_listeners: list[Listener] = [announce]
"""Functions that learn what a caller's transaction has changed, and the alias of its database."""


def apply(operation: Operation, using: str) -> Result:
    """Apply an operation in the caller's transaction, or in one of its own, and return its result.

    Raises:
        DurableStreamsError: the operation was refused; nothing was changed.
    """
    return _apply(operation, using)[0]


def _apply(operation: Operation, using: str) -> tuple[Result, list[Commit]]:
    """The same; returns what has changed, too."""
    with _write_lock(using):
        outcomes, commits = _write([operation], using)
    _tell_on_commit(commits, using)
    return _result(outcomes[0]), commits


def append_all(portions: Iterable[list[Append]], using: str) -> Appended | None:
    """Apply appends to one stream in one transaction, a portion at a time in memory, and return the last's result.

    Raises:
        DurableStreamsError: one was refused; nothing was changed.
    """
    test_transactions.check_thread(using)
    result: Result | None = None
    whole: Commit | None = None
    with caller_transaction.atomic(using):
        for operations in portions:
            outcomes, commits = _write(operations, using)
            for outcome in outcomes:
                result = _result(outcome)
            for commit in commits:
                # Without the data, which would be held until the whole is committed. Readers fetch it page by page.
                whole = commit if whole is None else _joined(whole, commit)
        if whole is not None:
            _tell_on_commit([whole], using)
    assert result is None or isinstance(result, Appended)
    return result


def _joined(whole: Commit, commit: Commit) -> Commit:
    before = whole.generation_before
    return replace(commit, start=whole.start, generation_before=before, appends=(), ends=[])


def delete(streams: Sequence[StreamMethods], using: str, *, all_there: bool = False) -> tuple[int, dict[str, int]]:
    """Delete streams in one transaction, and return how many, and how many rows of other models by label.

    Args:
        all_there: whether one that is gone already is an error, rather than passed over.

    Raises:
        StreamNotFound, StreamGone: `all_there`, and one is not.
        ProtectedError, RestrictedError: a row of the project's forbids it.
    """
    if not streams:
        return 0, {}
    # Forks, which are younger, before what they were forked from: that need not be kept for them then.
    youngest_first = sorted(streams, key=lambda stream: -int(stream.pk))
    operations = [Delete(stream.path, stream.pk) for stream in youngest_first]
    # Several steps only where there are others' rows: a transaction that begins by reading may not get to write.
    with _write_lock(using), caller_transaction.atomic(using) if related_rows.are_there() else nullcontext():
        others = related_rows.follow(streams, using)
        outcomes, commits = _write(operations, using)
        done = [outcome for outcome in outcomes if not isinstance(outcome, StreamNotFound | StreamGone)]
        for outcome in outcomes if all_there else done:
            _result(outcome)
    _tell_on_commit(commits, using)
    return len(done), others


def _write(operations: Sequence[Operation], using: str) -> tuple[list[Outcome], list[Commit]]:
    """Apply operations as `writing.apply` does.

    Raises:
        django.db.Error: nothing was changed; or the connection was lost in the commit, and everything was, or nothing.
    """
    tries = 1
    while True:
        try:
            return group_commit.apply(operations, using)
        except IntegrityError:
            if tries == group_commit.TRIES:
                raise
            tries += 1
        except group_commit.CommitUncertain as error:
            if error.__cause__ is None:
                raise
            raise error.__cause__ from error.__cause__.__cause__


def _result(outcome: Outcome) -> Result:
    if isinstance(outcome, DurableStreamsError):
        raise outcome
    assert not isinstance(outcome, Locked)  # it waits
    return outcome


def _write_lock(using: str) -> AbstractContextManager[object]:
    """Return what to hold around an operation. Inside a transaction, the caller's turn has begun with that."""
    test_transactions.check_thread(using)
    return nullcontext() if caller_transaction.in_callers_transaction(connections[using]) else write_lock(using).hold()


def _tell_on_commit(commits: list[Commit], using: str) -> None:
    if commits:
        caller_transaction.on_commit(lambda: _tell(commits, using), using)


def _tell(commits: list[Commit], using: str) -> None:
    for listener in _listeners:
        follow_up("Somebody who listens to commits was not told.", listener, commits, using)


def ensure(operation: Create, using: str, model: type[M]) -> tuple[M, bool]:
    """Return the stream that a create asks for, as an instance of a model, and whether it was made now."""
    result, commits = _apply(operation, using)
    assert isinstance(result, Created)
    # The one that was made, by its id: somebody may have deleted it since, and made another one.
    made = [commit.stream_id for commit in commits if commit.created and commit.path == operation.path]
    query = model._base_manager.using(using).filter(**({"pk": made[0]} if made else {"path": operation.path}))
    if statements(using).reads_old_snapshot():
        query = query.select_for_update()  # it may be younger than the snapshot
    found = query.first()
    if found is None:
        raise StreamNotFound("The stream was deleted.")
    return found, result.created


def create(operation: Create, using: str, model: type[M]) -> M:
    """Return a new stream.

    Raises:
        StreamExists: the path is taken.
    """
    stream, created = ensure(operation, using, model)
    if not created:
        raise StreamExists(f"There is a stream at {operation.path} already.")
    return stream


def find(path: str, using: str, stream_id: int | None = None) -> StreamInfo:
    """Return a stream as it is now.

    Args:
        stream_id: of the stream that is meant; None for whichever is at the path.

    Raises:
        StreamNotFound, StreamGone: also if it is another one that is at the path now.
    """
    test_transactions.check_thread(using)
    found = log_reader.find([path], using)[path]
    if isinstance(found, DurableStreamsError):
        raise found
    if stream_id is not None:
        expect(stream_id, found.id, path)
    return found


def renew(info: StreamInfo, using: str) -> None:
    """Start a stream's TTL anew where a read has to, once the caller's transaction has ended.

    A read waits for nobody and keeps nobody waiting: inside the transaction, the row would be held up to its end. Where
    somebody else holds it, the next read does this.
    """
    now = clock.now()
    if lifetime.needs_touch(info.ttl, info.deadline, now):
        touch = Touch(info.path, now, info.id)
        caller_transaction.on_commit(
            partial(follow_up, "The TTL of a stream did not start anew.", _renew, touch, using), using
        )


def _renew(touch: Touch, using: str) -> None:
    with write_lock(using).try_hold() as is_ours:
        if is_ours:
            try:
                group_commit.apply([touch], using, wait=False, lock_ms=0)
            except DatabaseError as error:
                logger.debug("The TTL of %s did not start anew: %s", touch.path, error)


class Page(NamedTuple):
    """Messages of a stream that follow one another, and the stream as it was then."""

    info: StreamInfo
    messages: list[Data]
    end: int
    """The position behind what was read."""
    reader: MessageReader
    """Has what was read and is held back."""


def pages(path: str, stream_id: int, offset: Offset | Sentinel, using: str, page_bytes: int) -> Iterator[Page]:
    """Yield what a stream has past an offset, page by page. Renews its TTL.

    Raises:
        OffsetGone, StreamNotFound, StreamGone: also in the middle, if the stream is deleted meanwhile.
    """
    info = find(path, using, stream_id)
    info, position = lineage.locate(info, offset, using)
    renew(info, using)
    reader: MessageReader | None = None
    while position < info.tail:
        segment = _page(info, position, page_bytes, using)
        if reader is None:
            # What is known to be no character was read before: only what becomes one now was not.
            held = log_reader.held_before(info, position, using) if text.is_cut(segment.data) else b""
            reader = MessageReader(info.content_type, held)
        position = segment.end
        messages = list(reader.messages(segment, final=info.closed and position >= info.tail))
        info = lineage.around(info, using, position - text.MAX_HELD, position)
        yield Page(info, messages, position, reader)
        info = find(path, using, stream_id)
    if reader is not None and reader.held and info.closed:
        yield Page(info, list(reader.rest()), position, reader)


def _page(info: StreamInfo, position: int, page_bytes: int, using: str) -> Segment:
    request = log_reader.PageRequest(info, position, page_bytes)
    segment = log_reader.pages([request], SegmentCache(0), using)[info.id, position]
    if segment is None:
        find(info.path, using, info.id)  # it was deleted meanwhile, most likely
        raise log_reader.damaged(info.path)
    return segment
