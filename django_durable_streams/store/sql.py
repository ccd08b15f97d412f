"""The statements of the hot path, in SQL that all supported databases share.

The ORM compiles a query anew each time and builds an object for each row; a batch cannot pay for that per append.
Names come from the models, and the tests hold every statement against every database.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal

from django.db import connections
from django.db.models import Model

from ..models import Chunk, Producer, Stream
from .info import StreamInfo

_STREAM_COLUMNS = (
    "path",
    "content_type",
    "tail",
    "first_position",
    "closed",
    "closed_by",
    "last_seq",
    "ttl",
    "expires_at",
    "deadline",
    "source_id",
    "fork_position",
    "lineage",
    "created_at",
    "appended_at",
)

Row = tuple[Any, ...]

_ROWS_PER_STATEMENT = 500
"""Times the columns, this stays below the number of parameters that a statement may have anywhere."""


class Statements:
    """SQL for one database connection's vendor."""

    def __init__(self, using: str) -> None:
        connection = connections[using]
        self._quote = connection.ops.quote_name
        self._returning = connection.features.can_return_rows_from_bulk_insert
        stream, chunk, producer = (self._table(model) for model in (Stream, Chunk, Producer))
        name = self._quote
        self._stream = stream
        self._update_stream = (
            f"UPDATE {stream} SET {name('tail')}=%s, {name('closed')}=%s, {name('closed_by')}=%s, "
            f"{name('last_seq')}=%s, {name('deadline')}=%s, "
            f"{name('appended_at')}=COALESCE(%s, {name('appended_at')}) WHERE {name('id')}=%s"
        )
        self._update_streams = self._update_from_values(connection.vendor)
        self.remove_stream = (
            f"UPDATE {stream} SET {name('path')}=NULL, {name('source_id')}=NULL, {name('lineage')}=NULL, "
            f"{name('deleted_at')}=%s WHERE {name('id')}=%s"
        )
        self.soft_delete_stream = f"UPDATE {stream} SET {name('deleted_at')}=%s WHERE {name('id')}=%s"
        self._insert_chunk = self._insert(chunk, ("stream_id", "start", "end", "data", "ends", "created_at"))
        self._insert_producer = self._insert(producer, ("stream_id", "producer_id", "epoch", "seq", "updated_at"))
        self.update_producer = (
            f"UPDATE {producer} SET {name('epoch')}=%s, {name('seq')}=%s, {name('updated_at')}=%s "
            f"WHERE {name('stream_id')}=%s AND {name('producer_id')}=%s"
        )
        self._insert_stream = self._insert(stream, _STREAM_COLUMNS)
        self._select_ids = f"SELECT {name('id')}, {name('path')} FROM {stream} WHERE {name('path')} IN "
        columns = ", ".join(name(column) for column in StreamInfo._fields)
        self._select_streams = f"SELECT {columns} FROM {stream} WHERE "
        self.can_skip_locked = connection.features.has_select_for_update_skip_locked
        ordered = f" ORDER BY {name('id')}"
        waiting = " FOR UPDATE" if connection.features.has_select_for_update else ""
        self._locks = {
            "no": "",
            "wait": ordered + waiting,
            "skip": ordered + waiting + (" SKIP LOCKED" if self.can_skip_locked else ""),
        }
        self._select_producers = (
            f"SELECT {name('stream_id')}, {name('producer_id')}, {name('epoch')}, {name('seq')} "
            f"FROM {producer} WHERE {name('stream_id')} IN "
        )
        self._naive_zone = connection.timezone

    def select_streams(
        self,
        cursor: Any,
        column: Literal["path", "id"],
        values: Collection[object],
        *,
        lock: Literal["no", "wait", "skip"] = "no",
    ) -> list[StreamInfo]:
        """Return the streams with some paths or ids.

        Args:
            lock: whether to take their rows for this transaction, in order: waiting for those that others hold, or
                leaving those out.
        """
        sql = f"{self._select_streams}{self._quote(column)} IN ({_marks(values)}){self._locks[lock]}"
        cursor.execute(sql, tuple(values))
        return [self._info(row) for row in cursor.fetchall()]

    def select_producers(self, cursor: Any, stream_ids: Collection[int], names: Collection[str]) -> list[Any]:
        """Return (stream id, producer id, epoch, seq) of some producers on some streams."""
        cursor.execute(
            f"{self._select_producers}({_marks(stream_ids)}) AND {self._quote('producer_id')} IN ({_marks(names)})",
            (*stream_ids, *names),
        )
        found: list[Any] = cursor.fetchall()
        return found

    def _info(self, row: tuple[Any, ...]) -> StreamInfo:
        info = StreamInfo._make(row)
        # Most streams have neither an end nor a source, and come as they are from every database but MySQL.
        if info.deadline is None and info.lineage is None and info.deleted_at is None and type(info.closed) is bool:
            return info
        return info._replace(
            closed=bool(info.closed),
            expires_at=self._aware(info.expires_at),
            deadline=self._aware(info.deadline),
            deleted_at=self._aware(info.deleted_at),
            lineage=json.loads(info.lineage) if isinstance(info.lineage, str) else info.lineage,
        )

    def _aware(self, moment: datetime | None) -> datetime | None:
        if moment is None or moment.tzinfo is not None:
            return moment
        return moment.replace(tzinfo=self._naive_zone)

    def insert_streams(self, cursor: Any, rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
        """Insert streams, in the order of `_STREAM_COLUMNS`, and yield the id and path of each."""
        for some in _slices(rows):
            if self._returning:
                returning = f" RETURNING {self._quote('id')}, {self._quote('path')}"
                _insert_rows(cursor, self._insert_stream, some, returning)
            else:
                _insert_rows(cursor, self._insert_stream, some)
                cursor.execute(f"{self._select_ids}({_marks(some)})", [row[0] for row in some])
            yield from cursor.fetchall()

    def insert_chunks(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert chunks: stream_id, start, end, data, ends, created_at."""
        for some in _slices(rows):
            _insert_rows(cursor, self._insert_chunk, some)

    def insert_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert producers: stream_id, producer_id, epoch, seq, updated_at."""
        for some in _slices(rows):
            _insert_rows(cursor, self._insert_producer, some)

    def update_streams(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update streams: tail, closed, closed_by, last_seq, deadline, appended_at (None keeps it), id."""
        if len(rows) == 1:
            cursor.execute(self._update_stream, rows[0])
        elif self._update_streams is None:
            cursor.executemany(self._update_stream, rows)
        else:
            head, first, more, rest = self._update_streams
            for some in _slices(rows):
                values = ", ".join([first, *[more] * (len(some) - 1)])
                cursor.execute(f"{head}{values}{rest}", [value for row in some for value in row])

    def _update_from_values(self, vendor: str) -> tuple[str, str, str, str] | None:
        """Return an UPDATE of many rows in four parts: before, the first row, each further row, and after.

        None where the vendor has no such thing.
        """
        if vendor == "mysql":
            return None
        name = self._quote
        columns = ("tail", "closed", "closed_by", "last_seq", "deadline", "appended_at", "id")
        # SQLite names the columns of VALUES column1 and so on; PostgreSQL too, but has to be told their types.
        given = [f"v.column{number}" for number in range(1, len(columns) + 1)]
        assignments = [f"{name(column)} = {value}" for column, value in zip(columns[:5], given[:5], strict=True)]
        assignments.append(f"{name('appended_at')} = COALESCE({given[5]}, {self._stream}.{name('appended_at')})")
        head = f"UPDATE {self._stream} SET {', '.join(assignments)} FROM (VALUES "
        more = f"({', '.join(['%s'] * len(columns))})"
        types = ("bigint", "boolean", "text", "text", "timestamptz", "timestamptz", "bigint")
        first = f"({', '.join(f'%s::{kind}' for kind in types)})" if vendor == "postgresql" else more
        return head, first, more, f") AS v WHERE {self._stream}.{name('id')} = {given[6]}"

    def _table(self, model: type[Model]) -> str:
        return self._quote(model._meta.db_table)

    def _insert(self, table: str, columns: Sequence[str]) -> str:
        names = ", ".join(self._quote(column) for column in columns)
        return f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(columns))})"


def _insert_rows(cursor: Any, statement: str, rows: Sequence[Row], suffix: str = "") -> None:
    # One statement for all rows: each one that a driver executes is a round trip, or a turn of the interpreter's lock.
    head, _, values = statement.rpartition(" VALUES ")
    sql = f"{head} VALUES {', '.join([values] * len(rows))}{suffix}"
    cursor.execute(sql, [value for row in rows for value in row])


def _slices(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for first in range(0, len(rows), _ROWS_PER_STATEMENT):
        yield rows[first : first + _ROWS_PER_STATEMENT]


def _marks(values: Collection[object]) -> str:
    return ", ".join(["%s"] * len(values))


@lru_cache(maxsize=8)
def statements(using: str) -> Statements:
    """Return the statements for a database alias."""
    return Statements(using)
