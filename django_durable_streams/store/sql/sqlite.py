"""SQLite's statements on streams and producers, and with the chunks' all of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from itertools import product
from operator import itemgetter
from typing import Any, Literal

from django.db.models import Model

from ...models import Stream
from ..stream_info import StreamInfo
from .columns import PRODUCER_COLUMNS, STREAM_COLUMNS, UPDATED_STREAM_COLUMNS
from .generic import Statements
from .rows import Lock, Row
from .sqlite_busy import retry_while_locked
from .sqlite_chunks import SQLiteChunkStatements
from .sqlite_execution import MAX_ROWS, RowsStatement, json_field, to_json

_CLOSED = StreamInfo._fields.index("closed")

_DEADLINE = [*UPDATED_STREAM_COLUMNS].index("deadline")
_LINK_STATE = [*UPDATED_STREAM_COLUMNS].index("link_state")


class SQLiteStatements(SQLiteChunkStatements, Statements):
    """SQLite: many rows are one statement, and return as one JSON array (see `sqlite_execution`)."""

    supports_blind_insert = True

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name, stream, producer = self._quote, self._stream, self._producer
        columns = ", ".join(f"s.{name(column)}" for column in StreamInfo._fields)
        # CROSS JOIN keeps the order: from the requested values into the index.
        self._select_as_json = {
            column: f"SELECT json_group_array(json_array({columns})) "
            f"FROM json_each(%s) AS v CROSS JOIN {stream} AS s ON s.{name(column)} = v.value"
            for column in ("path", "id")
        }
        producer_columns = ", ".join(f"p.{name(column)}" for column in ("stream_id", "producer_id", "epoch", "seq"))
        self._select_producers_as_json = (
            f"SELECT json_group_array(json_array({producer_columns})) "
            f"FROM json_each(%s) AS v CROSS JOIN {producer} AS p "
            f"ON p.{name('stream_id')} = {json_field(0)} AND p.{name('producer_id')} = {json_field(1)}"
        )
        self._inserts: dict[tuple[tuple[int, ...], int | None], tuple[RowsStatement, Callable[[Row], Row]]] = {}
        # New ids follow the last id of the table. The write lock keeps other connections from taking ids meanwhile.
        self._last_id = f"COALESCE((SELECT seq FROM sqlite_sequence WHERE name = '{Stream._meta.db_table}'), 0)"
        self._insert_producers = self._insert_of_rows(
            self._insert_producer, ("epoch", "seq", "updated_at"), PRODUCER_COLUMNS
        )
        self._update_streams = {
            changed: self._update_of_streams(*changed) for changed in product((True, False), repeat=2)
        }
        self._update_producers = RowsStatement(
            f"UPDATE {producer} SET {name('epoch')} = {{0}}, {name('seq')} = {{1}}, {name('updated_at')} = {{2}} "
            f"FROM {{rows}} WHERE {producer}.{name('stream_id')} = {{3}} AND {producer}.{name('producer_id')} = {{4}}",
            5,
            (0, 2),
        )

    def _update_of_streams(self, has_deadline: bool, has_link: bool) -> RowsStatement:
        # An assignment to an indexed column writes its index even where the value stays. Streams without a deadline
        # get one by `update_lifetimes` only, and streams without a link get their first one elsewhere.
        name, stream = self._quote, self._stream
        assignments = [
            f"{name(column)} = {{{number}}}"
            for number, column in enumerate([*UPDATED_STREAM_COLUMNS][:6])
            if (has_deadline or number != _DEADLINE) and (has_link or number != _LINK_STATE)
        ]
        # A shared value has to occur in the statement, before the rows. Without a link it is null, and changes nothing.
        unused = "" if has_link else ", {5}"
        assignments.append(f"{name('appended_at')} = COALESCE({{6}}, {stream}.{name('appended_at')}{unused})")
        return RowsStatement(
            f"UPDATE {stream} SET {', '.join(assignments)} FROM {{rows}} WHERE {stream}.{name('id')} = {{7}}",
            8,
            (1, 2, 3, 5, 6) if has_link else (1, 2, 3, 6, 5),
        )

    def select_streams(
        self,
        cursor: Any,
        column: Literal["path", "id"],
        values: Collection[object],
        *,
        lock: Lock = "no",
    ) -> list[StreamInfo]:
        if len(values) == 1:
            return super().select_streams(cursor, column, values, lock=lock)
        rows = self._fetch_json(cursor, self._select_as_json[column], [to_json(values)])
        for row in rows:
            row[_CLOSED] = bool(row[_CLOSED])
        return [self._info(row) for row in rows]

    def select_producers(self, cursor: Any, wanted: Collection[tuple[int, str]]) -> list[Sequence[Any]]:
        return [*self._fetch_json(cursor, self._select_producers_as_json, [to_json(wanted)])]

    def insert_streams(self, cursor: Any, rows: Sequence[Row]) -> Iterable[tuple[int, str]]:
        # Most streams have neither a deadline nor a source. Columns that are null in all rows are not written.
        used = tuple(number for number, values in enumerate(zip(*rows, strict=True)) if values.count(None) < len(rows))
        insert, used_of = self._insert_used(used)
        ids: list[tuple[int, str]] = []
        for first in range(0, len(rows), MAX_ROWS):
            slice_rows = rows[first : first + MAX_ROWS]
            self._execute_for_all(cursor, insert, [(number, *used_of(row)) for number, row in enumerate(slice_rows, 1)])
            ids += enumerate((row[0] for row in slice_rows), cursor.lastrowid - len(slice_rows) + 1)
        return ids

    def insert_copies(
        self, cursor: Any, row: Row, paths: Sequence[str], rules_version: int
    ) -> Iterable[tuple[int, str]]:
        used = tuple(number for number, value in enumerate(row) if value is not None)
        insert, used_of = self._insert_used(used, rules_version)
        _, *shared = used_of(row)
        ids: list[tuple[int, str]] = []
        for first in range(0, len(paths), MAX_ROWS):
            slice_paths = paths[first : first + MAX_ROWS]
            values = [value for pair in enumerate(slice_paths, 1) for value in pair]
            # The statement may be a transaction by itself (see `insertion`), so it may have to wait for the write lock.
            if not retry_while_locked(partial(self._execute_rows, cursor, insert, len(slice_paths), shared, values)):
                return []
            ids += enumerate(slice_paths, cursor.lastrowid - len(slice_paths) + 1)
        return ids

    def _insert_used(
        self, used: tuple[int, ...], rules_version: int | None = None
    ) -> tuple[RowsStatement, Callable[[Row], Row]]:
        """Return the INSERT of the columns with these numbers, and a function that returns their values of a row.

        Args:
            rules_version: insert nothing where the link rules have another version. None: do not compare it.
        """
        insert_and_getter = self._inserts.get((used, rules_version))
        if insert_and_getter is None:
            kinds = [*STREAM_COLUMNS.items()]
            into = self._insert(self._stream, {"id": "bigint"} | dict(kinds[number] for number in used))
            columns = ", ".join(f"{{{number}}}" for number in range(1, len(used) + 1))
            sql = f"{into.head} SELECT {self._last_id} + {{0}}, {columns} FROM {{rows}} WHERE {{0}} IS NOT NULL"
            if rules_version is not None:
                sql += f" AND ({self._select_link_rules_version}) = {rules_version}"
                self._inserts = {key: value for key, value in self._inserts.items() if key[1] in (None, rules_version)}
            insert = RowsStatement(sql, len(used) + 1, range(2, len(used) + 1))
            insert_and_getter = self._inserts[used, rules_version] = insert, itemgetter(*used)
        return insert_and_getter

    def select_fork_sources(self, cursor: Any, ids: Collection[int]) -> Iterable[int]:
        source, path = self._quote("source_id"), self._quote("path")
        among = f"{source} IN (SELECT value FROM json_each(%s)) AND {path} IS NOT NULL"
        sql = f"SELECT {source} FROM {self._stream} WHERE {among}"
        return [row[0] for row in self._execute(cursor, sql, [to_json(ids)]).fetchall()]

    def remove_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        self._execute(cursor, self._of_ids(self._remove_stream), [moment, to_json(ids)])

    def soft_delete_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        self._execute(cursor, self._of_ids(self._soft_delete_stream), [moment, to_json(ids)])

    def _of_ids(self, statement: str) -> str:
        """Return a statement on one id as a statement on a list of ids."""
        name = self._quote("id")
        return statement.replace(f"{name}=%s", f"{name} IN (SELECT value FROM json_each(%s))")

    def delete_rows(self, cursor: Any, model: type[Model], ids: Sequence[int]) -> None:
        among = f"{self._quote('id')} IN (SELECT value FROM json_each(%s))"
        self._execute(cursor, f"DELETE FROM {self._table(model)} WHERE {among}", [to_json(ids)])

    def insert_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        self._insert_all(cursor, self._insert_producer, self._insert_producers, rows)

    def update_streams(self, cursor: Any, rows: Sequence[Row]) -> None:
        changed = _has_value(rows, _DEADLINE), _has_value(rows, _LINK_STATE)
        self._execute_for_all(cursor, self._update_streams[changed], rows)

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        self._execute_for_all(cursor, self._update_producers, rows)


def _has_value(rows: Sequence[Row], column: int) -> bool:
    """Return whether a column is set in one of the rows. Most batches have one row."""
    return rows[0][column] is not None or (len(rows) > 1 and bool([row for row in rows if row[column] is not None]))
