"""The statements as every database understands them: all of MySQL's and MariaDB's, and what the others begin with."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeVar

from django.db import Error, connections
from django.db.models import Model

from ...clock import from_microseconds
from ...models import Chunk, Producer, Stream
from ...runtime.caller_transaction import atomic, in_callers_transaction
from ..stream_info import StreamInfo
from .columns import CHUNK_COLUMNS, PRODUCER_COLUMNS, READ_COLUMNS, STREAM_COLUMNS

Row = tuple[Any, ...]
T = TypeVar("T")


class CommitUncertain(Exception):
    """The answer to a commit never came, so trying again could append twice."""


TO_THE_END = 2**63 - 1
"""A position behind everything."""


class LoadedRows(NamedTuple):
    """Streams that a transaction has locked, (stream id, producer id, epoch, seq) of their producers, and the paths of
    those that others hold."""

    streams: list[StreamInfo]
    producers: list[Sequence[Any]]
    locked: Collection[str]


class StagedSpan(NamedTuple):
    """Where a recent chunk of a stream starts and ends, its packed ends, and how many bytes of data it has."""

    id: int
    stream_id: int
    is_there: bool
    """Whether the stream still is."""
    start: int
    end: int
    ends: bytes
    size: int


class ChunkContents(NamedTuple):
    """What is in some chunks: their ids, the data of all, and the packed ends and the size of each's data."""

    ids: Sequence[int]
    data: bytes
    ends: Sequence[bytes]
    sizes: Sequence[int]


class Insert(NamedTuple):
    """An INSERT up to its rows, and the types of its columns."""

    head: str
    types: tuple[str, ...]


Lock = Literal["no", "share", "wait", "skip"]

_SHARED_LOCK = " LOCK IN SHARE MODE"
"""What makes MySQL and MariaDB read what is there, and not what was there when the transaction's snapshot was made."""

_ROWS_PER_STATEMENT = 500
"""Times the columns, this stays below the number of parameters that a statement may have anywhere."""

_RANGES_PER_STATEMENT = 64
"""Ranges of chunks that one statement reads: each is a condition of its own."""

_BYTES_PER_STATEMENT = 4 * 1024 * 1024
"""Data in a statement: MySQL takes 16 MiB as it is installed, and bytes may double on their way."""


class Statements:
    """SQL for one database connection's vendor."""

    _lock_clause = " FOR UPDATE"

    supports_blind_insert = False
    """Whether streams can be made without a look at what is there (`insert_copies`)."""

    versions_rows = False
    """Whether each row tells which transaction wrote it, so that `update_if_unchanged` can see that it is as it was."""

    def __init__(self, using: str) -> None:
        connection = connections[using]
        self._using = using
        self._quote = connection.ops.quote_name
        self._returning = connection.features.can_return_rows_from_bulk_insert
        stream, chunk, producer = (self._table(model) for model in (Stream, Chunk, Producer))
        name = self._quote
        self._stream, self._producer = stream, producer
        self._update_stream = (
            f"UPDATE {stream} SET {name('tail')}=%s, {name('closed')}=%s, {name('closed_by')}=%s, "
            f"{name('last_seq')}=%s, {name('deadline')}=%s, "
            f"{name('appended_at')}=COALESCE(%s, {name('appended_at')}) WHERE {name('id')}=%s"
        )
        self._update_lifetime = (
            f"UPDATE {stream} SET {name('ttl')}=%s, {name('expires_at')}=%s, {name('deadline')}=%s "
            f"WHERE {name('id')}=%s"
        )
        self._remove_stream = (
            f"UPDATE {stream} SET {name('path')}=NULL, {name('source_id')}=NULL, {name('lineage')}=NULL, "
            f"{name('deleted_at')}=%s WHERE {name('id')}=%s"
        )
        self._soft_delete_stream = f"UPDATE {stream} SET {name('deleted_at')}=%s WHERE {name('id')}=%s"
        self._insert_chunk = self._insert(chunk, CHUNK_COLUMNS)
        self._insert_producer = self._insert(producer, PRODUCER_COLUMNS)
        self._update_producer = (
            f"UPDATE {producer} SET {name('epoch')}=%s, {name('seq')}=%s, {name('updated_at')}=%s "
            f"WHERE {name('stream_id')}=%s AND {name('producer_id')}=%s"
        )
        self._insert_stream = self._insert(stream, STREAM_COLUMNS)
        self._select_ids = f"SELECT {name('id')}, {name('path')} FROM {stream} WHERE "
        self._returning_ids = f" RETURNING {name('id')}, {name('path')}"
        columns = ", ".join(name(column) for column in StreamInfo._fields)
        self._select_streams = f"SELECT {columns} FROM {stream} WHERE "
        self.can_skip_locked = connection.features.has_select_for_update_skip_locked
        ordered = f" ORDER BY {name('id')}"
        waiting = self._lock_clause if connection.features.has_select_for_update else ""
        self._is_mysql = connection.vendor == "mysql"
        self._locks = {
            "no": "",
            "share": ordered + (_SHARED_LOCK if self._is_mysql else ""),
            "wait": ordered + waiting,
            "skip": ordered + waiting + (" SKIP LOCKED" if self.can_skip_locked else ""),
        }
        self._select_producers = (
            f"SELECT {name('stream_id')}, {name('producer_id')}, {name('epoch')}, {name('seq')} FROM {producer} WHERE "
        )
        # Where a transaction reads from a snapshot that is older than its lock on the stream: this reads what is there.
        self._producers_lock = " FOR UPDATE" if self._is_mysql else ""
        self._chunk = chunk
        self._select_spans = (
            f"SELECT {name('stream_id')}, {name('id')}, {name('start')}, {name('end')} FROM {chunk} WHERE "
        )
        self._select_chunks = f"SELECT {', '.join(name(column) for column in READ_COLUMNS)} FROM {chunk} WHERE "
        self._in_order = f" ORDER BY {name('stream_id')}, {name('end')}"
        self._in_reverse = f" ORDER BY {name('stream_id')} DESC, {name('end')} DESC"
        self._read_chunks = f"SELECT {name('id')}, {name('data')}, {name('ends')} FROM {chunk} WHERE "
        self._lock_chunks = f"SELECT {name('id')} FROM {chunk} WHERE "
        self._chunks_lock = " FOR UPDATE SKIP LOCKED" if self.can_skip_locked else ""

    @contextmanager
    def transaction(self, lock_ms: int | None = None, waits: Callable[[], None] | None = None) -> Iterator[Any]:
        """Yield the cursor to work with in a transaction of its own or, inside the caller's, up to a savepoint.

        Args:
            lock_ms: how long the statements of a transaction of its own wait for a lock, in milliseconds, where the
                database can be told so for a transaction (PostgreSQL). None: as long as the connection is told to. 0 on
                SQLite: not at all.
            waits: is called before a transaction of its own waits for the server, or for its turn or the disk.

        Raises:
            CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
            django.db.Error: nothing was changed.
        """
        if waits is not None:
            waits()
        done = False
        try:
            with atomic(self._using):
                with connections[self._using].cursor() as cursor:
                    yield cursor
                done = True
        except Error as error:
            if done and connections[self._using].vendor != "sqlite":
                raise CommitUncertain from error
            raise

    @contextmanager
    def insertion(
        self, rows: int, lock_ms: int | None = None, waits: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        """The same for a transaction that writes nothing but some streams, by one `insert_copies`.

        Args:
            rows: how many streams, at the most.
        """
        with self.transaction(lock_ms, waits) as cursor:
            yield cursor

    def version(self, cursor: Any) -> int | None:
        """Return a number that changes when another connection commits; None where the database has none."""
        return None

    def version_written(self, cursor: Any) -> Iterable[Sequence[Any]] | None:
        """Return what will tell, once that is committed, the version of the rows that this transaction writes.

        It is a row of one number. None where rows have no versions.
        """
        return None

    def update_if_unchanged(
        self, cursor: Any, streams: Sequence[Row], chunks: Sequence[Row], producers: Sequence[Row]
    ) -> Iterable[Sequence[Any]]:
        """Write to streams without a look at them before, but to those only that are as they were (`versions_rows`).

        Args:
            streams: as `update_streams` takes them, each with the version that its row has to have, and the tail.
            chunks, producers: as `insert_chunks` and `update_producers` take them.

        Returns:
            The ids of the streams that were written to, and the versions that their rows have then.
        """
        raise NotImplementedError

    def wait_for_stream(self, cursor: Any, path: str, lock_ms: int) -> None:
        """Take the row of a stream for this transaction, if there is one, waiting for whoever holds it.

        Args:
            lock_ms: how long to wait, in milliseconds.
        """
        if self._is_mysql:
            self._execute(cursor, f"SET SESSION innodb_lock_wait_timeout = {max(round(lock_ms / 1000), 1)}", ())
        self.select_streams(cursor, "path", [path], lock="wait")

    def reads_old_snapshot(self) -> bool:
        """Whether a plain read in the present transaction may not see what was committed before its locks."""
        return self._is_mysql and in_callers_transaction(connections[self._using])

    def flush(self, cursor: Any) -> None:
        """See that all statements so far were executed, for others that do not go by this cursor."""

    def lock_streams(
        self, cursor: Any, paths: Collection[str], producers: Collection[tuple[str, str]], *, wait: bool, absent: bool
    ) -> LoadedRows:
        """Take the rows of streams for this transaction, in the order of their ids, and read these and producers.

        Args:
            producers: those wanted, by path and producer id. There may be others of the same streams among those found.
            wait: whether to wait for rows that others hold, or to leave those out.
            absent: whether some of the streams are likely not to be there.
        """
        found = self.select_streams(cursor, "path", paths, lock="wait" if wait else "skip")
        ids = {info.path: info.id for info in found}
        locked: list[str] = []
        if not wait and self.can_skip_locked and len(found) < len(paths):
            # What is not there at all, or what somebody else holds?
            missing = [path for path in paths if path not in ids]
            locked = [info.path for info in self.select_streams(cursor, "path", missing)]
        wanted = {(ids[path], name) for path, name in producers if path in ids}
        return LoadedRows(found, self.select_producers(cursor, wanted) if wanted else [], locked)

    def select_streams(
        self,
        cursor: Any,
        column: Literal["path", "id"],
        values: Collection[object],
        *,
        lock: Lock = "no",
    ) -> list[StreamInfo]:
        """Return the streams with some paths or ids.

        Args:
            lock: whether to take their rows for this transaction, in order: waiting for those that others hold, or
                leaving those out; or only to see them as they are now, where the transaction has an older snapshot.
        """
        condition, parameters = self._among(column, values)
        rows = self._execute(cursor, f"{self._select_streams}{condition}{self._locks[lock]}", parameters)
        return [self._info(row) for row in rows.fetchall()]

    def select_producers(self, cursor: Any, wanted: Collection[tuple[int, str]]) -> list[Sequence[Any]]:
        """Return (stream id, producer id, epoch, seq) of some producers, wanted by stream and producer id.

        There may be others among them, of the same streams.
        """
        streams, first = self._among("stream_id", {stream_id for stream_id, _ in wanted})
        producers, second = self._among("producer_id", {producer_id for _, producer_id in wanted})
        rows = self._execute(
            cursor, f"{self._select_producers}{streams} AND {producers}{self._producers_lock}", [*first, *second]
        )
        found: list[Sequence[Any]] = rows.fetchall()
        return found

    def _info(self, row: Sequence[Any]) -> StreamInfo:
        info = StreamInfo._make(row)
        # Most streams have neither an end nor a source, and come as they are from every database but MySQL.
        if info.deadline is None and info.lineage is None and info.deleted_at is None and type(info.closed) is bool:
            return info
        return info._replace(
            closed=bool(info.closed),
            expires_at=_moment(info.expires_at),
            deadline=_moment(info.deadline),
            deleted_at=_moment(info.deleted_at),
            lineage=json.loads(info.lineage) if isinstance(info.lineage, str) else info.lineage,
        )

    def insert_streams(self, cursor: Any, rows: Sequence[Row]) -> Iterable[tuple[int, str]]:
        """Insert streams, in the order of `STREAM_COLUMNS`, and return the id and path of each.

        Where statements travel together, to look at these is to wait for all so far.
        """
        numbers: list[tuple[int, str]] = []
        for some in _slices(rows):
            if self._returning:
                found = self._insert_rows(cursor, self._insert_stream, some, self._returning_ids)
            else:
                self._insert_rows(cursor, self._insert_stream, some)
                condition, parameters = self._among("path", [row[0] for row in some])
                found = self._execute(cursor, f"{self._select_ids}{condition}", parameters)
            numbers += found.fetchall()
        return numbers

    def insert_copies(self, cursor: Any, row: Row, paths: Sequence[str]) -> Iterable[tuple[int, str]]:
        """Insert streams that are as a row says but for their paths, and return the id and path of each.

        None is inserted if one of the paths is taken, or there is an IntegrityError. Only where streams can be made
        like that (`supports_blind_insert`).
        """
        raise NotImplementedError

    def remove_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        """Give back the paths of streams, and let go of their sources."""
        for stream_id in ids:
            self._execute(cursor, self._remove_stream, (moment, stream_id))

    def soft_delete_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        """Close streams to the world that have forks."""
        for stream_id in ids:
            self._execute(cursor, self._soft_delete_stream, (moment, stream_id))

    def insert_chunks(self, cursor: Any, rows: Sequence[Row], recent: bool = False) -> None:
        """Insert chunks: stream_id, start, end, data, ends, created_at.

        Args:
            recent: whether small ones may wait to be gathered (see `store.recent`), where that is faster.
        """
        for some in portions(rows):
            self._insert_rows(cursor, self._insert_chunk, some)

    def select_chunks(
        self, cursor: Any, ranges: Collection[tuple[int, int, int]], *, latest: bool = False
    ) -> Iterable[Sequence[Any]]:
        """Return (stream id, start, end, data, ends) of the chunks in ranges, in order; the same ones may come twice.

        Args:
            ranges: stream id, the position after which a chunk must end, the position before which it must start.
                `TO_THE_END` where there is hardly anything behind: that is the quicker statement.
            latest: whether to see what was committed since the caller's transaction has its snapshot. Only where
                that `reads_old_snapshot`: elsewhere it is seen, or the lock of the stream's row has failed.
        """
        name = self._quote
        lock = _SHARED_LOCK if latest else ""
        # The first chunk that ends at a range's end, or past it, is the last one that is in the range. That it starts
        # before is nothing that the index knows.
        last = f"SELECT MIN({name('end')}) FROM {self._chunk} WHERE {name('stream_id')} = %s AND {name('end')} >= %s"
        begun = f"{name('stream_id')} = %s AND {name('end')} > %s"
        ended = f"{begun} AND {name('end')} <= COALESCE(({last}{lock}), %s)"
        found: list[Sequence[Any]] = []
        for some in _slices([*ranges], _RANGES_PER_STATEMENT):
            condition = " OR ".join(f"({begun if before == TO_THE_END else ended})" for _, _, before in some)
            values: list[int] = []
            for owner, after, before in some:
                values += (owner, after) if before == TO_THE_END else (owner, after, owner, before, before)
            sql = f"{self._select_chunks}{condition}{self._in_order}{lock}"
            found += self._execute(cursor, sql, values).fetchall()
        return found

    def staged_blocks(self, cursor: Any) -> list[int]:
        """Return the blocks in which there are recent chunks, the oldest first."""
        return []

    def read_block(self, cursor: Any, block: int) -> tuple[Iterator[StagedSpan], bytes]:
        """Return the chunks of a block, each stream's together and in order, and the data of all. SQLite's only."""
        raise NotImplementedError

    def delete_staged(self, cursor: Any, ids: Sequence[int]) -> int:
        """Delete recent chunks, and return how many of them were there. SQLite's only."""
        raise NotImplementedError

    def select_spans(self, cursor: Any, stream_ids: Sequence[int], limit: int) -> Sequence[Sequence[int]]:
        """Return (stream id, chunk id, start, end) of the last chunks of streams, by stream id, both descending.

        Args:
            stream_ids: no more than one statement takes.
            limit: most chunks.
        """
        condition, parameters = self._among("stream_id", stream_ids)
        sql = f"{self._select_spans}{condition}{self._in_reverse} LIMIT {limit:d}"
        found: list[Sequence[int]] = self._execute(cursor, sql, parameters).fetchall()
        return found

    def read_chunks(self, cursor: Any, ids: Sequence[int]) -> ChunkContents:
        """Return the contents of those chunks that are there, in the order of these ids."""
        found: dict[int, tuple[bytes, bytes]] = {}
        for some in _slices(ids):
            condition, parameters = self._among("id", some)
            for chunk_id, data, ends in self._execute(cursor, f"{self._read_chunks}{condition}", parameters).fetchall():
                found[chunk_id] = bytes(data), bytes(ends)
        there = [chunk_id for chunk_id in ids if chunk_id in found]
        data = [found[chunk_id][0] for chunk_id in there]
        return ChunkContents(there, b"".join(data), [found[chunk_id][1] for chunk_id in there], [*map(len, data)])

    def lock_chunks(self, cursor: Any, ids: Sequence[int]) -> set[int]:
        """Take the rows of chunks for this transaction and return the ids of those that are there and nobody holds."""
        found: set[int] = set()
        for some in _slices(ids):
            condition, parameters = self._among("id", some)
            rows = self._execute(cursor, f"{self._lock_chunks}{condition}{self._chunks_lock}", parameters)
            found.update(chunk_id for (chunk_id,) in rows.fetchall())
        return found

    def delete_rows(self, cursor: Any, model: type[Model], ids: Sequence[int]) -> None:
        """Delete rows by their ids, without a look at any others, and without a signal for each."""
        table, key = self._table(model), self._quote("id")
        for some in _slices(ids):
            # From the ids to the rows. For a list of ids MySQL may read all of a table, lock all that it reads, and
            # wait for whoever has one of these.
            wanted = f"SELECT %s AS {key}{' UNION ALL SELECT %s' * (len(some) - 1)}"
            self._execute(
                cursor, f"DELETE t FROM ({wanted}) AS v STRAIGHT_JOIN {table} AS t ON t.{key} = v.{key}", some
            )

    def insert_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert producers: stream_id, producer_id, epoch, seq, updated_at."""
        for some in _slices(rows):
            self._insert_rows(cursor, self._insert_producer, some)

    def update_streams(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update streams: tail, closed, closed_by, last_seq, deadline, appended_at (None keeps it), id."""
        if len(rows) == 1:
            self._execute(cursor, self._update_stream, rows[0])
        else:
            for some in _slices(rows):
                self._update_many(cursor, some)

    def update_lifetimes(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update streams: ttl, expires_at, deadline, id."""
        for row in rows:
            self._execute(cursor, self._update_lifetime, row)

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update producers: epoch, seq, updated_at, stream_id, producer_id."""
        cursor.executemany(self._update_producer, rows)

    def _update_many(self, cursor: Any, rows: Sequence[Row]) -> None:
        cursor.executemany(self._update_stream, rows)

    def _execute(self, cursor: Any, sql: str, parameters: Sequence[object]) -> Any:
        """Execute a statement and return the cursor that has its rows."""
        cursor.execute(sql, parameters)
        return cursor

    def _among(self, column: str, values: Collection[object]) -> tuple[str, list[object]]:
        """Return the condition that a column is among some values, and its parameters."""
        return f"{self._quote(column)} IN ({', '.join(['%s'] * len(values))})", list(values)

    def _insert_rows(self, cursor: Any, into: Insert, rows: Sequence[Row], suffix: str = "") -> Any:
        # One statement for all rows: each that a driver executes is a round trip, or a turn of the interpreter's lock.
        values = f"({', '.join(['%s'] * len(into.types))})"
        sql = f"{into.head} VALUES {', '.join([values] * len(rows))}{suffix}"
        return self._execute(cursor, sql, [value for row in rows for value in row])

    def _table(self, model: type[Model]) -> str:
        return self._quote(model._meta.db_table)

    def _insert(self, table: str, columns: Mapping[str, str]) -> Insert:
        names = ", ".join(self._quote(column) for column in columns)
        return Insert(f"INSERT INTO {table} ({names})", tuple(columns.values()))


def _moment(value: Any) -> datetime | None:
    return None if value is None else from_microseconds(value)


def _slices(rows: Sequence[T], length: int = _ROWS_PER_STATEMENT) -> Iterator[Sequence[T]]:
    for first in range(0, len(rows), length):
        yield rows[first : first + length]


def portions(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """Yield slices of chunks whose data is not too much for one statement, where it is not one chunk's alone."""
    for some in _slices(rows):
        first = size = 0
        for number, row in enumerate(some):
            size += len(row[3])
            if size > _BYTES_PER_STATEMENT and number > first:
                yield some[first:number]
                first, size = number, len(row[3])
        yield some[first:]
