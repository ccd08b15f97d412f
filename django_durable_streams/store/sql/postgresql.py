"""PostgreSQL's statements. They are queued, and travel to the server together (`pipeline`).

Many rows are one statement with one array for each column in which they differ. Django's own cursor writes parameters
into the statement as text: a megabyte becomes two, and parsing a thousand parameters takes longer than executing them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal

from django.db import connections
from django.db.models import Expression, Model
from django.db.models.expressions import RawSQL

from ...runtime.caller_transaction import atomic, in_callers_transaction
from ..stream_info import StreamInfo
from .binary import Parameter, array, scalar
from .columns import READ_CHUNK_COLUMNS, UPDATED_PRODUCER_COLUMNS, UPDATED_STREAM_COLUMNS
from .generic import Statements
from .pipeline import Pipeline, Rows, Transaction
from .rows import TO_THE_END, Insert, LoadedRows, Lock, Row

_OWN_ROW_VERSION = "pg_current_xact_id()::xid::text::bigint"
"""The row version, `xmin`, of all rows that this transaction writes."""

_ROW_VERSION = "{table}.xmin::text::bigint"


class PostgreSQLStatements(Statements):
    """PostgreSQL: queued statements, arrays of values, and rows that have versions."""

    # Rows of a project's own tables may refer to streams. Such a reference alone must not block appends.
    _lock_clause = " FOR NO KEY UPDATE"

    supports_blind_insert = True
    has_row_versions = True

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name = self._quote
        self._select_paths = f"SELECT {name('path')} FROM {self._stream} WHERE {name('path')} = ANY(%s)"
        self._select_by = {
            (column, lock): f"{self._select_streams}{name(column)} = ANY(%s){clause}"
            for column in ("path", "id")
            for lock, clause in self._locks.items()
        }
        self._has_any_id = f"{name('id')} = ANY(%s)"
        self._remove_streams = self._of_ids(self._remove_stream)
        self._soft_delete_streams = self._of_ids(self._soft_delete_stream)
        self._select_producers_by_path = (
            f"SELECT p.{name('stream_id')}, p.{name('producer_id')}, p.{name('epoch')}, p.{name('seq')} "
            f"FROM {self._stream} AS s JOIN {self._producer} AS p ON p.{name('stream_id')} = s.{name('id')} "
            f"WHERE s.{name('path')} = ANY(%s) AND p.{name('producer_id')} = ANY(%s)"
        )
        into = self._insert_stream
        expressions, source = _layout(into.types, tuple(number > 0 for number in range(len(into.types))))
        taken = self._select_paths.replace("%s", "$1")
        rules = f"{self._lock_link_rules.replace(' FOR SHARE', '')} AND {name('link_rules_version')} = "
        self._insert_copies = (
            f"WITH rules AS MATERIALIZED ({rules}${len(into.types) + 1}::bigint FOR SHARE) "
            f"{into.head} SELECT {', '.join(expressions)} FROM {source}, rules WHERE NOT EXISTS ({taken})"
            f"{self._returning_ids}"
        )
        chunks = ", ".join(f"c.{name(column)}" for column in READ_CHUNK_COLUMNS)
        last = f"SELECT MIN(l.{name('end')}) FROM {self._chunk} AS l WHERE l.{name('stream_id')} = v.owner"
        self._select_ranges = (
            f"SELECT {chunks} FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS v(owner, after, before) "
            f"JOIN {self._chunk} AS c ON c.{name('stream_id')} = v.owner AND c.{name('end')} > v.after "
            f"AND c.{name('end')} <= COALESCE(({last} AND l.{name('end')} >= v.before), v.before) "
            f"ORDER BY c.{name('stream_id')}, c.{name('end')}"
        )
        # The version of a row, and where only a look has changed it since, the version before that look.
        version = _ROW_VERSION.format(table=self._stream)
        before, after = name("version_before_look"), name("version_after_look")
        self._is_version = (
            f"{{}} IN ({version}, CASE {self._stream}.{after} WHEN {version} THEN {self._stream}.{before} END)"
        )
        self._written_now = f"{self._stream} AS s WHERE s.{name('id')} = {{}} AND s.xmin = pg_current_xact_id()::xid"

    def _of_ids(self, statement: str) -> str:
        """Return a statement on one id as a statement on an array of ids."""
        condition = f"{self._quote('id')}="
        return statement.replace(f"{condition}%s", f"{condition}ANY(%s)")

    @contextmanager
    def transaction(self, lock_ms: int | None = None, before_wait: Callable[[], None] | None = None) -> Iterator[Any]:
        connection = connections[self._using]
        if in_callers_transaction(connection):
            with atomic(self._using):
                pipeline = Pipeline(connection)
                yield pipeline
                pipeline.flush()
            return
        own = Transaction(connection, lock_ms, before_wait)
        try:
            yield own
            own.commit()
        except BaseException:
            own.rollback()
            raise

    def row_version_written(self, cursor: Any) -> Rows:
        return self._send(cursor, f"SELECT {_OWN_ROW_VERSION}", [])

    def look_values(self) -> Mapping[str, Expression]:
        if in_callers_transaction(connections[self._using]):
            return {}
        before = RawSQL(_ROW_VERSION.format(table=self._stream), ())
        return {"version_before_look": before, "version_after_look": RawSQL(_OWN_ROW_VERSION, ())}

    def update_if_unchanged(
        self, cursor: Any, streams: Sequence[Row], chunks: Sequence[Row], producers: Sequence[Row]
    ) -> Rows:
        updated = self._update_where_unchanged(cursor, streams)
        # Chunks and producers are written only for the streams that this transaction has updated.
        if chunks:
            self._insert_where_written(cursor, self._insert_chunk, chunks)
        if producers:
            sent = _SentRows(tuple(UPDATED_PRODUCER_COLUMNS.values()), producers)
            update = self._update_producers(sent.expressions, sent.source)
            self._send(
                cursor,
                f"{update} AND EXISTS (SELECT FROM {self._written_now.format(sent.expressions[-2])})",
                sent.parameters,
            )
        return updated

    def _update_where_unchanged(self, cursor: Any, rows: Sequence[Row]) -> Rows:
        kinds = (*UPDATED_STREAM_COLUMNS.values(), "bigint", "bigint")
        name, stream = self._quote, self._stream
        if len(rows) == 1:
            update = f"{self._update_stream} AND {self._is_version.format('%s')} AND {name('tail')}=%s"
            parameters = _scalars(kinds, rows[0])
        else:
            sent = _SentRows(kinds, rows)
            *values, row_version, tail = sent.expressions
            update = self._update_streams(values, sent.source)
            update += f" AND {self._is_version.format(row_version)} AND {stream}.{name('tail')} = {tail}"
            parameters = sent.parameters
        return self._send(cursor, f"{update} RETURNING {stream}.{name('id')}, {_OWN_ROW_VERSION}", parameters)

    def _insert_where_written(self, cursor: Any, into: Insert, rows: Sequence[Row]) -> None:
        if len(rows) == 1:
            parameters = _scalars(into.types, rows[0])
            values = ", ".join(f"${number}" for number in range(1, len(parameters) + 1))
            self._send(cursor, f"{into.head} SELECT {values} FROM {self._written_now.format('$1')}", parameters)
        else:
            sent = _SentRows(into.types, rows)
            # Joins each row of `v` with one empty row if its stream was updated, and with none otherwise.
            written = f", LATERAL (SELECT FROM {self._written_now.format(sent.expressions[0])}) AS w"
            self._insert_sent(cursor, into, sent, written)

    def flush(self, cursor: Any) -> None:
        cursor.flush()

    def lock_streams(
        self, cursor: Any, paths: Collection[str], producers: Collection[tuple[str, str]], *, wait: bool, absent: bool
    ) -> LoadedRows:
        # All statements are one round trip. The queries after the lock see all commits before the lock.
        wanted = array("text", [*paths])
        streams = cursor.execute(self._select_by["path", "wait" if wait else "skip"], [wanted])
        if producers:
            names = array("text", [*{name for _, name in producers}])
            selected_producers = cursor.execute(
                self._select_producers_by_path, [array("text", [*{path for path, _ in producers}]), names]
            )
        if absent and not wait:
            existing = cursor.execute(self._select_paths, [wanted])
        loaded = [self._info(row) for row in streams.fetchall()]
        locked: set[str] = set()
        if not wait and len(loaded) < len(paths):
            if not absent:
                existing = cursor.execute(self._select_paths, [wanted])
            locked.update(path for (path,) in existing.fetchall())
            locked.difference_update(info.path for info in loaded)
        return LoadedRows(loaded, selected_producers.fetchall() if producers else [], locked)

    def select_streams(
        self,
        cursor: Any,
        column: Literal["path", "id"],
        values: Collection[object],
        *,
        lock: Lock = "no",
    ) -> list[StreamInfo]:
        wanted = array("text" if column == "path" else "bigint", [*values])
        return [self._info(row) for row in self._send(cursor, self._select_by[column, lock], [wanted]).fetchall()]

    def insert_streams(self, cursor: Any, rows: Sequence[Row]) -> Iterable[tuple[int, str]]:
        return self._insert_rows(cursor, self._insert_stream, rows, self._returning_ids)

    def insert_copies(
        self, cursor: Any, row: Row, paths: Sequence[str], rules_version: int
    ) -> Iterable[tuple[int, str]]:
        _, *others = _scalars(self._insert_stream.types, row)
        parameters = [array("text", paths), *others, scalar("bigint", rules_version)]
        return self._send(cursor, self._insert_copies, parameters)

    def lock_link_rules(self, cursor: Any) -> Rows:
        return self._send(cursor, self._lock_link_rules, [])

    def _execute_values(self, cursor: Any, sql: str, values: Sequence[tuple[str, Any]]) -> Rows:
        return self._send(cursor, sql, [scalar(kind, value) for kind, value in values])

    def remove_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        self._send(cursor, self._remove_streams, [scalar("bigint", moment), array("bigint", ids)])

    def soft_delete_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        self._send(cursor, self._soft_delete_streams, [scalar("bigint", moment), array("bigint", ids)])

    def select_chunks(
        self, cursor: Any, ranges: Collection[tuple[int, int, int]], *, latest: bool = False
    ) -> Iterable[Sequence[Any]]:
        if len(ranges) == 1 or all(before == TO_THE_END for _, _, before in ranges):
            return super().select_chunks(cursor, ranges)
        # For several bounded ranges, the plan of the generic statement takes longer than its execution.
        cursor.execute(self._select_ranges, [list(column) for column in zip(*ranges, strict=True)])
        chunks: list[Sequence[Any]] = cursor.fetchall()
        return chunks

    def lock_chunks(self, cursor: Any, ids: Sequence[int]) -> set[int]:
        rows = self._send(cursor, f"{self._lock_chunks}{self._has_any_id}{self._chunks_lock}", [array("bigint", ids)])
        return {chunk_id for (chunk_id,) in rows.fetchall()}

    def delete_rows(self, cursor: Any, model: type[Model], ids: Sequence[int]) -> None:
        self._send(cursor, f"DELETE FROM {self._table(model)} WHERE {self._has_any_id}", [array("bigint", ids)])

    def update_streams(self, cursor: Any, rows: Sequence[Row]) -> None:
        kinds = tuple(UPDATED_STREAM_COLUMNS.values())
        if len(rows) == 1:
            self._send(cursor, self._update_stream, _scalars(kinds, rows[0]))
            return
        sent = _SentRows(kinds, rows)
        self._send(cursor, self._update_streams(sent.expressions, sent.source), sent.parameters)

    def update_lifetimes(self, cursor: Any, rows: Sequence[Row]) -> None:
        for row in rows:
            self._send(cursor, self._update_lifetime, _scalars(("bigint",) * 4, row))

    def update_first_positions(self, cursor: Any, rows: Sequence[Row]) -> None:
        for row in rows:
            self._send(cursor, self._update_first_position, _scalars(("bigint",) * 2, row))

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        sent = _SentRows(tuple(UPDATED_PRODUCER_COLUMNS.values()), rows)
        self._send(cursor, self._update_producers(sent.expressions, sent.source), sent.parameters)

    def _update_streams(self, expressions: Sequence[str], source: str) -> str:
        *values, appended_at, stream_id = expressions
        name, stream = self._quote, self._stream
        changes = [f"{name(column)} = {value}" for column, value in zip(UPDATED_STREAM_COLUMNS, values, strict=False)]
        changes.append(f"{name('appended_at')} = COALESCE({appended_at}, {stream}.{name('appended_at')})")
        return f"UPDATE {stream} SET {', '.join(changes)} FROM {source} WHERE {stream}.{name('id')} = {stream_id}"

    def _update_producers(self, expressions: Sequence[str], source: str) -> str:
        *values, stream_id, producer_id = expressions
        name, producer = self._quote, self._producer
        changes = [f"{name(column)} = {value}" for column, value in zip(UPDATED_PRODUCER_COLUMNS, values, strict=False)]
        return (
            f"UPDATE {producer} SET {', '.join(changes)} FROM {source} "
            f"WHERE {producer}.{name('stream_id')} = {stream_id} AND {producer}.{name('producer_id')} = {producer_id}"
        )

    def _insert_rows(self, cursor: Any, into: Insert, rows: Sequence[Row], suffix: str = "") -> Rows:
        if len(rows) == 1:
            values = ", ".join(["%s"] * len(into.types))
            parameters = _scalars(into.types, rows[0])
            return self._send(cursor, f"{into.head} VALUES ({values}){suffix}", parameters)
        return self._insert_sent(cursor, into, _SentRows(into.types, rows), suffix)

    def _insert_sent(self, cursor: Any, into: Insert, sent: _SentRows, suffix: str) -> Rows:
        sql = f"{into.head} SELECT {', '.join(sent.expressions)} FROM {sent.source}{suffix}"
        return self._send(cursor, sql, sent.parameters)

    def _send(self, cursor: Any, sql: str, parameters: Sequence[Parameter]) -> Rows:
        if isinstance(cursor, Pipeline):
            return cursor.execute(sql, parameters)
        # A cursor of Django: the next statement may not pass through this class.
        pipeline = Pipeline(connections[self._using])
        rows = pipeline.execute(sql, parameters)
        pipeline.flush()
        return rows


def _scalars(kinds: Sequence[str], row: Row) -> list[Parameter]:
    return [scalar(kind, value) for kind, value in zip(kinds, row, strict=True)]


class _SentRows:
    """The parameters of many rows: one value for a column that has the same in all rows, an array for the others.

    `expressions` has the SQL of each column, `source` the SQL that yields the rows.

    Args:
        kinds: types of the columns.
        rows: at least one row.
    """

    def __init__(self, kinds: tuple[str, ...], rows: Sequence[Row]) -> None:
        columns = list(zip(*rows, strict=True))
        same = [_is_same(kind, values) for kind, values in zip(kinds, columns, strict=True)]
        same[-1] = same[-1] and not all(same)  # the source needs an array that yields the rows
        self.expressions, self.source = _layout(kinds, tuple(same))
        self.parameters = [
            scalar(kind, values[0]) if is_same else array(kind, values)
            for is_same, kind, values in zip(same, kinds, columns, strict=True)
        ]


def _is_same(kind: str, values: Sequence[Any]) -> bool:
    # A comparison of data could take long: it may be megabytes.
    return not any(values) if kind == "bytea" else values.count(values[0]) == len(values)


@lru_cache(maxsize=256)
def _layout(kinds: tuple[str, ...], same: tuple[bool, ...]) -> tuple[tuple[str, ...], str]:
    """Return the SQL of each column, and the SQL of the source that yields one row for each element of the arrays.

    The parameters of the columns come first in the statement, in their order.
    """
    expressions = tuple(
        f"${number}::{kind}" if is_same else f"v.c{number}"
        for number, (kind, is_same) in enumerate(zip(kinds, same, strict=True), 1)
    )
    arrays = [number for number, is_same in enumerate(same, 1) if not is_same]
    elements = ", ".join(f"${number}::{kinds[number - 1]}[]" for number in arrays)
    return expressions, f"unnest({elements}) AS v({', '.join(f'c{number}' for number in arrays)})"
