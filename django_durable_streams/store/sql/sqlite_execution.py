"""How statements are executed on SQLite: past Django's cursor, many rows at a time, in transactions of their own.

Python's driver releases the interpreter's lock for each statement and for each row that it returns. Getting the lock
back takes longer than the row where other threads are busy. So many rows are passed as one statement, and return as one
JSON array. Knows no table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial
from operator import itemgetter
from sqlite3 import Cursor, Error
from types import TracebackType
from typing import Any

import msgspec
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ...runtime.caller_transaction import in_callers_transaction
from .base import BaseStatements
from .rows import Insert, Row
from .sqlite_busy import retry_while_locked

MAX_ROWS = 512
"""Rows of one statement: fewer than SQLite's limit for parameters allows, and about as many as a batch has."""

_FROM_ROWS = " FROM {rows}"
_COLUMN = re.compile(r"{(\d+)}")

_encode = msgspec.json.Encoder().encode
_decode_rows = msgspec.json.Decoder(list[list[Any]]).decode


class RowsStatement:
    """A statement over many rows. In `sql`, {0} and so on stand for their columns, and {rows} for the rows.

    Args:
        sql: the statement.
        width: number of columns.
        shared: numbers of the columns, two at least, that mostly have one value in all rows. Such a value is passed
            once, before the rows: passing a value to the driver takes longer than writing it.
    """

    def __init__(self, sql: str, width: int, shared: Collection[int] = ()) -> None:
        self.sql = sql
        self.width = width
        self.of_one_row = _of_one_row(sql) if _FROM_ROWS in sql and sql.startswith("UPDATE") else None
        """The same statement for one row, without a table of rows, and what picks its parameters from the row. It takes
        a third of the time."""
        self.shared = shared
        self._shared_of = itemgetter(*shared) if shared else None
        self._others_of = itemgetter(*(number for number in range(width) if number not in shared))

    def parameters(self, rows: Sequence[Row]) -> tuple[Row, list[Any]]:
        """Return the shared values, or none where the rows differ in them, and the values of each row."""
        if self._shared_of is not None and len(rows) > 1:
            shared: Row = self._shared_of(rows[0])
            if all(map(shared.__eq__, map(self._shared_of, rows))):
                return shared, [value for row in map(self._others_of, rows) for value in row]
        return (), [value for row in rows for value in row]


class DriverCursor(Cursor):
    """The driver's cursor, for use without Django's."""

    errors: Any
    """A context manager that raises the driver's errors as Django's. It is entered only after an error."""
    timezone: Any
    """The time zone in which the connection stores times. None: local times."""
    before_wait: Callable[[], None] | None = None
    """Called before each statement."""

    # SQLite finds rows as they are fetched, so a fetch fails as a statement does.

    def fetchone(self) -> Any:
        try:
            return Cursor.fetchone(self)
        except Error:
            with self.errors:
                raise

    def fetchall(self) -> list[Any]:
        try:
            return Cursor.fetchall(self)
        except Error:
            with self.errors:
                raise


class SQLiteExecution(BaseStatements):
    """Transactions and the execution of statements on SQLite."""

    counts_commits = True

    def transaction(
        self, lock_ms: int | None = None, before_wait: Callable[[], None] | None = None
    ) -> AbstractContextManager[Any]:
        connection = connections[self._using]
        if in_callers_transaction(connection):
            connection.validate_no_broken_transaction()  # the statements pass by the cursor of Django that does so
            return super().transaction(lock_ms)
        cursor: Any = connection.cursor() if _is_observed(connection) else _driver_cursor(connection)
        return _Transaction(self, cursor, lock_ms, before_wait)

    def begin(self, cursor: Any, lock_ms: int | None, before_wait: Callable[[], None] | None) -> None:
        """Begin a transaction with its write lock. To take that later fails after a write of others."""
        begin = partial(self._execute, cursor, "BEGIN IMMEDIATE", ())
        if lock_ms == 0:
            self._without_waiting(cursor, begin)
        else:
            retry_while_locked(begin, before_wait)

    def commit(self, cursor: Any) -> None:
        """Commit the transaction that `begin` has begun."""
        self._execute(cursor, "COMMIT", ())

    def roll_back(self, cursor: Any) -> None:
        """Undo the transaction that `begin` has begun, if it is still open."""
        if cursor.connection.in_transaction:
            self._execute(cursor, "ROLLBACK", ())

    def _without_waiting(self, cursor: Any, work: Callable[[], object]) -> None:
        ((milliseconds,),) = self._execute(cursor, "PRAGMA busy_timeout", ()).fetchall()
        self._execute(cursor, "PRAGMA busy_timeout = 0", ())
        try:
            work()
        finally:
            self._execute(cursor, f"PRAGMA busy_timeout = {milliseconds}", ())

    @contextmanager
    def insertion(
        self, rows: int, lock_ms: int | None = None, before_wait: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        connection = connections[self._using]
        if in_callers_transaction(connection) or _is_observed(connection) or rows > MAX_ROWS:
            with super().insertion(rows, lock_ms, before_wait) as cursor:
                yield cursor
            return
        # A statement outside a transaction begins, writes and commits in one call, without the interpreter's lock.
        own = _driver_cursor(connection)
        own.before_wait = before_wait
        try:
            yield own
        finally:
            own.close()

    def stamp(self, cursor: Any, moment: datetime) -> Any:
        if type(cursor) is DriverCursor and cursor.timezone is UTC:
            return str(moment.replace(tzinfo=None))  # as Django's backend does, in a tenth of the calls
        return super().stamp(cursor, moment)

    def commit_count(self, cursor: Any) -> int:
        (count,) = self._execute(cursor, "PRAGMA data_version", ()).fetchone()
        return int(count)

    def _insert_of_rows(
        self, into: Insert, shared: Collection[str], columns: Collection[str], first: str = ""
    ) -> RowsStatement:
        """Return an INSERT of many rows. `first` is SQL that stands before their columns."""
        places = ", ".join(f"{{{number}}}" for number in range(len(columns)))
        return RowsStatement(
            f"{into.head} SELECT {first}{places} FROM {{rows}} WHERE {{0}} IS NOT NULL",
            len(columns),
            [number for number, column in enumerate(columns) if column in shared],
        )

    def _insert_all(self, cursor: Any, into: Insert, of_rows: RowsStatement, rows: Sequence[Row]) -> None:
        if len(rows) == 1:
            self._insert_rows(cursor, into, rows)
        else:
            self._execute_for_all(cursor, of_rows, rows)

    def _execute_for_all(self, cursor: Any, statement: RowsStatement, rows: Sequence[Row]) -> int:
        """Execute a statement over many rows, in as few slices as possible; return how many rows it has changed."""
        if len(rows) == 1 and statement.of_one_row is not None and type(cursor) is DriverCursor:
            sql, pick = statement.of_one_row
            return int(self._execute(cursor, sql, pick(rows[0])).rowcount)
        changed = 0
        for first in range(0, len(rows), MAX_ROWS):
            slice_rows = rows[first : first + MAX_ROWS]
            changed += self._execute_rows(cursor, statement, len(slice_rows), *statement.parameters(slice_rows))
        return changed

    def _execute_rows(
        self, cursor: Any, statement: RowsStatement, count: int, shared: Sequence[Any], values: Sequence[Any]
    ) -> int:
        """Execute a statement over `count` rows, with `RowsStatement.parameters`; return how many it has changed."""
        # Rows of nulls, which every statement ignores, make a round number: the driver caches prepared statements.
        step = 1 if count == 1 else 8 if count <= 64 else 64
        missing = -count % step
        nulls = [None] * (missing * (statement.width - len(shared)))
        sql = _expand(statement, count + missing, bool(shared))
        changed: int = self._execute(cursor, sql, [*shared, *values, *nulls]).rowcount
        return changed

    def _fetch_json(self, cursor: Any, sql: str, parameters: Sequence[object]) -> list[list[Any]]:
        """Return the rows of a query that returns them as one JSON array."""
        (rows,) = self._execute(cursor, sql, parameters).fetchone()
        return _decode_rows(rows)

    def _execute(self, cursor: Any, sql: str, parameters: Sequence[object]) -> Any:
        if type(cursor) is DriverCursor:
            if cursor.before_wait is not None:
                cursor.before_wait()
            try:
                return cursor.execute(_with_question_marks(sql), parameters)
            except Error:
                with cursor.errors:
                    raise
        connection = connections[self._using]
        if _is_observed(connection):
            return super()._execute(cursor, sql, parameters)
        with connection.wrap_database_errors:
            # Django's own cursor would convert the placeholders of every statement again.
            Cursor.execute(cursor.cursor, _with_question_marks(sql), parameters)
        return cursor


class _Transaction:
    """A transaction that Django does not know, so that no code in it uses `atomic`, as a context manager.

    `atomic` would take a third of the time of a small batch, and a generator in place of this class five more calls.
    """

    def __init__(
        self, sql: SQLiteExecution, cursor: Any, lock_ms: int | None, before_wait: Callable[[], None] | None
    ) -> None:
        self._sql = sql
        self._cursor = cursor
        self._lock_ms = lock_ms
        self._before_wait = before_wait

    def __enter__(self) -> Any:
        try:
            self._sql.begin(self._cursor, self._lock_ms, self._before_wait)
        except BaseException:
            self._end()
            raise
        return self._cursor

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            self._end()
            return
        try:
            if self._before_wait is not None:
                self._before_wait()  # nothing has waited so far, but the commit waits for the disk
            self._sql.commit(self._cursor)
        except BaseException:
            self._end()
            raise
        self._cursor.close()

    def _end(self) -> None:
        try:
            self._sql.roll_back(self._cursor)
        finally:
            self._cursor.close()


def to_json(values: Iterable[object]) -> str:
    """Return values as the parameter of `json_each`."""
    return _encode(list(values)).decode()


def json_field(number: int) -> str:
    """Return the SQL of an element of the arrays that `json_each(%s) AS v` yields."""
    return f"json_extract(v.value, '$[{number}]')"


def _driver_cursor(connection: BaseDatabaseWrapper) -> DriverCursor:
    cursor: DriverCursor = connection.connection.cursor(DriverCursor)
    cursor.errors = connection.wrap_database_errors
    cursor.timezone = connection.timezone
    return cursor


def _is_observed(connection: BaseDatabaseWrapper) -> bool:
    """Whether Django logs the connection's queries, or a project has wrapped their execution."""
    return bool(connection.queries_logged or connection.execute_wrappers)


def _of_one_row(sql: str) -> tuple[str, Callable[[Row], Row]]:
    # Python before 3.12.4 warns of places with numbers, and a column may stand twice, or not at all.
    columns = map(int, _COLUMN.findall(sql))
    return _COLUMN.sub("%s", sql.replace(_FROM_ROWS, "")), itemgetter(*columns)


@lru_cache(maxsize=512)
def _with_question_marks(sql: str) -> str:
    return sql.replace("%s", "?")


@lru_cache(maxsize=512)
def _expand(statement: RowsStatement, count: int, has_shared: bool) -> str:
    """Return the SQL of a statement for a number of rows."""
    shared = statement.shared if has_shared else ()
    numbers = iter(range(1, statement.width + 1))
    places = ["%s" if number in shared else f"v.column{next(numbers)}" for number in range(statement.width)]
    row = f"({', '.join(['%s'] * (statement.width - len(shared)))})"
    return statement.sql.format(*places, rows=f"(VALUES {', '.join([row] * count)}) AS v")
