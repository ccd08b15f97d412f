"""SQLite's statements."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from operator import itemgetter
from sqlite3 import Cursor
from typing import Any, Literal

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Model

from ...models import StagedChunk, Stream
from ...runtime.caller_transaction import in_callers_transaction
from ..stream_info import StreamInfo
from .base import ChunkContents, Insert, Lock, Row, StagedSpan, Statements, portions
from .columns import CHUNK_COLUMNS, PRODUCER_COLUMNS, READ_COLUMNS, STREAM_COLUMNS, UPDATED
from .sqlite_busy import patiently

_CLOSED = StreamInfo._fields.index("closed")

_DEADLINE = [*UPDATED].index("deadline")

_LARGE_BYTES = 32 * 1024
"""Data of a row from which to copy it once more takes longer than a statement of its own."""

_MOST_ROWS = 512
"""Rows that one statement takes at the most: fewer than SQLite has places for, and all that a batch has, about."""

_in_order = itemgetter(READ_COLUMNS.index("stream_id"), READ_COLUMNS.index("end"))
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.decode
_decode_rows = msgspec.json.Decoder(list[list[Any]]).decode


class _Many:
    """A statement over many rows: {0} and so on stand for their columns, {rows} for all of them.

    The columns in `alike`, two at least, mostly have the same in every row. Then that is passed once, before the rows:
    to hand over a value takes longer than to write it.
    """

    def __init__(self, sql: str, width: int, alike: Collection[int] = ()) -> None:
        self.sql = sql
        self.width = width
        self.alike = alike
        self._chosen = itemgetter(*alike) if alike else None
        self._others = itemgetter(*(number for number in range(width) if number not in alike))

    def part(self, rows: Sequence[Row]) -> tuple[Row, list[Any]]:
        """Return what is passed once, if anything is, and what is passed for each row."""
        if self._chosen is not None and len(rows) > 1:
            once: Row = self._chosen(rows[0])
            if all(map(once.__eq__, map(self._chosen, rows))):
                return once, [value for row in map(self._others, rows) for value in row]
        return (), [value for row in rows for value in row]


class SQLiteStatements(Statements):
    """SQLite: many rows are one statement, and come back as one JSON array.

    For every row that a statement yields, and for every statement, Python's driver lets go of the interpreter and has
    to get it back, which takes longer than the row where other threads are busy.
    """

    supports_blind_insert = True

    def __init__(self, using: str) -> None:
        super().__init__(using)
        name = self._quote
        stream, producer = self._stream, self._producer
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
        chunk, chunk_id = self._chunk, name("id")
        span = ", ".join(name(column) for column in ("stream_id", "id", "start", "end"))
        self._select_spans_as_json = (
            f"SELECT json_group_array(json_array({span})) FROM (SELECT {span} FROM {chunk} "
            f"WHERE {name('stream_id')} IN (SELECT value FROM json_each(%s)) "
            f"ORDER BY {name('stream_id')} DESC, {name('end')} DESC LIMIT %s)"
        )
        # The data as text, as there is nothing else that puts the bytes of many rows together.
        self._read_chunks_as_json = (
            f"SELECT json_group_array(c.{chunk_id}), group_concat(hex(c.{name('data')}), ''), "
            f"json_group_array(hex(c.{name('ends')})), json_group_array(length(c.{name('data')})) "
            f"FROM json_each(%s) AS v CROSS JOIN {chunk} AS c ON c.{chunk_id} = v.value"
        )
        among = f"{chunk_id} IN (SELECT value FROM json_each(%s))"
        self._lock_chunks_as_json = f"SELECT json_group_array({chunk_id}) FROM {chunk} WHERE {among}"
        self._inserts: dict[tuple[int, ...], tuple[_Many, Callable[[Row], Row]]] = {}
        # Numbered from the last id that was ever given: nobody else can be given one meanwhile.
        self._last_id = f"COALESCE((SELECT seq FROM sqlite_sequence WHERE name = '{Stream._meta.db_table}'), 0)"
        self._insert_chunks = self._insert_many(self._insert_chunk, ("ends", "created_at"), CHUNK_COLUMNS)
        self._insert_producers = self._insert_many(
            self._insert_producer, ("epoch", "seq", "updated_at"), PRODUCER_COLUMNS
        )
        self._prepare_staged()
        self._updates = {has_deadline: self._update_of(has_deadline) for has_deadline in (True, False)}
        self._update_producers_of = _Many(
            f"UPDATE {producer} SET {name('epoch')} = {{0}}, {name('seq')} = {{1}}, {name('updated_at')} = {{2}} "
            f"FROM {{rows}} WHERE {producer}.{name('stream_id')} = {{3}} AND {producer}.{name('producer_id')} = {{4}}",
            5,
            (0, 2),
        )

    @contextmanager
    def transaction(self, lock_ms: int | None = None, waits: Callable[[], None] | None = None) -> Iterator[Any]:
        connection = connections[self._using]
        if in_callers_transaction(connection):
            with super().transaction(lock_ms) as cursor:
                yield cursor
            return
        # Django, which would take a third of a small batch's time, is not told: nothing in it uses `atomic`.
        own: Any = connection.cursor() if _is_watched(connection) else _cursor(connection)
        try:
            # It will write, so it takes its turn now, and does not fail half-way when somebody else has written.
            begin = partial(self._execute, own, "BEGIN IMMEDIATE", ())
            if lock_ms == 0:
                self._without_waiting(own, begin)
            else:
                patiently(begin, waits)
            yield own
            if waits is not None:
                waits()  # until here there was nothing to wait for, and to the disk it is far
            self._execute(own, "COMMIT", ())
        except BaseException:
            if own.connection.in_transaction:
                self._execute(own, "ROLLBACK", ())
            raise
        finally:
            own.close()

    def _without_waiting(self, cursor: Any, work: Callable[[], object]) -> None:
        ((milliseconds,),) = self._execute(cursor, "PRAGMA busy_timeout", ()).fetchall()
        self._execute(cursor, "PRAGMA busy_timeout = 0", ())
        try:
            work()
        finally:
            self._execute(cursor, f"PRAGMA busy_timeout = {milliseconds}", ())

    @contextmanager
    def insertion(
        self, rows: int, lock_ms: int | None = None, waits: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        connection = connections[self._using]
        if in_callers_transaction(connection) or _is_watched(connection) or rows > _MOST_ROWS:
            with super().insertion(rows, lock_ms, waits) as cursor:
                yield cursor
            return
        # A statement outside a transaction is one by itself: it begins, writes and commits without the interpreter.
        own = _cursor(connection)
        own.waits = waits
        try:
            yield own
        finally:
            own.close()

    def version(self, cursor: Any) -> int | None:
        (version,) = self._execute(cursor, "PRAGMA data_version", ()).fetchone()
        return int(version)

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
        found = self._fetch(cursor, self._select_as_json[column], [_json(values)])
        for row in found:
            row[_CLOSED] = bool(row[_CLOSED])
        return [self._info(row) for row in found]

    def select_producers(self, cursor: Any, wanted: Collection[tuple[int, str]]) -> list[Sequence[Any]]:
        return [*self._fetch(cursor, self._select_producers_as_json, [_json(wanted)])]

    def insert_streams(self, cursor: Any, rows: Sequence[Row]) -> Iterable[tuple[int, str]]:
        # Most streams have neither an end nor a source: what is null everywhere need not be written.
        used = tuple(number for number, values in enumerate(zip(*rows, strict=True)) if values.count(None) < len(rows))
        insert, chosen = self._insert_used(used)
        numbers: list[tuple[int, str]] = []
        for first in range(0, len(rows), _MOST_ROWS):
            some = rows[first : first + _MOST_ROWS]
            self._all(cursor, insert, [(number, *chosen(row)) for number, row in enumerate(some, 1)])
            numbers += enumerate((row[0] for row in some), cursor.lastrowid - len(some) + 1)
        return numbers

    def insert_copies(self, cursor: Any, row: Row, paths: Sequence[str]) -> Iterable[tuple[int, str]]:
        insert, chosen = self._insert_used(tuple(number for number, value in enumerate(row) if value is not None))
        _, *alike = chosen(row)
        numbers: list[tuple[int, str]] = []
        for first in range(0, len(paths), _MOST_ROWS):
            some = paths[first : first + _MOST_ROWS]
            values = [value for pair in enumerate(some, 1) for value in pair]
            # It may be a transaction by itself (see `insertion`).
            patiently(partial(self._pass, cursor, insert, len(some), alike, values))
            numbers += enumerate(some, cursor.lastrowid - len(some) + 1)
        return numbers

    def _insert_used(self, used: tuple[int, ...]) -> tuple[_Many, Callable[[Row], Row]]:
        found = self._inserts.get(used)
        if found is None:
            kinds = [*STREAM_COLUMNS.items()]
            into = self._insert(self._stream, {"id": "bigint"} | dict(kinds[number] for number in used))
            columns = ", ".join(f"{{{number}}}" for number in range(1, len(used) + 1))
            sql = f"{into.head} SELECT {self._last_id} + {{0}}, {columns} FROM {{rows}} WHERE {{0}} IS NOT NULL"
            found = self._inserts[used] = _Many(sql, len(used) + 1, range(2, len(used) + 1)), itemgetter(*used)
        return found

    def _prepare_staged(self) -> None:
        name, chunk, table = self._quote, self._chunk, StagedChunk._meta.db_table
        recent, block = name(table), name("block")
        into = self._insert(recent, {"block": "bigint"} | CHUNK_COLUMNS)
        # The last id decides, so that all processes fill the same block.
        now = f"COALESCE((SELECT seq >> {StagedChunk.BLOCK_BITS} FROM sqlite_sequence WHERE name = '{table}'), 0)"
        self._insert_recent = self._insert_many(into, ("ends", "created_at"), CHUNK_COLUMNS, f"{now}, ")
        # From one to the next by the index, past all that is in between.
        blocks = (
            f"WITH RECURSIVE blocks(block) AS (SELECT MIN({block}) FROM {recent} UNION ALL "
            f"SELECT (SELECT MIN(r.{block}) FROM {recent} AS r WHERE r.{block} > blocks.block) "
            f"FROM blocks WHERE blocks.block IS NOT NULL) "
        )
        self._recent_blocks = f"{blocks}SELECT block FROM blocks WHERE block IS NOT NULL"

        def select(source: str, table: str, place: str) -> str:
            columns = ", ".join(f"c.{name(column)}" for column in READ_COLUMNS)
            # The last one in the range, as in what this overrides.
            last = (
                f"SELECT MIN(l.{name('end')}) FROM {table} AS l WHERE {place}l.{name('stream_id')} = {_field(0)} "
                f"AND l.{name('end')} >= {_field(2)}"
            )
            return (
                f"SELECT {columns} FROM json_each(%s) AS v CROSS JOIN {source} AND c.{name('stream_id')} = {_field(0)} "
                f"AND c.{name('end')} > {_field(1)} AND c.{name('end')} <= COALESCE(({last}), {_field(2)}) "
                f"WHERE c.{name('start')} < {_field(2)}"
            )

        # Together, as chunks go from one table into the other.
        in_block = f"blocks CROSS JOIN {recent} AS c ON c.{block} = blocks.block"
        self._select_chunks_and_recent = (
            f"{blocks}{select(f'{chunk} AS c ON TRUE', chunk, '')} UNION ALL "
            f"{select(in_block, recent, f'l.{block} = blocks.block AND ')}"
        )
        stream_id, start, end, data, ends = (f"c.{name(column)}" for column in READ_COLUMNS)
        self._read_block = (
            f"SELECT json_group_array(json_array(c.{name('id')}, {stream_id}, is_there, {start}, {end}, hex({ends}), "
            f"length({data}))), group_concat(hex({data}), '') FROM (SELECT c.*, s.{name('id')} IS NOT NULL AS is_there "
            f"FROM {recent} AS c LEFT JOIN {self._stream} AS s ON s.{name('id')} = {stream_id} "
            f"WHERE c.{block} = %s ORDER BY {stream_id}, {end}) AS c"
        )
        self._delete_recent = f"DELETE FROM {recent} WHERE {name('id')} IN (SELECT value FROM json_each(%s))"

    def insert_chunks(self, cursor: Any, rows: Sequence[Row], recent: bool = False) -> None:
        if recent:
            small = [row for row in rows if len(row[3]) <= StagedChunk.MAX_BYTES]
            self._all(cursor, self._insert_recent, small)
            if len(small) == len(rows):
                return
            rows = [row for row in rows if len(row[3]) > StagedChunk.MAX_BYTES]
        small = [row for row in rows if len(row[3]) < _LARGE_BYTES]
        for some in portions(small):
            self._insert_all(cursor, self._insert_chunk, self._insert_chunks, some)
        for row in rows:
            if len(row[3]) >= _LARGE_BYTES:
                self._insert_rows(cursor, self._insert_chunk, [row])

    def select_chunks(
        self, cursor: Any, ranges: Collection[tuple[int, int, int]], *, latest: bool = False
    ) -> Iterable[Sequence[Any]]:
        wanted = _json(ranges)
        found: list[Sequence[Any]] = self._execute(cursor, self._select_chunks_and_recent, [wanted, wanted]).fetchall()
        found.sort(key=_in_order)  # SQLite would copy the data for that
        return found

    def staged_blocks(self, cursor: Any) -> list[int]:
        return [block for (block,) in self._execute(cursor, self._recent_blocks, ()).fetchall()]

    def read_block(self, cursor: Any, block: int) -> tuple[Iterator[StagedSpan], bytes]:
        spans, data = self._execute(cursor, self._read_block, [block]).fetchone()
        found = (
            StagedSpan(chunk_id, stream_id, bool(is_there), start, end, bytes.fromhex(ends), size)
            for chunk_id, stream_id, is_there, start, end, ends, size in _decode(spans)
        )
        return found, bytes.fromhex(data or "")

    def delete_staged(self, cursor: Any, ids: Sequence[int]) -> int:
        deleted: int = self._execute(cursor, self._delete_recent, [_json(ids)]).rowcount
        return deleted

    def select_spans(self, cursor: Any, stream_ids: Sequence[int], limit: int) -> Sequence[Sequence[int]]:
        return self._fetch(cursor, self._select_spans_as_json, [_json(stream_ids), limit])

    def read_chunks(self, cursor: Any, ids: Sequence[int]) -> ChunkContents:
        there, data, ends, sizes = self._execute(cursor, self._read_chunks_as_json, [_json(ids)]).fetchone()
        packed = [bytes.fromhex(one) for one in _decode(ends)]
        return ChunkContents(_decode(there), bytes.fromhex(data or ""), packed, _decode(sizes))

    def lock_chunks(self, cursor: Any, ids: Sequence[int]) -> set[int]:
        # The transaction holds all there is.
        (there,) = self._execute(cursor, self._lock_chunks_as_json, [_json(ids)]).fetchone()
        return set(_decode(there))

    def delete_rows(self, cursor: Any, model: type[Model], ids: Sequence[int]) -> None:
        among = f"{self._quote('id')} IN (SELECT value FROM json_each(%s))"
        self._execute(cursor, f"DELETE FROM {self._table(model)} WHERE {among}", [_json(ids)])

    def insert_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        self._insert_all(cursor, self._insert_producer, self._insert_producers, rows)

    def update_streams(self, cursor: Any, rows: Sequence[Row]) -> None:
        has_deadline = any(row[_DEADLINE] is not None for row in rows)
        self._all(cursor, self._updates[has_deadline], rows)

    def _update_of(self, has_deadline: bool) -> _Many:
        # To set an indexed column is to write its index anew, also where the value stays. Streams without a deadline
        # get one by `update_lifetimes` only.
        name, stream = self._quote, self._stream
        assignments = [
            f"{name(column)} = {{{number}}}"
            for number, column in enumerate([*UPDATED][:5])
            if has_deadline or number != _DEADLINE
        ]
        assignments.append(f"{name('appended_at')} = COALESCE({{5}}, {stream}.{name('appended_at')})")
        return _Many(
            f"UPDATE {stream} SET {', '.join(assignments)} FROM {{rows}} WHERE {stream}.{name('id')} = {{6}}",
            7,
            (1, 2, 3, 5),
        )

    def update_producers(self, cursor: Any, rows: Sequence[Row]) -> None:
        self._all(cursor, self._update_producers_of, rows)

    def _insert_many(self, into: Insert, alike: Collection[str], columns: Collection[str], first: str = "") -> _Many:
        places = ", ".join(f"{{{number}}}" for number in range(len(columns)))
        return _Many(
            f"{into.head} SELECT {first}{places} FROM {{rows}} WHERE {{0}} IS NOT NULL",
            len(columns),
            [number for number, column in enumerate(columns) if column in alike],
        )

    def _insert_all(self, cursor: Any, into: Insert, many: _Many, rows: Sequence[Row]) -> None:
        if len(rows) == 1:
            self._insert_rows(cursor, into, rows)
        else:
            self._all(cursor, many, rows)

    def _all(self, cursor: Any, many: _Many, rows: Sequence[Row]) -> int:
        """Execute a statement over many rows, as few times as that can be done; return how many it has changed."""
        changed = 0
        for first in range(0, len(rows), _MOST_ROWS):
            some = rows[first : first + _MOST_ROWS]
            changed += self._pass(cursor, many, len(some), *many.part(some))
        return changed

    def _pass(self, cursor: Any, many: _Many, rows: int, once: Sequence[Any], values: Sequence[Any]) -> int:
        """Execute a statement over a number of rows, parted as `_Many.part` does; return how many it has changed."""
        # Rows of nulls, which no statement minds, make a round number: the driver keeps statements prepared.
        step = 1 if rows == 1 else 8 if rows <= 64 else 64
        missing = -rows % step
        nulls = [None] * (missing * (many.width - len(once)))
        sql = _with_rows(many, rows + missing, bool(once))
        changed: int = self._execute(cursor, sql, [*once, *values, *nulls]).rowcount
        return changed

    def _fetch(self, cursor: Any, sql: str, parameters: Sequence[object]) -> list[list[Any]]:
        (found,) = self._execute(cursor, sql, parameters).fetchone()
        return _decode_rows(found)

    def _execute(self, cursor: Any, sql: str, parameters: Sequence[object]) -> Any:
        if type(cursor) is _Cursor:
            if cursor.waits is not None:
                cursor.waits()
            with cursor.errors:
                return cursor.execute(_native(sql), parameters)
        connection = connections[self._using]
        if _is_watched(connection):
            return super()._execute(cursor, sql, parameters)
        with connection.wrap_database_errors:
            # Past Django's cursor, which writes every statement anew for SQLite's kind of placeholders.
            return Cursor.execute(cursor.cursor, _native(sql), parameters)


class _Cursor(Cursor):
    """The driver's cursor; `errors` turns its errors into Django's, `waits` is called before each statement."""

    errors: Any
    waits: Callable[[], None] | None = None


def _cursor(connection: BaseDatabaseWrapper) -> _Cursor:
    cursor: _Cursor = connection.connection.cursor(_Cursor)
    cursor.errors = connection.wrap_database_errors
    return cursor


def _is_watched(connection: BaseDatabaseWrapper) -> bool:
    """Whether somebody wants to see each statement."""
    return bool(connection.queries_logged or connection.execute_wrappers)


def _json(values: Iterable[object]) -> str:
    return _encode(list(values)).decode()


def _field(number: int) -> str:
    return f"json_extract(v.value, '$[{number}]')"


@lru_cache(maxsize=512)
def _native(sql: str) -> str:
    return sql.replace("%s", "?")


@lru_cache(maxsize=512)
def _with_rows(many: _Many, rows: int, once: bool) -> str:
    """Return a statement over a number of rows."""
    passed = many.alike if once else ()
    numbers = iter(range(1, many.width + 1))
    places = ["%s" if number in passed else f"v.column{next(numbers)}" for number in range(many.width)]
    row = f"({', '.join(['%s'] * (many.width - len(passed)))})"
    return many.sql.format(*places, rows=f"(VALUES {', '.join([row] * rows)}) AS v")
