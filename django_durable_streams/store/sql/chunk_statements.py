"""The statements on the tables of chunks, as MySQL and MariaDB have them. SQLite and PostgreSQL override some of them.

The staged chunks are a matter of SQLite alone. Other databases have none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from .base import SHARED_LOCK, BaseStatements
from .columns import CHUNK_COLUMNS, READ_CHUNK_COLUMNS
from .rows import BYTES_PER_STATEMENT, TO_THE_END, ChunkContents, Row, StagedSpan, chunk_slices, slices

_RANGES_PER_STATEMENT = 64
"""Ranges of chunks that one statement reads. Each range is a condition of its own."""

_DOUBLED = b"\0\n\r\\'\"\x1a"
"""Bytes that the drivers of MySQL and MariaDB write as two into a statement."""

_OTHER_BYTES = 64 * 1024
"""Room for all but the data and its ends in a statement that inserts chunks."""

_SHORT_BYTES = 256 * 1024
"""Data that fits into a statement of 1 MiB, whatever its bytes are. For more, MySQL and MariaDB are asked what they
take, which is a round trip."""


class ChunkStatements(BaseStatements):
    """Reads, writes and merges chunks."""

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name, chunk = self._quote, self._chunk
        self._insert_chunk = self._insert(chunk, CHUNK_COLUMNS)
        self._select_spans = (
            f"SELECT {name('stream_id')}, {name('id')}, {name('start')}, {name('end')} FROM {chunk} WHERE "
        )
        self._select_chunks = f"SELECT {', '.join(name(column) for column in READ_CHUNK_COLUMNS)} FROM {chunk} WHERE "
        self._in_order = f" ORDER BY {name('stream_id')}, {name('end')}"
        self._in_reverse = f" ORDER BY {name('stream_id')} DESC, {name('end')} DESC"
        self._read_chunks = f"SELECT {name('id')}, {name('data')}, {name('ends')} FROM {chunk} WHERE "
        self._lock_chunks = f"SELECT {name('id')} FROM {chunk} WHERE "
        self._extend_chunk = f"UPDATE {chunk} SET {name('data')} = CONCAT({name('data')}, %s) WHERE {name('id')} = %s"
        self._chunks_lock = " FOR UPDATE SKIP LOCKED" if self.can_skip_locked else ""

    def insert_chunks(self, cursor: Any, rows: Sequence[Row], stage: bool = False) -> None:
        """Insert chunks: stream_id, start, end, data, ends, created_at.

        Args:
            stage: whether small chunks go to the table of staged chunks, where the database has one.
        """
        for slice_rows in chunk_slices(rows):
            if self._is_mysql and sum(len(row[3]) for row in slice_rows) > _SHORT_BYTES:
                self._insert_long(cursor, slice_rows)
            else:
                self._insert_rows(cursor, self._insert_chunk, slice_rows)

    def _insert_long(self, cursor: Any, rows: Sequence[Row]) -> None:
        """Insert chunks on MySQL or MariaDB, by several statements where one would be longer than they accept."""
        ((limit,),) = self._execute(cursor, "SELECT @@max_allowed_packet", ()).fetchall()
        sizes = [len(row[3]) + sum(map(row[3].count, _DOUBLED)) + 2 * len(row[4]) for row in rows]
        if sum(sizes) + _OTHER_BYTES <= limit:
            self._insert_rows(cursor, self._insert_chunk, rows)
            return
        for row, size in zip(rows, sizes, strict=True):
            *place, data, ends, created_at = row
            room = limit - _OTHER_BYTES - 2 * len(ends)
            part = len(data) if size + _OTHER_BYTES <= limit else max(min(room // 2, BYTES_PER_STATEMENT), 1)
            beginning = [(*place, data[:part], ends, created_at)]
            chunk_id = self._insert_rows(cursor, self._insert_chunk, beginning).lastrowid
            for first in range(part, len(data), part):
                self._execute(cursor, self._extend_chunk, (data[first : first + part], chunk_id))

    def select_chunks(
        self, cursor: Any, ranges: Collection[tuple[int, int, int]], *, latest: bool = False
    ) -> Iterable[Sequence[Any]]:
        """Return (stream id, start, end, data, ends) of the chunks in ranges, in order. A chunk may come twice.

        Args:
            ranges: stream id, the position after which a chunk must end, and the position before which it must start.
                `TO_THE_END` is the faster statement, for ranges that end near the tail.
            latest: whether to return chunks that were committed after the snapshot of the caller's transaction. Only
                needed where the transaction `reads_old_snapshot`.
        """
        name = self._quote
        lock = SHARED_LOCK if latest else ""
        # The last chunk of a range is the first chunk that ends at the range's end or after it. The index has only the
        # ends, so it cannot find the chunk by its start.
        last = f"SELECT MIN({name('end')}) FROM {self._chunk} WHERE {name('stream_id')} = %s AND {name('end')} >= %s"
        to_the_end = f"{name('stream_id')} = %s AND {name('end')} > %s"
        bounded = f"{to_the_end} AND {name('end')} <= COALESCE(({last}{lock}), %s)"
        chunks: list[Sequence[Any]] = []
        for slice_ranges in slices([*ranges], _RANGES_PER_STATEMENT):
            condition = " OR ".join(
                f"({to_the_end if before == TO_THE_END else bounded})" for _, _, before in slice_ranges
            )
            values: list[int] = []
            for owner, after, before in slice_ranges:
                values += (owner, after) if before == TO_THE_END else (owner, after, owner, before, before)
            sql = f"{self._select_chunks}{condition}{self._in_order}{lock}"
            chunks += self._execute(cursor, sql, values).fetchall()
        return chunks

    def select_spans(self, cursor: Any, stream_ids: Sequence[int], limit: int) -> Sequence[Sequence[int]]:
        """Return (stream id, chunk id, start, end) of the last chunks of streams, by stream id, both descending.

        Args:
            stream_ids: no more than ROWS_PER_STATEMENT.
            limit: the largest number of chunks.
        """
        condition, parameters = self._among("stream_id", stream_ids)
        sql = f"{self._select_spans}{condition}{self._in_reverse} LIMIT {limit:d}"
        spans: list[Sequence[int]] = self._execute(cursor, sql, parameters).fetchall()
        return spans

    def read_chunks(self, cursor: Any, ids: Sequence[int]) -> ChunkContents:
        """Return the contents of the chunks that still exist, in the order of the ids."""
        contents: dict[int, tuple[bytes, bytes]] = {}
        for slice_ids in slices(ids):
            condition, parameters = self._among("id", slice_ids)
            for chunk_id, data, ends in self._execute(cursor, f"{self._read_chunks}{condition}", parameters).fetchall():
                contents[chunk_id] = bytes(data), bytes(ends)
        existing = [chunk_id for chunk_id in ids if chunk_id in contents]
        data = [contents[chunk_id][0] for chunk_id in existing]
        ends = [contents[chunk_id][1] for chunk_id in existing]
        return ChunkContents(existing, b"".join(data), ends, [*map(len, data)])

    def lock_chunks(self, cursor: Any, ids: Sequence[int]) -> set[int]:
        """Lock the rows of chunks for this transaction and return their ids, without rows that others hold."""
        locked: set[int] = set()
        for slice_ids in slices(ids):
            condition, parameters = self._among("id", slice_ids)
            rows = self._execute(cursor, f"{self._lock_chunks}{condition}{self._chunks_lock}", parameters)
            locked.update(chunk_id for (chunk_id,) in rows.fetchall())
        return locked

    def staged_blocks(self, cursor: Any) -> list[int]:
        """Return the blocks that have staged chunks, the oldest first."""
        return []

    def read_block(self, cursor: Any, block: int) -> tuple[Iterator[StagedSpan], bytes]:
        """Return the staged chunks of a block, by stream and position, and the data of all. SQLite only."""
        raise NotImplementedError

    def delete_staged(self, cursor: Any, ids: Sequence[int]) -> int:
        """Delete staged chunks, and return how many of them existed. SQLite only."""
        raise NotImplementedError
