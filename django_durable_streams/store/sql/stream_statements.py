"""The statements on the tables of streams and producers, as MySQL and MariaDB have them.

SQLite and PostgreSQL override most of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

from django.db import connections

from ...clock import from_microseconds
from ...models import RegistryEntry, Retention, Stream
from ..stream_info import StreamInfo
from .base import SHARED_LOCK, BaseStatements
from .columns import PRODUCER_COLUMNS, REGISTRY_COLUMNS, RETENTION_COLUMNS, STREAM_COLUMNS
from .ids import has_id
from .rows import LoadedRows, Lock, Row, slices


class StreamStatements(BaseStatements):
    """Reads, locks and writes the rows of streams and of their producers."""

    _lock_clause = " FOR UPDATE"

    supports_blind_insert = False
    """Whether `insert_copies` can create streams without a query for existing ones."""

    has_row_versions = False
    """Whether each row has a version, the id of the transaction that wrote it, which `update_if_unchanged` compares."""

    def __init__(self, using: str) -> None:
        super().__init__(using)
        features = connections[using].features
        self._returning = features.can_return_rows_from_bulk_insert
        waiting = self._lock_clause if features.has_select_for_update else ""
        ordered = f" ORDER BY {self._quote('id')}"
        self._locks = {
            "no": "",
            "share": ordered + (SHARED_LOCK if self._is_mysql else ""),
            "wait": ordered + waiting,
            "skip": ordered + waiting + (" SKIP LOCKED" if self.can_skip_locked else ""),
        }
        self._prepare_streams()
        self._prepare_producers()

    def _prepare_streams(self) -> None:
        name, stream = self._quote, self._stream
        columns = ", ".join(name(column) for column in StreamInfo._fields)
        self._select_streams = f"SELECT {columns} FROM {stream} WHERE "
        self._insert_stream = self._insert(stream, STREAM_COLUMNS)
        self._select_ids = f"SELECT {name('id')}, {name('path')} FROM {stream} WHERE "
        self._returning_ids = f" RETURNING {name('id')}, {name('path')}"
        self._update_stream = (
            f"UPDATE {stream} SET {name('tail')}=%s, {name('closed')}=%s, {name('closed_by')}=%s, "
            f"{name('last_seq')}=%s, {name('deadline')}=%s, {name('link_state')}=%s, "
            f"{name('appended_at')}=COALESCE(%s, {name('appended_at')}) WHERE {name('id')}=%s"
        )
        self._update_lifetime = (
            f"UPDATE {stream} SET {name('ttl')}=%s, {name('expires_at')}=%s, {name('deadline')}=%s "
            f"WHERE {name('id')}=%s"
        )
        self._update_first_position = f"UPDATE {stream} SET {name('first_position')}=%s WHERE {name('id')}=%s"
        self._remove_stream = (
            f"UPDATE {stream} SET {name('path')}=NULL, {name('source_id')}=NULL, {name('lineage')}=NULL, "
            f"{name('deleted_at')}=%s WHERE {name('id')}=%s"
        )
        self._soft_delete_stream = f"UPDATE {stream} SET {name('deleted_at')}=%s WHERE {name('id')}=%s"

    def _prepare_producers(self) -> None:
        name, producer = self._quote, self._producer
        self._insert_producer = self._insert(producer, PRODUCER_COLUMNS)
        self._insert_retention = self._insert(self._table(Retention), RETENTION_COLUMNS)
        entry = self._table(RegistryEntry)
        self._insert_entry = self._insert(entry, REGISTRY_COLUMNS)
        self._select_entries = f"SELECT {name('id')}, {name('message')} FROM {entry} ORDER BY {name('id')} LIMIT "
        self._update_producer = (
            f"UPDATE {producer} SET {name('epoch')}=%s, {name('seq')}=%s, {name('updated_at')}=%s "
            f"WHERE {name('stream_id')}=%s AND {name('producer_id')}=%s"
        )
        self._select_producers = (
            f"SELECT {name('stream_id')}, {name('producer_id')}, {name('epoch')}, {name('seq')} FROM {producer} WHERE "
        )
        # The transaction's snapshot may be older than its lock on the stream. A locking read returns the newest rows.
        self._producers_lock = " FOR UPDATE" if self._is_mysql else ""

    def update_if_unchanged(
        self, cursor: Any, streams: Sequence[Row], chunks: Sequence[Row], producers: Sequence[Row]
    ) -> Iterable[Sequence[Any]]:
        """Write to those streams whose rows are unchanged, without a read before. Only where `has_row_versions`.

        Args:
            streams: as `update_streams` takes them, each with the row version that it must have, and the tail.
            chunks, producers: as `insert_chunks` and `update_producers` take them.

        Returns:
            The ids of the streams that were written, and their new row versions.
        """
        raise NotImplementedError

    def append_where_plain(self, cursor: Any, streams: Sequence[Row], chunks: Sequence[Row]) -> Iterable[Sequence[Any]]:
        """Append at the tails of streams, wherever other transactions have moved them. Only where `has_row_versions`.

        Leaves out the streams that are gone or closed, or that have a deadline, a `Stream-Seq` or a link.

        Args:
            streams: values in the order of `GROWN_STREAM_COLUMNS`.
            chunks: as `insert_chunks` takes them, but with the distances from the new tail instead of start and end.

        Returns:
            The ids of the streams that were written, their new row versions, and their new tails.
        """
        raise NotImplementedError

    def wait_for_stream(self, cursor: Any, path: str, lock_ms: int) -> None:
        """Lock the row of a stream for this transaction, if it exists, and wait for transactions that hold it.

        Args:
            lock_ms: how long to wait, in milliseconds.
        """
        if self._is_mysql:
            seconds = max(round(lock_ms / 1000), 1)
            limits = f"innodb_lock_wait_timeout = {seconds}, lock_wait_timeout = {seconds}"
            self._execute(cursor, f"SET SESSION {limits}", ())
        self.select_streams(cursor, "path", [path], lock="wait")

    def lock_streams(
        self, cursor: Any, paths: Collection[str], producers: Collection[tuple[str, str]], *, wait: bool, absent: bool
    ) -> LoadedRows:
        """Lock the rows of streams for this transaction, in the order of their ids, and read them and producers.

        Args:
            producers: path and producer id of the requested producers. The result may have others of these streams.
            wait: whether to wait for rows that other transactions hold, or to leave these out.
            absent: whether some of the streams probably do not exist.
        """
        streams = self.select_streams(cursor, "path", paths, lock="wait" if wait else "skip")
        ids = {info.path: info.id for info in streams}
        locked: list[str] = []
        if not wait and self.can_skip_locked and len(streams) < len(paths):
            # A missing row does not exist, or another transaction holds it. A plain query returns the latter.
            missing = [path for path in paths if path not in ids]
            locked = [info.path for info in self.select_streams(cursor, "path", missing)]
        wanted = {(ids[path], producer_id) for path, producer_id in producers if path in ids}
        return LoadedRows(streams, self.select_producers(cursor, wanted) if wanted else [], locked)

    def select_streams(
        self,
        cursor: Any,
        column: Literal["path", "id"],
        values: Collection[object],
        *,
        lock: Lock = "no",
    ) -> list[StreamInfo]:
        """Return the streams whose path or id is one of the values.

        Args:
            lock: how to lock their rows, in the order of their ids.
        """
        condition, parameters = self._among(column, values)
        rows = self._execute(cursor, f"{self._select_streams}{condition}{self._locks[lock]}", parameters)
        return [self._info(row) for row in rows.fetchall()]

    def select_producers(self, cursor: Any, wanted: Collection[tuple[int, str]]) -> list[Sequence[Any]]:
        """Return (stream id, producer id, epoch, seq) of the producers with these stream and producer ids.

        The result may have other producers of the same streams.
        """
        streams, stream_ids = self._among("stream_id", {stream_id for stream_id, _ in wanted})
        producers, producer_ids = self._among("producer_id", {producer_id for _, producer_id in wanted})
        sql = f"{self._select_producers}{streams} AND {producers}{self._producers_lock}"
        rows: list[Sequence[Any]] = self._execute(cursor, sql, [*stream_ids, *producer_ids]).fetchall()
        return rows

    def _info(self, row: Sequence[Any]) -> StreamInfo:
        info = StreamInfo._make(row)
        # Most streams have neither a deadline nor a source. Their rows need no conversion, except on MySQL.
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
        """Insert streams, with values in the order of `STREAM_COLUMNS`, and return the id and path of each.

        Where statements are queued, reading the result executes all queued statements.
        """
        ids: list[tuple[int, str]] = []
        for slice_rows in slices(rows):
            if self._returning:
                inserted = self._insert_rows(cursor, self._insert_stream, slice_rows, self._returning_ids)
            else:
                self._insert_rows(cursor, self._insert_stream, slice_rows)
                condition, parameters = self._among("path", [row[0] for row in slice_rows])
                inserted = self._execute(cursor, f"{self._select_ids}{condition}", parameters)
            ids += inserted.fetchall()
        return ids

    def insert_copies(
        self, cursor: Any, row: Row, paths: Sequence[str], rules_version: int
    ) -> Iterable[tuple[int, str]]:
        """Insert one stream for each path, with all other values from `row`, and return the id and path of each.

        Inserts nothing if one of the paths is taken, or if the link rules have another version; then the result is
        empty, or an IntegrityError is raised. Only where `supports_blind_insert`.
        """
        raise NotImplementedError

    def select_fork_sources(self, cursor: Any, ids: Collection[int]) -> Iterable[int]:
        """Return the source's id of each fork that streams have."""
        query = (
            Stream.objects.using(self._using).filter(path__isnull=False).filter(has_id("source_id", ids, self._using))
        )
        if self.reads_old_snapshot():
            # An older snapshot may miss forks. On PostgreSQL the lock of the source's row has failed by then.
            query = query.select_for_update()
        return query.values_list("source_id", flat=True)

    def remove_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        """Remove streams: free their paths, and end their references to sources.

        Args:
            moment: the time of the removal, in microseconds since 1970.
        """
        for stream_id in ids:
            self._execute(cursor, self._remove_stream, (moment, stream_id))

    def soft_delete_streams(self, cursor: Any, moment: int, ids: Sequence[int]) -> None:
        """Mark streams with forks as deleted. Their paths and data stay. `moment` as in `remove_streams`."""
        for stream_id in ids:
            self._execute(cursor, self._soft_delete_stream, (moment, stream_id))

    def update_streams(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update streams, with values in the order of `UPDATED_STREAM_COLUMNS`. None keeps `appended_at`."""
        if len(rows) == 1:
            self._execute(cursor, self._update_stream, rows[0])
        else:
            for slice_rows in slices(rows):
                cursor.executemany(self._update_stream, slice_rows)

    def update_lifetimes(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update streams: ttl, expires_at, deadline, id."""
        for row in rows:
            self._execute(cursor, self._update_lifetime, row)

    def update_first_positions(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update trimmed streams: first_position, id."""
        for row in rows:
            self._execute(cursor, self._update_first_position, row)

    def insert_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert producers: stream_id, producer_id, epoch, seq, updated_at."""
        for slice_rows in slices(rows):
            self._insert_rows(cursor, self._insert_producer, slice_rows)

    def insert_retention(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert retention of streams that have none, with values in the order of `RETENTION_COLUMNS`."""
        for slice_rows in slices(rows):
            self._insert_rows(cursor, self._insert_retention, slice_rows)

    def insert_registry_entries(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert entries of the registry, with values in the order of `REGISTRY_COLUMNS`. Their ids are in this order.

        An entry gets its id at its insertion, and not at the commit.
        """
        for slice_rows in slices(rows):
            self._insert_rows(cursor, self._insert_entry, slice_rows)

    def select_registry_entries(self, cursor: Any, limit: int) -> list[tuple[int, str]]:
        """Return the id and message of the oldest committed entries, in the order of their ids."""
        rows: list[tuple[int, str]] = self._execute_values(cursor, f"{self._select_entries}{int(limit)}", []).fetchall()
        return rows

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Update producers: epoch, seq, updated_at, stream_id, producer_id."""
        cursor.executemany(self._update_producer, rows)


def _moment(value: Any) -> datetime | None:
    return None if value is None else from_microseconds(value)
