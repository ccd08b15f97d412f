"""PostgreSQL's statements. They are queued, and travel to the server together (`pipeline`).

Many rows are one statement with one array for each column in which they differ. Django's own cursor writes parameters
into the statement as text: a megabyte becomes two, and parsing a thousand parameters takes longer than executing them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from django.db import connections
from django.db.models import Expression, Model
from django.db.models.expressions import RawSQL

from ...runtime.caller_transaction import atomic, in_callers_transaction
from ...runtime.drivers import require_psycopg
from ..stream_info import StreamInfo
from .binary import array, scalar
from .columns import READ_CHUNK_COLUMNS, UPDATED_PRODUCER_COLUMNS, UPDATED_STREAM_COLUMNS
from .pipeline import Pipeline, Rows, Transaction
from .postgresql_conditional import OWN_ROW_VERSION, ROW_VERSION, ConditionalWrites
from .postgresql_sending import SentRows, layout, scalars
from .rows import TO_THE_END, LoadedRows, Lock, Row


class PostgreSQLStatements(ConditionalWrites):
    """PostgreSQL: queued statements, arrays of values, and rows that have versions."""

    # Rows of a project's own tables may refer to streams. Such a reference alone must not block appends.
    _lock_clause = " FOR NO KEY UPDATE"

    supports_blind_insert = True
    has_row_versions = True

    def __init__(self, using: str) -> None:
        require_psycopg()
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
        expressions, source = layout(into.types, tuple(number > 0 for number in range(len(into.types))))
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
        return self._send(cursor, f"SELECT {OWN_ROW_VERSION}", [])

    def look_values(self) -> Mapping[str, Expression]:
        if in_callers_transaction(connections[self._using]):
            return {}
        before = RawSQL(ROW_VERSION.format(table=self._stream), ())
        return {"version_before_look": before, "version_after_look": RawSQL(OWN_ROW_VERSION, ())}

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
        _, *others = scalars(self._insert_stream.types, row)
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
            self._send(cursor, self._update_stream, scalars(kinds, rows[0]))
            return
        sent = SentRows(kinds, rows)
        self._send(cursor, self._update_streams(sent.expressions, sent.source), sent.parameters)

    def update_lifetimes(self, cursor: Any, rows: Sequence[Row]) -> None:
        for row in rows:
            self._send(cursor, self._update_lifetime, scalars(("bigint",) * 4, row))

    def update_first_positions(self, cursor: Any, rows: Sequence[Row]) -> None:
        for row in rows:
            self._send(cursor, self._update_first_position, scalars(("bigint",) * 2, row))

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        sent = SentRows(tuple(UPDATED_PRODUCER_COLUMNS.values()), rows)
        self._send(cursor, self._update_producers(sent.expressions, sent.source), sent.parameters)
