"""Single operations for Python callers, inside whatever transaction they are in.

The rules and the errors are the wire's. Readers are woken when the transaction commits, and not at all when it is
rolled back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from django.db import transaction

from ..models import Stream
from ..protocol.errors import DurableStreamsError, StreamExists, StreamNotFound
from ..protocol.segments import Segment
from . import reading, writing
from .batch import Locked
from .cache import SegmentCache
from .info import StreamInfo
from .operations import Commit, Create, Created, Operation, Result

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
    outcomes, commits = writing.apply([operation], using)
    outcome = outcomes[0]
    if commits:
        transaction.on_commit(lambda: _tell(commits, using), using=using)
    if isinstance(outcome, DurableStreamsError):
        raise outcome
    assert not isinstance(outcome, Locked)  # it waits
    return outcome


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


def segments(path: str, position: int, using: str, page_bytes: int) -> Iterator[tuple[StreamInfo, Segment]]:
    """Yield what a stream has past a position, page by page, each with the stream as it was then.

    Raises:
        StreamNotFound, StreamGone: also in the middle, if the stream is deleted meanwhile.
    """
    cache = SegmentCache(0)
    first = find(path, using)
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
