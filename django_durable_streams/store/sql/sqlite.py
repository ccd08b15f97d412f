"""SQLite's statements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from sqlite3 import Cursor
from typing import Any, Literal

import msgspec
from django.db import connections

from ...models import Chunk, Producer, Stream
from ..info import StreamInfo
from .base import PRODUCER_COLUMNS, STREAM_COLUMNS, UPDATED, Row, Statements, portions

_CLOSED = StreamInfo._fields.index("closed")
_MOMENTS = [StreamInfo._fields.index(name) for name in ("expires_at", "deadline", "deleted_at")]

_DEADLINE = [*UPDATED].index("deadline")

_LARGE_BYTES = 32 * 1024
"""Data of a row from which to copy it once more takes longer than a statement of its own."""

_encode = msgspec.json.Encoder().encode
_decode_rows = msgspec.json.Decoder(list[list[Any]]).decode


class SQLiteStatements(Statements):
    """SQLite: many rows travel as one JSON array, in both directions.

    For every row that a statement yields Python's driver lets go of the interpreter and has to get it back, which
    takes longer than the row where other threads are busy. And a statement that is the same for any number of rows is
    not taken apart anew each time.
    """

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name = self._quote
        stream, chunk, producer = (self._table(model) for model in (Stream, Chunk, Producer))
        columns = ", ".join(f"s.{name(column)}" for column in StreamInfo._fields)
        # CROSS JOIN keeps the order: from what is wanted into the index.
        self._select_as_json = {
            column: f"SELECT json_group_array(json_array({columns})) "
            f"FROM json_each(%s) AS v CROSS JOIN {stream} AS s ON s.{name(column)} = v.value"
            for column in ("path", "id")
        }
        known = ", ".join(f"p.{name(column)}" for column in ("stream_id", "producer_id", "epoch", "seq"))
        self._select_producers_as_json = (
            f"SELECT json_group_array(json_array({known})) FROM json_each(%s) AS v CROSS JOIN {producer} AS p "
            f"ON p.{name('stream_id')} = {_field(0)} AND p.{name('producer_id')} = {_field(1)}"
        )
        self._select_ids_as_json = (
            f"SELECT json_group_array(json_array(s.{name('id')}, s.{name('path')})) "
            f"FROM json_each(%s) AS v CROSS JOIN {stream} AS s ON s.{name('path')} = v.value"
        )
        # Blobs cannot be in JSON: they come as one, and the array says where each of them is.
        self._insert_chunks_from_json = _insert(
            name,
            chunk,
            ["stream_id", "start", "end", "created_at", "data", "ends"],
            [*_fields(4), f"substr(b.data, {_field(4)}, {_field(5)})", f"substr(b.data, {_field(6)}, {_field(7)})"],
            source="(SELECT %s AS data) AS b CROSS JOIN json_each(%s) AS v",
        )
        self._insert_producers_from_json = _insert(name, producer, [*PRODUCER_COLUMNS], _fields(len(PRODUCER_COLUMNS)))
        self._updates = {has_deadline: self._update_from_json(has_deadline) for has_deadline in (True, False)}
        self._update_producers_from_json = (
            f"UPDATE {producer} SET {name('epoch')} = {_field(0)}, {name('seq')} = {_field(1)}, "
            f"{name('updated_at')} = {_field(2)} FROM json_each(%s) AS v "
            f"WHERE {producer}.{name('stream_id')} = {_field(3)} AND {producer}.{name('producer_id')} = {_field(4)}"
        )

    def select_streams(
        self,
        cursor: Any,
        column: Literal["path", "id"],
        values: Collection[object],
        *,
        lock: Literal["no", "wait", "skip"] = "no",
    ) -> list[StreamInfo]:
        if len(values) == 1:
            return super().select_streams(cursor, column, values, lock=lock)
        found = self._fetch(cursor, self._select_as_json[column], [_encode(list(values)).decode()])
        for row in found:
            row[_CLOSED] = bool(row[_CLOSED])
            for place in _MOMENTS:
                if row[place] is not None:
                    row[place] = datetime.fromisoformat(row[place])
        return [self._info(row) for row in found]

    def select_producers(self, cursor: Any, wanted: Collection[tuple[int, str]]) -> list[Sequence[Any]]:
        return [*self._fetch(cursor, self._select_producers_as_json, [_encode(list(wanted)).decode()])]

    def insert_streams(self, cursor: Any, rows: Sequence[Row]) -> Iterable[tuple[int, str]]:
        # Most streams have neither an end nor a source: what is null everywhere need not be written.
        used = tuple(
            number for number, values in enumerate(zip(*rows, strict=True)) if any(v is not None for v in values)
        )
        self._execute(cursor, self._insert_streams_from_json(used), [_encode(rows).decode()])
        found = self._fetch(cursor, self._select_ids_as_json, [_encode([row[0] for row in rows]).decode()])
        return [(stream_id, path) for stream_id, path in found]

    def _insert_streams_from_json(self, used: tuple[int, ...]) -> str:
        columns = [*STREAM_COLUMNS]
        return _insert(
            self._quote, self._stream, [columns[number] for number in used], [_field(number) for number in used]
        )

    def insert_chunks(self, cursor: Any, rows: Sequence[Row]) -> None:
        small = [row for row in rows if len(row[3]) < _LARGE_BYTES]
        if len(small) > 1:
            for some in portions(small):
                self._insert_small_chunks(cursor, some)
        for row in rows if len(small) <= 1 else [row for row in rows if len(row[3]) >= _LARGE_BYTES]:
            self._insert_rows(cursor, self._insert_chunk, [row])

    def _insert_small_chunks(self, cursor: Any, rows: Sequence[Row]) -> None:
        places = []
        blobs: list[bytes] = []
        position = 1
        for stream_id, start, end, data, ends, created_at in rows:
            after = position + len(data)
            places.append((stream_id, start, end, created_at, position, len(data), after, len(ends)))
            position = after + len(ends)
            blobs += (data, ends)
        self._execute(cursor, self._insert_chunks_from_json, [b"".join(blobs), _encode(places).decode()])

    def insert_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        self._execute(cursor, self._insert_producers_from_json, [_encode(rows).decode()])

    def update_streams(self, cursor: Any, rows: Sequence[Row]) -> None:
        has_deadline = any(row[_DEADLINE] is not None for row in rows)
        self._execute(cursor, self._updates[has_deadline], [_encode(rows).decode()])

    def _update_from_json(self, has_deadline: bool) -> str:
        # To set an indexed column is to write its index anew, also where the value stays. Streams without a deadline
        # never get one.
        name, stream = self._quote, self._stream
        assignments = [
            f"{name(column)} = {_field(number)}"
            for number, column in enumerate([*UPDATED][:5])
            if has_deadline or number != _DEADLINE
        ]
        assignments.append(f"{name('appended_at')} = COALESCE({_field(5)}, {stream}.{name('appended_at')})")
        return (
            f"UPDATE {stream} SET {', '.join(assignments)} FROM json_each(%s) AS v "
            f"WHERE {stream}.{name('id')} = {_field(6)}"
        )

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        self._execute(cursor, self._update_producers_from_json, [_encode(rows).decode()])

    def _fetch(self, cursor: Any, sql: str, parameters: Sequence[object]) -> list[list[Any]]:
        (found,) = self._execute(cursor, sql, parameters).fetchone()
        return _decode_rows(found)

    def _execute(self, cursor: Any, sql: str, parameters: Sequence[object]) -> Any:
        connection = connections[self._using]
        if connection.queries_logged or connection.execute_wrappers:
            return super()._execute(cursor, sql, parameters)
        with connection.wrap_database_errors:
            # Past Django's cursor, which writes every statement anew for SQLite's kind of placeholders.
            return Cursor.execute(cursor.cursor, sql.replace("%s", "?"), parameters)


def _field(number: int) -> str:
    return f"json_extract(v.value, '$[{number}]')"


def _fields(count: int) -> list[str]:
    return [_field(number) for number in range(count)]


def _insert(
    name: Callable[[str], str],
    table: str,
    columns: Sequence[str],
    values: Sequence[str],
    source: str = "json_each(%s) AS v",
) -> str:
    names = ", ".join(name(column) for column in columns)
    return f"INSERT INTO {table} ({names}) SELECT {', '.join(values)} FROM {source}"
