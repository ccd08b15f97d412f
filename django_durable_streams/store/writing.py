"""Applying a batch of operations in one transaction, with a number of queries that does not depend on its size.

The streams' rows are locked in the order of their ids, operations are applied to working copies in the order in which
they came, and what changed is written: one chunk per stream, one row per producer. An operation that breaks a rule
answers only itself. An error of the database fails the batch as a whole; `engine` then tries its operations alone.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from sys import byteorder
from typing import Any

from django.db import Error, connections, transaction
from django.utils import timezone

from ..models import Chunk, Producer, Stream
from ..protocol.errors import DurableStreamsError, StreamGone, StreamNotFound
from ..protocol.producers import ProducerState
from .operations import Append, Commit, Create, Delete, Done, Operation, Result
from .sql import Statements, statements
from .state import StreamState

Outcome = Result | DurableStreamsError

MAX_CHUNK_BYTES = 1024 * 1024
"""A commit's data is cut into rows of about this size, between appends, so that a page never drags in much more."""

_COLUMNS = (
    "id",
    "path",
    "content_type",
    "tail",
    "closed",
    "closed_by",
    "last_seq",
    "ttl",
    "expires_at",
    "deadline",
    "deleted_at",
)


def apply(operations: Sequence[Operation], using: str) -> tuple[list[Outcome], list[Commit]]:
    """Apply operations in one transaction and return what became of each, and what changed.

    Args:
        operations: what to do, in order.
        using: alias of the database.

    Raises:
        CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
        django.db.Error: nothing was changed.
    """
    saved = False
    try:
        with transaction.atomic(using=using):
            batch = _Batch(using)
            batch.load(operations)
            outcomes = [batch.apply(operation) for operation in operations]
            commits = batch.save()
            saved = True
    except Error as error:
        if saved and connections[using].vendor != "sqlite":
            raise CommitUncertain from error
        raise
    return outcomes, commits


class CommitUncertain(Exception):
    """The answer to a commit never came, so trying again could append twice."""


class _Batch:
    """The streams that a batch touches, between loading and saving."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.now = timezone.now()
        self.streams: dict[str, StreamState] = {}
        self.gone: set[str] = set()
        self.removed: list[StreamState] = []

    def load(self, operations: Sequence[Operation]) -> None:
        """Lock and read the rows of all streams and producers that the operations name."""
        rows = Stream.objects.using(self.using).filter(path__in={operation.path for operation in operations})
        if connections[self.using].features.has_select_for_update:
            rows = rows.select_for_update()
        for *fields, deleted_at in rows.order_by("id").values_list(*_COLUMNS):
            state = StreamState(*fields)
            if deleted_at is not None:
                self.gone.add(state.path)
            elif state.deadline is not None and state.deadline <= self.now:
                self.removed.append(state)
            else:
                self.streams[state.path] = state
        self._load_producers(operations)

    def _load_producers(self, operations: Sequence[Operation]) -> None:
        named: dict[int, StreamState] = {}
        ids: set[str] = set()
        for operation in operations:
            if type(operation) is Append and operation.producer is not None:
                state = self.streams.get(operation.path)
                if state is not None:
                    named[state.id] = state
                    ids.add(operation.producer.id)
        if not named:
            return
        rows = Producer.objects.using(self.using).filter(stream_id__in=named, producer_id__in=ids)
        for stream_id, producer_id, epoch, seq in rows.values_list("stream_id", "producer_id", "epoch", "seq"):
            named[stream_id].producers[producer_id] = ProducerState(epoch, seq)

    def apply(self, operation: Operation) -> Outcome:
        """Apply one operation to the working copies and return its result, or the error that it gets."""
        try:
            state = self.streams.get(operation.path)
            if type(operation) is Append:
                return self._existing(operation, state).append(operation, self.now)
            if type(operation) is Create:
                return self._create(operation, state)
            state = self._existing(operation, state)
            if type(operation) is Delete:
                del self.streams[state.path]
                self.removed.append(state)
            else:
                state.touch(self.now)
            return Done()
        except DurableStreamsError as error:
            return error

    def _existing(self, operation: Operation, state: StreamState | None) -> StreamState:
        if state is not None:
            return state
        if operation.path in self.gone:
            raise StreamGone("The stream was deleted; forks still read its data.")
        raise StreamNotFound("There is no stream at this path. Create it with PUT.")

    def _create(self, operation: Create, state: StreamState | None) -> Outcome:
        if state is not None:
            return state.confirm(operation)
        state = StreamState.make(operation, self.now)
        self.streams[state.path] = state
        return state.describe(created=True)

    def save(self) -> list[Commit]:
        """Write what changed and return it, stream by stream."""
        sql = statements(self.using)
        moment = connections[self.using].ops.adapt_datetimefield_value
        now = moment(self.now)
        removed = [state for state in self.removed if state.id]
        changed = [state for state in self.streams.values() if state.changed and state.id]
        created = [state for state in self.streams.values() if not state.id]
        with connections[self.using].cursor() as cursor:
            if removed:
                cursor.executemany(sql.remove_stream, [(now, state.id) for state in removed])
            if created:
                self._insert_streams(cursor, sql, created, moment)
            if changed:
                cursor.executemany(
                    sql.update_stream,
                    [
                        (
                            state.tail,
                            state.closed,
                            state.closed_by,
                            state.last_seq,
                            moment(state.deadline),
                            now if state.appended else None,
                            state.id,
                        )
                        for state in changed
                    ],
                )
            written = [*changed, *created]
            chunks = [row for state in written if state.appended for row in _chunk_rows(state, now)]
            if chunks:
                cursor.executemany(sql.insert_chunk, chunks)
            _save_producers(cursor, sql, written, now)
        return [_commit(state) for state in written] + [_removal(state) for state in removed]

    def _insert_streams(self, cursor: Any, sql: Statements, created: list[StreamState], moment: Any) -> None:
        by_path = {state.path: state for state in created}
        for stream_id, path in sql.insert_streams(
            cursor,
            [
                (
                    state.path,
                    state.content_type,
                    state.tail,
                    0,
                    state.closed,
                    "",
                    state.ttl,
                    moment(state.expires_at),
                    moment(state.deadline),
                    moment(self.now),
                    moment(self.now) if state.appended else None,
                )
                for state in created
            ],
        ):
            by_path[path].id = stream_id


def _chunk_rows(state: StreamState, now: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the chunks for what a stream got in this batch: one, or several where it is much."""
    start = state.start
    parts: list[bytes] = []
    ends: list[int] = []
    for part, end in zip(state.data, state.ends, strict=True):
        if ends and end - start > MAX_CHUNK_BYTES:
            yield state.id, start, ends[-1], b"".join(parts), pack_ends(start, ends), now
            start, parts, ends = ends[-1], [], []
        parts.append(part)
        ends.append(end)
    yield state.id, start, ends[-1], b"".join(parts), pack_ends(start, ends), now


def pack_ends(start: int, ends: Iterable[int]) -> bytes:
    """Return a chunk's `ends`: positions relative to its start as 32-bit little-endian, empty for one append."""
    relative = array("I", [end - start for end in ends])
    if len(relative) == 1:
        return b""
    if byteorder == "big":
        relative.byteswap()
    return relative.tobytes()


def _save_producers(cursor: Any, sql: Statements, states: Iterable[StreamState], now: Any) -> None:
    new = []
    known = []
    for state in states:
        for name in state.new_producers:
            new.append((state.id, name, *state.producers[name], now))
        for name in state.touched_producers - state.new_producers:
            known.append((*state.producers[name], now, state.id, name))
    if new:
        cursor.executemany(sql.insert_producer, new)
    if known:
        cursor.executemany(sql.update_producer, known)


def _commit(state: StreamState) -> Commit:
    return Commit(
        state.id,
        state.path,
        state.content_type,
        state.start,
        state.tail,
        state.closed,
        data=b"".join(state.data),
        ends=state.ends,
    )


def _removal(state: StreamState) -> Commit:
    return Commit(state.id, state.path, state.content_type, state.tail, state.tail, state.closed, removed=True)


def expire(using: str, now: datetime | None = None, limit: int = 500) -> list[Commit]:
    """Remove up to `limit` streams whose deadline has passed, and return what changed.

    Reads and writes never see an expired stream; this gives its rows to `purge`.
    """
    moment = now or timezone.now()
    rows = Stream.objects.using(using).expired(moment).filter(path__isnull=False)
    if not rows.exists():
        return []  # without a transaction, which would be a writer's turn on SQLite
    with transaction.atomic(using=using):
        if connections[using].features.has_select_for_update_skip_locked:
            rows = rows.select_for_update(skip_locked=True)
        streams = list(rows.order_by("id").values_list("id", "path", "content_type", "tail", "closed")[:limit])
        Stream.objects.using(using).filter(id__in=[row[0] for row in streams]).update(path=None, deleted_at=moment)
    return [Commit(id, path or "", kind, tail, tail, closed, removed=True) for id, path, kind, tail, closed in streams]


def purge(using: str, rows: int = 200) -> bool:
    """Delete some rows of removed streams, in a short transaction, and return whether there may be more."""
    stream_id = Stream.objects.using(using).purgeable().order_by("id").values_list("id", flat=True).first()
    if stream_id is None:
        return False
    with transaction.atomic(using=using):
        for model in (Chunk, Producer):
            manager = model._default_manager.using(using)
            found = list(manager.filter(stream_id=stream_id).values_list("pk", flat=True)[:rows])
            if found:
                manager.filter(pk__in=found).delete()
                return True
        Stream.objects.using(using).filter(id=stream_id, path__isnull=True).delete()
    return True
