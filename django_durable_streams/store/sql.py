"""The statements of the hot path, in SQL that all supported databases share.

The ORM compiles a query anew each time and builds an object for each row; a batch cannot pay for that per append.
Names come from the models, and the tests hold every statement against every database.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from django.db import connections
from django.db.models import Model

from ..models import Chunk, Producer, Stream

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

_ROWS_PER_INSERT = 500
"""Times the columns, this stays below the number of parameters that a statement may have anywhere."""


class Statements:
    """SQL for one database connection's vendor."""

    def __init__(self, using: str) -> None:
        connection = connections[using]
        self._quote = connection.ops.quote_name
        self._returning = connection.features.can_return_rows_from_bulk_insert
        stream, chunk, producer = (self._table(model) for model in (Stream, Chunk, Producer))
        name = self._quote
        self.update_stream = (
            f"UPDATE {stream} SET {name('tail')}=%s, {name('closed')}=%s, {name('closed_by')}=%s, "
            f"{name('last_seq')}=%s, {name('deadline')}=%s, "
            f"{name('appended_at')}=COALESCE(%s, {name('appended_at')}) WHERE {name('id')}=%s"
        )
        self.remove_stream = (
            f"UPDATE {stream} SET {name('path')}=NULL, {name('source_id')}=NULL, {name('lineage')}=NULL, "
            f"{name('deleted_at')}=%s WHERE {name('id')}=%s"
        )
        self.soft_delete_stream = f"UPDATE {stream} SET {name('deleted_at')}=%s WHERE {name('id')}=%s"
        self.insert_chunk = self._insert(chunk, ("stream_id", "start", "end", "data", "ends", "created_at"))
        self.insert_producer = self._insert(producer, ("stream_id", "producer_id", "epoch", "seq", "updated_at"))
        self.update_producer = (
            f"UPDATE {producer} SET {name('epoch')}=%s, {name('seq')}=%s, {name('updated_at')}=%s "
            f"WHERE {name('stream_id')}=%s AND {name('producer_id')}=%s"
        )
        self._insert_stream = self._insert(stream, _STREAM_COLUMNS)
        self._select_ids = f"SELECT {name('id')}, {name('path')} FROM {stream} WHERE {name('path')} IN "

    def insert_streams(self, cursor: Any, rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[int, str]]:
        """Insert streams, in the order of `_STREAM_COLUMNS`, and yield the id and path of each."""
        head, _, values = self._insert_stream.rpartition(" VALUES ")
        for first in range(0, len(rows), _ROWS_PER_INSERT):
            some = rows[first : first + _ROWS_PER_INSERT]
            sql = f"{head} VALUES {', '.join([values] * len(some))}"
            parameters = [value for row in some for value in row]
            if self._returning:
                cursor.execute(f"{sql} RETURNING {self._quote('id')}, {self._quote('path')}", parameters)
            else:
                cursor.execute(sql, parameters)
                marks = ", ".join(["%s"] * len(some))
                cursor.execute(f"{self._select_ids}({marks})", [row[0] for row in some])
            yield from cursor.fetchall()

    def _table(self, model: type[Model]) -> str:
        return self._quote(model._meta.db_table)

    def _insert(self, table: str, columns: Sequence[str]) -> str:
        names = ", ".join(self._quote(column) for column in columns)
        return f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(columns))})"


@lru_cache(maxsize=8)
def statements(using: str) -> Statements:
    """Return the statements for a database alias."""
    return Statements(using)
