"""PostgreSQL's writes on a condition: an append without a read and a lock before it (`store.write.row_cache`).

The database compares the row with the row cache while it writes. A plain append needs even less: it goes to the tail
of an open stream, wherever another process has moved it, and the database says where that was. It waits in the row's
queue for the transaction before it, so several processes append to one stream with one statement each. Chunks are
written only for the streams that this transaction has updated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .columns import GROWN_STREAM_COLUMNS, UPDATED_PRODUCER_COLUMNS, UPDATED_STREAM_COLUMNS
from .pipeline import Rows
from .postgresql_sending import PostgreSQLSending, SentRows, scalars
from .rows import Insert, Row

OWN_ROW_VERSION = "pg_current_xact_id()::xid::text::bigint"
"""The row version, `xmin`, of all rows that this transaction writes."""

ROW_VERSION = "{table}.xmin::text::bigint"

_NOT_PLAIN = ("deleted_at", "last_seq", "deadline", "link_state")
"""Columns that are null unless an append to the stream depends on more than that it is open."""


class ConditionalWrites(PostgreSQLSending):
    """Writes to rows that are as the row cache has them, or to open streams."""

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name = self._quote
        # The version of a row, and where only a look has changed it since, the version before that look.
        version = ROW_VERSION.format(table=self._stream)
        before, after = name("version_before_look"), name("version_after_look")
        self._is_version = (
            f"{{}} IN ({version}, CASE {self._stream}.{after} WHEN {version} THEN {self._stream}.{before} END)"
        )
        # A CASE, because the planner would search the indexes of these columns for a dozen rows of all that are null.
        others = " OR ".join(f"{self._stream}.{name(column)} IS NOT NULL" for column in _NOT_PLAIN)
        # By path and generation, because an id may come again: after a restored backup, or after `manage.py flush`.
        is_plain = (
            f"CASE WHEN {self._stream}.{name('path')} = {{2}} AND {self._stream}.{name('generation')} = {{3}} "
            f"THEN NOT ({self._stream}.{name('closed')} OR {others}) ELSE FALSE END"
        )
        # One statement: a second one would have to find the written rows again.
        self._append_plain = (
            f"WITH grown AS (UPDATE {self._stream} SET {name('tail')} = {self._stream}.{name('tail')} + {{0}}, "
            f"{name('appended_at')} = {{1}} FROM {{streams}} WHERE {self._stream}.{name('id')} = {{4}} AND {is_plain} "
            f"RETURNING {self._stream}.{name('id')}, {self._stream}.{name('tail')}), "
            f"written AS ({self._insert_chunk.head} SELECT {{5}}, g.{name('tail')} - {{6}}, g.{name('tail')} - {{7}}, "
            f"{{8}}, {{9}}, {{10}} FROM {{chunks}} JOIN grown AS g ON g.{name('id')} = {{5}}) "
            f"SELECT {name('id')}, {OWN_ROW_VERSION}, {name('tail')} FROM grown"
        )
        self._written_now = f"{self._stream} AS s WHERE s.{name('id')} = {{}} AND s.xmin = pg_current_xact_id()::xid"

    def update_if_unchanged(
        self, cursor: Any, streams: Sequence[Row], chunks: Sequence[Row], producers: Sequence[Row]
    ) -> Rows:
        updated = self._update_where_unchanged(cursor, streams)
        # Chunks and producers are written only for the streams that this transaction has updated.
        if chunks:
            self._insert_where_written(cursor, self._insert_chunk, chunks)
        if producers:
            sent = SentRows(tuple(UPDATED_PRODUCER_COLUMNS.values()), producers)
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
            parameters = scalars(kinds, rows[0])
        else:
            sent = SentRows(kinds, rows)
            *values, row_version, tail = sent.expressions
            update = self._update_streams(values, sent.source)
            update += f" AND {self._is_version.format(row_version)} AND {stream}.{name('tail')} = {tail}"
            parameters = sent.parameters
        return self._send(cursor, f"{update} RETURNING {stream}.{name('id')}, {OWN_ROW_VERSION}", parameters)

    def _insert_where_written(self, cursor: Any, into: Insert, rows: Sequence[Row]) -> None:
        if len(rows) == 1:
            parameters = scalars(into.types, rows[0])
            values = ", ".join(f"${number}" for number in range(1, len(parameters) + 1))
            self._send(cursor, f"{into.head} SELECT {values} FROM {self._written_now.format('$1')}", parameters)
        else:
            sent = SentRows(into.types, rows)
            # Joins each row of `v` with one empty row if its stream was updated, and with none otherwise.
            written = f", LATERAL (SELECT FROM {self._written_now.format(sent.expressions[0])}) AS w"
            self._insert_sent(cursor, into, sent, written)

    def append_where_plain(self, cursor: Any, streams: Sequence[Row], chunks: Sequence[Row]) -> Rows:
        kinds = tuple(GROWN_STREAM_COLUMNS.values())
        grown = SentRows(kinds, streams)
        written = SentRows(self._insert_chunk.types, chunks, first=len(kinds) + 1, alias="c")
        sql = self._append_plain.format(
            *grown.expressions, *written.expressions, streams=grown.source, chunks=written.source
        )
        return self._send(cursor, sql, [*grown.parameters, *written.parameters])

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
