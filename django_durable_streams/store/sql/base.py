"""The base of all statements: one database, its transactions, and how a statement is executed.

Knows the names of the tables, and no rules of streams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

from django.db import Error, connections
from django.db.models import Model

from ... import clock
from ...models import Chunk, Producer, Stream
from ...runtime.caller_transaction import atomic, in_callers_transaction
from .rows import CommitUncertain, Insert, Row, slices

SHARED_LOCK = " LOCK IN SHARE MODE"
"""With this, MySQL and MariaDB read the newest committed rows, and not those of the transaction's snapshot."""


class BaseStatements:
    """The connection of a database alias, as the statements use it.

    Args:
        using: alias of the database.
    """

    counts_commits = False
    """Whether `commit_count` tells of the commits of other connections."""

    def __init__(self, using: str) -> None:
        connection = connections[using]
        self._using = using
        self._quote = connection.ops.quote_name
        self._is_mysql = connection.vendor == "mysql"
        self._stream, self._chunk, self._producer = (self._table(model) for model in (Stream, Chunk, Producer))
        self.can_skip_locked = connection.features.has_select_for_update_skip_locked

    def transaction(
        self, lock_ms: int | None = None, before_wait: Callable[[], None] | None = None
    ) -> AbstractContextManager[Any]:
        """Return the cursor of a new transaction or, in a transaction of the caller, of a savepoint, for `with`.

        Args:
            lock_ms: how long the statements of a new transaction wait for a lock, in milliseconds, where the database
                has such a setting for a transaction (PostgreSQL). None: as the connection is set. 0 on SQLite: they do
                not wait.
            before_wait: called before a new transaction waits for the server, the lock of SQLite or the disk.

        Raises:
            CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
            django.db.Error: nothing was changed.
        """
        return self._atomic(before_wait)

    @contextmanager
    def _atomic(self, before_wait: Callable[[], None] | None) -> Iterator[Any]:
        if before_wait is not None:
            before_wait()
        done = False
        try:
            with atomic(self._using):
                with connections[self._using].cursor() as cursor:
                    yield cursor
                done = True
        except Error as error:
            if done and connections[self._using].vendor != "sqlite":
                raise CommitUncertain from error
            raise

    @contextmanager
    def insertion(
        self, rows: int, lock_ms: int | None = None, before_wait: Callable[[], None] | None = None
    ) -> Iterator[Any]:
        """Yield the cursor of a transaction that executes nothing but one `insert_copies`. See `transaction`.

        Args:
            rows: the largest number of streams that are inserted.
        """
        with self.transaction(lock_ms, before_wait) as cursor:
            yield cursor

    def commit_count(self, cursor: Any) -> int:
        """Return a number that changes when another connection commits. Only where `counts_commits`."""
        raise NotImplementedError

    def stamp(self, cursor: Any, moment: datetime) -> Any:
        """Return an aware time as the database stores it in a DateTimeField."""
        return connections[self._using].ops.adapt_datetimefield_value(clock.to_project(moment))

    def row_version_written(self, cursor: Any) -> Iterable[Sequence[Any]] | None:
        """Return one row with one number, the version of the rows that this transaction writes.

        It can be read once the transaction is committed. None where rows have no versions.
        """
        return None

    def reads_old_snapshot(self) -> bool:
        """Whether a plain read in the current transaction may miss data that was committed before its locks."""
        return self._is_mysql and in_callers_transaction(connections[self._using])

    def flush(self, cursor: Any) -> None:
        """Execute all statements that are still queued, for code that does not use this cursor."""

    def delete_rows(self, cursor: Any, model: type[Model], ids: Sequence[int]) -> None:
        """Delete rows by their ids only, without a signal for each."""
        table, key = self._table(model), self._quote("id")
        for slice_ids in slices(ids):
            # From the ids to the rows: for a list of ids MySQL may read the whole table, lock all rows that it reads,
            # and wait for transactions that hold one of them.
            wanted = f"SELECT %s AS {key}{' UNION ALL SELECT %s' * (len(slice_ids) - 1)}"
            self._execute(
                cursor, f"DELETE t FROM ({wanted}) AS v STRAIGHT_JOIN {table} AS t ON t.{key} = v.{key}", slice_ids
            )

    def _execute(self, cursor: Any, sql: str, parameters: Sequence[object]) -> Any:
        """Execute a statement and return the cursor that has its rows."""
        cursor.execute(sql, parameters)
        return cursor

    def _execute_values(self, cursor: Any, sql: str, values: Sequence[tuple[str, Any]]) -> Any:
        """Execute a statement whose parameters come with their types in PostgreSQL's names."""
        return self._execute(cursor, sql, [value for _, value in values])

    def _among(self, column: str, values: Collection[object]) -> tuple[str, list[object]]:
        """Return the condition that a column has one of the values, and its parameters."""
        return f"{self._quote(column)} IN ({', '.join(['%s'] * len(values))})", list(values)

    def _insert_rows(self, cursor: Any, into: Insert, rows: Sequence[Row], suffix: str = "") -> Any:
        # One statement for all rows: each execution costs a round trip, or a release of the interpreter's lock.
        values = f"({', '.join(['%s'] * len(into.types))})"
        sql = f"{into.head} VALUES {', '.join([values] * len(rows))}{suffix}"
        return self._execute(cursor, sql, [value for row in rows for value in row])

    def _table(self, model: type[Model]) -> str:
        return self._quote(model._meta.db_table)

    def _insert(self, table: str, columns: Mapping[str, str]) -> Insert:
        names = ", ".join(self._quote(column) for column in columns)
        return Insert(f"INSERT INTO {table} ({names})", tuple(columns.values()))
