"""SQLite's statements on chunks, and on staged chunks, which no other database has.

Staged chunks are an optimisation: see `store.upkeep.staged_chunks`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

import msgspec
from django.db import connections

from ...models import Chunk, StagedChunk
from .chunk_statements import ChunkStatements
from .columns import CHUNK_COLUMNS, READ_CHUNK_COLUMNS
from .rows import ChunkContents, Row, StagedSpan, chunk_slices
from .sqlite_execution import SQLiteExecution, json_field, to_json

_OWN_STATEMENT_BYTES = 32 * 1024
"""Size of data from which a chunk gets a statement of its own, which takes less time than a second copy of the data."""

_IN_PLACE_BYTES = 1024 * 1024
"""Size of data from which it is written into its row, and not bound to the statement (`_insert_in_place`)."""

_CACHE = "SELECT cache_spill, page_size FROM pragma_cache_spill, pragma_page_size"

_in_order = itemgetter(READ_CHUNK_COLUMNS.index("stream_id"), READ_CHUNK_COLUMNS.index("end"))
_decode = msgspec.json.decode


class SQLiteChunkStatements(SQLiteExecution, ChunkStatements):
    """Chunks in two tables: reads query both, and small chunks of a busy process go to the staged ones."""

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name, chunk, chunk_id = self._quote, self._chunk, self._quote("id")
        span = ", ".join(name(column) for column in ("stream_id", "id", "start", "end"))
        self._select_spans_as_json = (
            f"SELECT json_group_array(json_array({span})) FROM (SELECT {span} FROM {chunk} "
            f"WHERE {name('stream_id')} IN (SELECT value FROM json_each(%s)) "
            f"ORDER BY {name('stream_id')} DESC, {name('end')} DESC LIMIT %s)"
        )
        # The data as hexadecimal text: SQLite has no function that joins the bytes of many rows.
        # CROSS JOIN keeps the order: from the ids into the index.
        self._read_chunks_as_json = (
            f"SELECT json_group_array(c.{chunk_id}), group_concat(hex(c.{name('data')}), ''), "
            f"json_group_array(hex(c.{name('ends')})), json_group_array(length(c.{name('data')})) "
            f"FROM json_each(%s) AS v CROSS JOIN {chunk} AS c ON c.{chunk_id} = v.value"
        )
        among = f"{chunk_id} IN (SELECT value FROM json_each(%s))"
        self._lock_chunks_as_json = f"SELECT json_group_array({chunk_id}) FROM {chunk} WHERE {among}"
        self._insert_chunks = self._insert_of_rows(self._insert_chunk, ("ends", "created_at"), CHUNK_COLUMNS)
        places = ["zeroblob(%s)" if column == "data" else "%s" for column in CHUNK_COLUMNS]
        self._insert_zeros = f"{self._insert_chunk.head} VALUES ({', '.join(places)})"
        self._staged = self._table(StagedChunk)
        self._prepare_staged_writes()
        self._prepare_staged_reads()

    def _prepare_staged_writes(self) -> None:
        name, table = self._quote, StagedChunk._meta.db_table
        into = self._insert(self._staged, {"block": "bigint"} | CHUNK_COLUMNS)
        # The block follows from the last id of the table, so all processes fill the same block.
        block = f"COALESCE((SELECT seq >> {StagedChunk.BLOCK_BITS} FROM sqlite_sequence WHERE name = '{table}'), 0)"
        self._insert_staged = self._insert_of_rows(into, ("ends", "created_at"), CHUNK_COLUMNS, f"{block}, ")
        self._delete_staged = f"DELETE FROM {self._staged} WHERE {name('id')} IN (SELECT value FROM json_each(%s))"

    def _prepare_staged_reads(self) -> None:
        name, staged, block = self._quote, self._staged, self._quote("block")
        # From one block to the next by the index, without a scan of the rows between.
        blocks = (
            f"WITH RECURSIVE blocks(block) AS (SELECT MIN({block}) FROM {staged} UNION ALL "
            f"SELECT (SELECT MIN(r.{block}) FROM {staged} AS r WHERE r.{block} > blocks.block) "
            f"FROM blocks WHERE blocks.block IS NOT NULL) "
        )
        self._staged_blocks = f"{blocks}SELECT block FROM blocks WHERE block IS NOT NULL"
        # One statement for both tables, because a flush moves chunks from one to the other.
        in_block = f"blocks CROSS JOIN {staged} AS c ON c.{block} = blocks.block"
        self._select_all_chunks = (
            f"{blocks}{self._select_from(f'{self._chunk} AS c ON TRUE', self._chunk, '')} UNION ALL "
            f"{self._select_from(in_block, staged, f'l.{block} = blocks.block AND ')}"
        )
        stream_id, start, end, data, ends = (f"c.{name(column)}" for column in READ_CHUNK_COLUMNS)
        self._read_block = (
            f"SELECT json_group_array(json_array(c.{name('id')}, {stream_id}, stream_exists, {start}, {end}, "
            f"hex({ends}), length({data}))), group_concat(hex({data}), '') "
            f"FROM (SELECT c.*, s.{name('id')} IS NOT NULL AS stream_exists "
            f"FROM {staged} AS c LEFT JOIN {self._stream} AS s ON s.{name('id')} = {stream_id} "
            f"WHERE c.{block} = %s ORDER BY {stream_id}, {end}) AS c"
        )

    def _select_from(self, source: str, table: str, in_block: str) -> str:
        """Return the query for the chunks in ranges (`select_chunks`) of one table."""
        name = self._quote
        columns = ", ".join(f"c.{name(column)}" for column in READ_CHUNK_COLUMNS)
        # The last chunk of the range, as in `ChunkStatements.select_chunks`.
        last = (
            f"SELECT MIN(l.{name('end')}) FROM {table} AS l WHERE {in_block}l.{name('stream_id')} = {json_field(0)} "
            f"AND l.{name('end')} >= {json_field(2)}"
        )
        return (
            f"SELECT {columns} FROM json_each(%s) AS v CROSS JOIN {source} AND c.{name('stream_id')} = {json_field(0)} "
            f"AND c.{name('end')} > {json_field(1)} AND c.{name('end')} <= COALESCE(({last}), {json_field(2)}) "
            f"WHERE c.{name('start')} < {json_field(2)}"
        )

    def insert_chunks(self, cursor: Any, rows: Sequence[Row], stage: bool = False) -> None:
        if stage:
            small = [row for row in rows if len(row[3]) <= StagedChunk.MAX_BYTES]
            self._execute_for_all(cursor, self._insert_staged, small)
            if len(small) == len(rows):
                return
            rows = [row for row in rows if len(row[3]) > StagedChunk.MAX_BYTES]
        small = [row for row in rows if len(row[3]) < _OWN_STATEMENT_BYTES]
        for slice_rows in chunk_slices(small):
            self._insert_all(cursor, self._insert_chunk, self._insert_chunks, slice_rows)
        for row in rows:
            size = len(row[3])
            if size >= _IN_PLACE_BYTES and 2 * size <= self._cached_bytes(cursor):
                self._insert_in_place(cursor, row)
            elif size >= _OWN_STATEMENT_BYTES:
                self._insert_rows(cursor, self._insert_chunk, [row])

    def _insert_in_place(self, cursor: Any, row: Row) -> None:
        """Insert a chunk with zeros in place of its data, and write the data over them.

        The driver copies a bound value, and SQLite copies it once more before it fills the pages. For 14 MB that takes
        two thirds of the processor time of the insert, most of it to get fresh memory from the system.
        """
        stream_id, start, end, data, ends, created_at = row
        inserted = self._execute(cursor, self._insert_zeros, (stream_id, start, end, len(data), ends, created_at))
        connection = connections[self._using]
        with (
            connection.wrap_database_errors,
            connection.connection.blobopen(Chunk._meta.db_table, "data", inserted.lastrowid) as place,
        ):
            place.write(data)

    def _cached_bytes(self, cursor: Any) -> int:
        """Return how much changed data the connection keeps in memory. With more, it would write the zeros to disk."""
        ((pages, page_bytes),) = self._execute(cursor, _CACHE, ()).fetchall()
        return int(pages) * int(page_bytes)

    def select_chunks(
        self, cursor: Any, ranges: Collection[tuple[int, int, int]], *, latest: bool = False
    ) -> Iterable[Sequence[Any]]:
        wanted = to_json(ranges)
        chunks: list[Sequence[Any]] = self._execute(cursor, self._select_all_chunks, [wanted, wanted]).fetchall()
        chunks.sort(key=_in_order)  # to sort them, SQLite would copy their data
        return chunks

    def staged_blocks(self, cursor: Any) -> list[int]:
        return [block for (block,) in self._execute(cursor, self._staged_blocks, ()).fetchall()]

    def read_block(self, cursor: Any, block: int) -> tuple[Iterator[StagedSpan], bytes]:
        rows, data = self._execute(cursor, self._read_block, [block]).fetchone()
        spans = (
            StagedSpan(chunk_id, stream_id, bool(stream_exists), start, end, bytes.fromhex(ends), size)
            for chunk_id, stream_id, stream_exists, start, end, ends, size in _decode(rows)
        )
        return spans, bytes.fromhex(data or "")

    def delete_staged(self, cursor: Any, ids: Sequence[int]) -> int:
        deleted: int = self._execute(cursor, self._delete_staged, [to_json(ids)]).rowcount
        return deleted

    def select_spans(self, cursor: Any, stream_ids: Sequence[int], limit: int) -> Sequence[Sequence[int]]:
        return self._fetch_json(cursor, self._select_spans_as_json, [to_json(stream_ids), limit])

    def read_chunks(self, cursor: Any, ids: Sequence[int]) -> ChunkContents:
        existing, data, ends, sizes = self._execute(cursor, self._read_chunks_as_json, [to_json(ids)]).fetchone()
        packed = [bytes.fromhex(hexadecimal) for hexadecimal in _decode(ends)]
        return ChunkContents(_decode(existing), bytes.fromhex(data or ""), packed, _decode(sizes))

    def lock_chunks(self, cursor: Any, ids: Sequence[int]) -> set[int]:
        # The transaction has the lock of the whole database.
        (existing,) = self._execute(cursor, self._lock_chunks_as_json, [to_json(ids)]).fetchone()
        return set(_decode(existing))
