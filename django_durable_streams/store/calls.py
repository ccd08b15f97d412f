"""Single operations for Python callers, inside whatever transaction they are in.

The rules and the errors are the wire's. Readers are woken when the transaction commits, and not at all when it is
rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

from django.db import connections, transaction
from django.utils import timezone

from ..models import Stream
from ..protocol.errors import DurableStreamsError, StreamExists, StreamNotFound
from ..protocol.offsets import Offset, Sentinel
from ..protocol.segments import Segment
from . import lifetime, reading, writing
from .batch import Locked, Outcome
from .cache import SegmentCache
from .info import StreamInfo
from .operations import Append, Appended, Commit, Create, Created, Operation, Result, Touch
from .turns import turn

Listener = Callable[[list[Commit], str], None]

_listeners: list[Listener] = []


def on_commit(listener: Listener) -> Listener:
    """Register a function that is called with what a caller's transaction changed, and the alias of its database."""
    _listeners.append(listener)
    return listener


def apply(operation: Operation, using: str) -> Result:
    """Apply an operation in the caller's transaction, or in one of its own, and return its result.

    Raises:
        DurableStreamsError: the operation was refused; nothing was changed.
    """
    with _turn(using):
        outcomes, commits = writing.apply([operation], using)
    _tell_on_commit(commits, using)
    return _result(outcomes[0])


def append_all(portions: Iterable[list[Append]], using: str) -> Appended | None:
    """Apply appends to one stream in one transaction, a portion at a time in memory, and return the last's result.

    Raises:
        DurableStreamsError: one was refused; nothing was changed.
    """
    result: Result | None = None
    whole: Commit | None = None
    with transaction.atomic(using=using):
        for operations in portions:
            outcomes, commits = writing.apply(operations, using)
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


def _result(outcome: Outcome) -> Result:
    if isinstance(outcome, DurableStreamsError):
        raise outcome
    assert not isinstance(outcome, Locked)  # it waits
    return outcome


def _turn(using: str) -> AbstractContextManager[object]:
    """Return what to hold around an operation. Inside a transaction, the caller's turn has begun with that."""
    return nullcontext() if connections[using].in_atomic_block else turn(using).taken()


def _tell_on_commit(commits: list[Commit], using: str) -> None:
    if commits:
        transaction.on_commit(lambda: _tell(commits, using), using=using)


def _tell(commits: list[Commit], using: str) -> None:
    for listener in _listeners:
        listener(commits, using)


def ensure(operation: Create, using: str) -> tuple[Stream, bool]:
    """Return the stream that a create asks for, and whether it was made now."""
    result = apply(operation, using)
    assert isinstance(result, Created)
    return Stream.objects.using(using).get(path=operation.path), result.created


def create(operation: Create, using: str) -> Stream:
    """Return a new stream.

    Raises:
        StreamExists: the path is taken.
    """
    stream, created = ensure(operation, using)
    if not created:
        raise StreamExists(f"There is a stream at {operation.path} already.")
    return stream


def find(path: str, using: str) -> StreamInfo:
    """Return a stream as it is now.

    Raises:
        StreamNotFound, StreamGone.
    """
    found = reading.find([path], using)[path]
    if isinstance(found, DurableStreamsError):
        raise found
    return found


def segments(path: str, offset: Offset | Sentinel, using: str, page_bytes: int) -> Iterator[tuple[StreamInfo, Segment]]:
    """Yield what a stream has past an offset, page by page, each with the stream as it was then. Renews its TTL.

    Raises:
        OffsetGone, StreamNotFound, StreamGone: also in the middle, if the stream is deleted meanwhile.
    """
    cache = SegmentCache(0)
    first = find(path, using)
    position = first.locate(offset)
    if lifetime.needs_touch(first.ttl, first.deadline, timezone.now()):
        apply(Touch(path), using)
    info = first
    while position < info.tail:
        key = (info.id, position)
        segment = reading.pages([reading.PageRequest(info, position, page_bytes)], cache, using)[key]
        if segment is None:
            raise StreamNotFound("The stream was deleted.")
        yield info, segment
        position = segment.end
        info = find(path, using)
        if info.id != first.id:
            raise StreamNotFound("The stream was deleted, and there is another one now at its path.")
