"""Operations of Python callers, inside the caller's transaction.

They have the rules and errors of the protocol. Readers are woken when the transaction commits, and not at all if it is
rolled back. Knows no request and no event loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from django.db import DatabaseError, IntegrityError, OperationalError, connections

from .. import clock
from ..engine.announcements import announce
from ..models.methods import StreamMethods
from ..protocol import text
from ..protocol.errors import DurableStreamsError, StreamExists, StreamNotFound
from ..protocol.offsets import Offset, Sentinel
from ..protocol.segments import Segment
from ..protocol.values import Data, MessageReader
from ..runtime import caller_transaction, test_transactions
from ..runtime.after_commit import follow_up
from ..runtime.write_lock import write_lock
from ..store import lifetime
from ..store.operations import Append, Appended, Commit, Create, Created, Operation, Result, Touch
from ..store.read import lineage, log_reader
from ..store.read.segment_cache import SegmentCache
from ..store.sql import plain_errors, statements
from ..store.stream_info import StreamInfo
from ..store.write import group_commit
from ..store.write.batch import Locked, Outcome, expect
from .conflicts import conflict, is_conflict, is_duplicate, snapshot_errors

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=StreamMethods)

Listener = Callable[[list[Commit], str], None]

_listeners: list[Listener] = [announce]
"""Functions that get the commits of callers' transactions, with the alias of the database."""


def listen(listener: Listener) -> None:
    """Call a function after each transaction of a Python caller that has changed streams."""
    _listeners.append(listener)


def apply(operation: Operation, using: str) -> Result:
    """Apply an operation in the caller's transaction, or in one of its own, and return its result.

    Raises:
        DurableStreamsError: the operation was refused, and changed nothing.
    """
    return _apply(operation, using)[0]


def apply_all(operations: Sequence[Operation], using: str) -> list[Result]:
    """Apply operations together in the caller's transaction, which has to be rolled back if this raises.

    Raises:
        DurableStreamsError: an operation was refused. Others may have changed something.
    """
    with snapshot_errors(), write_lock_of(using):
        outcomes, commits = write(operations, using)
    notify_on_commit(commits, using)
    return [result_of(outcome) for outcome in outcomes]


def _apply(operation: Operation, using: str) -> tuple[Result, list[Commit]]:
    """The same. Returns the commits, too."""
    with snapshot_errors(), write_lock_of(using):
        outcomes, commits = write([operation], using)
    notify_on_commit(commits, using)
    return result_of(outcomes[0]), commits


def append_all(portions: Iterable[list[Append]], using: str) -> Appended | None:
    """Apply appends to one stream in one transaction, with one portion in memory at a time. Return the last result.

    Raises:
        DurableStreamsError: an append was refused, and nothing was changed.
    """
    test_transactions.check_thread(using)
    result: Result | None = None
    whole: Commit | None = None
    with snapshot_errors(), caller_transaction.atomic(using):
        for operations in portions:
            outcomes, commits = write(operations, using)
            for outcome in outcomes:
                result = result_of(outcome)
            for commit in commits:
                # Without the data, which would stay in memory until the commit. Readers fetch it page by page.
                whole = commit if whole is None else _joined(whole, commit)
        if whole is not None:
            notify_on_commit([whole], using)
    assert result is None or isinstance(result, Appended)
    return result


def _joined(whole: Commit, commit: Commit) -> Commit:
    before = whole.generation_before
    return replace(commit, start=whole.start, generation_before=before, appends=(), ends=[])


def write(operations: Sequence[Operation], using: str) -> tuple[list[Outcome], list[Commit]]:
    """Apply operations by `group_commit.apply`.

    Raises:
        django.db.Error: nothing was changed. If the connection was lost during the commit, all or nothing was changed.
    """
    tries = 1
    while True:
        try:
            with plain_errors():
                return group_commit.apply(operations, using)
        except (IntegrityError, OperationalError) as error:
            is_callers = caller_transaction.in_callers_transaction(connections[using])
            # In a transaction of its own, an operation gets a new snapshot with each attempt.
            may_succeed = isinstance(error, IntegrityError) or (is_conflict(error) and not is_callers)
            if may_succeed and tries < group_commit.TRIES:
                tries += 1
            elif is_callers and is_duplicate(error):
                raise conflict(error) from error.__cause__
            else:
                raise


def result_of(outcome: Outcome) -> Result:
    """Return an outcome as a result.

    Raises:
        DurableStreamsError: it is an error.
    """
    if isinstance(outcome, DurableStreamsError):
        raise outcome
    assert not isinstance(outcome, Locked)  # Python callers wait for locks
    return outcome


def write_lock_of(using: str) -> AbstractContextManager[object]:
    """Return the lock to hold around an operation. A caller's transaction holds the database's lock already."""
    test_transactions.check_thread(using)
    return nullcontext() if caller_transaction.in_callers_transaction(connections[using]) else write_lock(using).hold()


@contextmanager
def atomic(using: str) -> Iterator[None]:
    """Run the block, with several operations in it, in one transaction, or in a savepoint of the caller's."""
    with write_lock_of(using), caller_transaction.atomic(using):
        yield


def notify_on_commit(commits: list[Commit], using: str) -> None:
    """Let the listeners know of commits when the caller's transaction commits."""
    if commits:
        caller_transaction.on_commit(lambda: _notify(commits, using), using)


def _notify(commits: list[Commit], using: str) -> None:
    for listener in _listeners:
        follow_up("A listener did not learn of it.", listener, commits, using)


def ensure(operation: Create, using: str, model: type[M]) -> tuple[M, bool]:
    """Return the stream of a create as an instance of a model, and whether it was created now."""
    result, commits = _apply(operation, using)
    assert isinstance(result, Created)
    # A new stream by its id: other code may have deleted it since, and created another one.
    new_ids = [commit.stream_id for commit in commits if commit.created and commit.path == operation.path]
    query = model._base_manager.using(using).filter(**({"pk": new_ids[0]} if new_ids else {"path": operation.path}))
    if statements(using).reads_old_snapshot():
        query = query.select_for_update()  # the row may be newer than the transaction's snapshot
    with snapshot_errors():
        stream = query.first()
    if stream is None:
        raise StreamNotFound("The stream was deleted.")
    return stream, result.created


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
    """Return the present metadata of a stream.

    Args:
        stream_id: id that the stream at the path must have. None: any stream.

    Raises:
        StreamNotFound, StreamGone: the stream is gone, or another one is at the path now.
    """
    test_transactions.check_thread(using)
    with snapshot_errors():
        info = log_reader.find([path], using)[path]
    if isinstance(info, DurableStreamsError):
        raise info
    if stream_id is not None:
        expect(stream_id, info.id, path)
    return info


def renew(info: StreamInfo, using: str) -> None:
    """Renew the TTL of a stream after a read, once the caller's transaction has ended.

    A read blocks no other code and waits for none: inside the transaction, the row would stay locked until its end. If
    another transaction holds the row, the next read renews the TTL.
    """
    now = clock.now()
    if lifetime.needs_touch(info.ttl, info.deadline, now):
        touch = Touch(info.path, now, info.id)
        caller_transaction.on_commit(
            partial(follow_up, "The TTL of a stream was not renewed.", _renew, touch, using), using
        )


def _renew(touch: Touch, using: str) -> None:
    with write_lock(using).try_hold() as is_held:
        if is_held:
            try:
                with plain_errors():
                    group_commit.apply([touch], using, wait=False, lock_ms=0)
            except DatabaseError as error:
                logger.debug("The TTL of %s was not renewed. The next read tries again: %s", touch.path, error)


class Page(NamedTuple):
    """Consecutive messages of a stream, and its metadata at the time of the read."""

    info: StreamInfo
    messages: list[Data]
    end: int
    """The position after the last byte that was read."""
    reader: MessageReader
    """Holds back the bytes of an incomplete character."""


def pages(path: str, stream_id: int, offset: Offset | Sentinel, using: str, page_bytes: int) -> Iterator[Page]:
    """Yield the messages after an offset, page by page. Renews the TTL of the stream.

    Raises:
        OffsetGone, OffsetTrimmed, StreamNotFound, StreamGone: also between pages, if the stream is deleted or trimmed
            meanwhile.
        TransactionConflict.
    """
    with snapshot_errors():
        yield from _pages(path, stream_id, offset, using, page_bytes)


def _pages(path: str, stream_id: int, offset: Offset | Sentinel, using: str, page_bytes: int) -> Iterator[Page]:
    info = find(path, using, stream_id)
    info, position = lineage.locate(info, offset, using)
    renew(info, using)
    reader: MessageReader | None = None
    while position < info.tail:
        lineage.check_retained(info, position, using)
        segment = _page(info, position, page_bytes, using)
        if reader is None:
            # Earlier reads returned all bytes before the position, except the beginning of an incomplete character.
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
        find(info.path, using, info.id)  # raises if the stream was deleted meanwhile
        raise log_reader.explain_missing(info, position, using)
    return segment
