"""PostgreSQL's statements."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connections

from .base import UPDATED, Insert, Row, Statements


class PostgreSQLStatements(Statements):
    """PostgreSQL: rows travel as one array for each column, and bytes as they are.

    Django's own cursors write parameters into the statement, as text: a megabyte becomes two, and a statement with
    a thousand parameters takes longer to take apart than to execute.
    """

    # Rows of a project's own tables may refer to streams: that alone must not keep up appends.
    _lock_clause = " FOR NO KEY UPDATE"

    @contextmanager
    def together(self) -> Iterator[None]:
        # One way to the server and back for all of them.
        connection = connections[self._using]
        with connection.wrap_database_errors, connection.connection.pipeline():
            yield

    def limit_waits(self, milliseconds: int) -> None:
        # For the transaction, and not for the session, which may be others' behind a pooler.
        with connections[self._using].cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {milliseconds}")

    def _execute(self, cursor: Any, sql: str, parameters: Sequence[object]) -> Any:
        from psycopg import Cursor

        with connections[self._using].wrap_database_errors:
            direct = Cursor(cursor.connection)
            direct.execute(sql, parameters)
        return direct

    def _among(self, column: str, values: Collection[object]) -> tuple[str, list[object]]:
        kind = "text" if column in ("path", "producer_id") else "bigint"
        return f"{self._quote(column)} = ANY(%b::{kind}[])", [list(values)]

    def _insert_rows(self, cursor: Any, into: Insert, rows: Sequence[Row], suffix: str = "") -> Any:
        if len(rows) == 1:
            return super()._insert_rows(cursor, into, rows, suffix)
        arrays = ", ".join(f"%b::{kind}[]" for kind in into.types)
        return self._execute(cursor, f"{into.head} SELECT * FROM unnest({arrays}){suffix}", _columns(rows))

    def _update_many(self, cursor: Any, rows: Sequence[Row]) -> None:
        name, stream = self._quote, self._stream
        names = ", ".join(name(column) for column in UPDATED)
        assignments = [f"{name(column)} = v.{name(column)}" for column in [*UPDATED][:5]]
        appended_at = name("appended_at")
        self._execute(
            cursor,
            f"UPDATE {stream} SET {', '.join(assignments)}, "
            f"{appended_at} = COALESCE(v.{appended_at}, {stream}.{appended_at}) "
            f"FROM unnest({', '.join(f'%b::{kind}[]' for kind in UPDATED.values())}) AS v({names}) "
            f"WHERE {stream}.{name('id')} = v.{name('id')}",
            _columns(rows),
        )

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        self._execute(cursor, self._update_producers, _columns(rows))


def _columns(rows: Sequence[Row]) -> list[list[object]]:
    return [list(column) for column in zip(*rows, strict=True)]
