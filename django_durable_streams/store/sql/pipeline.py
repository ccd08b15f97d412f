"""Several statements in one way to PostgreSQL and back, and a transaction that needs no way of its own.

Waiting for the server is what a batch spends most of its time on, and each time the thread that waits has to get the
interpreter back. So statements are queued until somebody wants to know what one of them has found; BEGIN travels with
the first of them, and COMMIT with the last. Knows nothing of streams.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count
from select import POLLIN, poll
from typing import TYPE_CHECKING, Any, NamedTuple

from django.db import Error, InternalError
from django.db.backends.base.base import BaseDatabaseWrapper

from .base import CommitUncertain
from .binary import Parameter

if TYPE_CHECKING:
    from psycopg import Connection
    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGconn, PGresult


class Statement(NamedTuple):
    """SQL with numbered parameters, and these."""

    sql: bytes
    parameters: Sequence[Parameter] = ()


class Rows:
    """What a statement has found, once it is known. To ask for it is to wait for it."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.result: PGresult | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter(self.fetchall())

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows.

        Raises:
            django.db.Error: the statement, or one that travelled with it, has failed.
        """
        if self.result is None:
            self._pipeline.flush()
        assert self.result is not None
        return self._pipeline.load(self.result)


class Pipeline:
    """Statements on one connection, in whatever transaction that is in.

    Args:
        connection: Django's.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._django = connection
        self._waiting: list[Statement] = []
        self._rows: list[Rows] = []

    def execute(self, sql: str, parameters: Sequence[Parameter] = ()) -> Rows:
        """Queue a statement with `%s` for each parameter, and return what will have its rows."""
        rows = Rows(self)
        self._waiting.append(Statement(_numbered(sql), parameters))
        self._rows.append(rows)
        return rows

    def flush(self) -> None:
        """Have all that is queued executed.

        Raises:
            django.db.Error: one of the statements has failed, and none of those behind it was executed.
        """
        if self._waiting:
            self._travel(before=self._opening())

    def load(self, result: PGresult) -> list[tuple[Any, ...]]:
        """Return a result's rows, in Python's types."""
        from psycopg.adapt import Transformer

        transformer = Transformer(self._connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    @property
    def _connection(self) -> Connection[Any]:
        connection: Connection[Any] = self._django.connection
        return connection

    def _opening(self) -> list[Statement]:
        """Return what goes first: the BEGIN that the driver puts before its own first statement."""
        self._django.ensure_connection()
        connection = self._connection
        return [] if connection.autocommit or _in_transaction(connection) else [_begin(connection)]

    def _travel(self, before: Sequence[Statement] = (), after: Sequence[Statement] = ()) -> list[PGresult]:
        statements = [*before, *self._waiting, *after]
        rows, self._rows, self._waiting = self._rows, [], []
        self._django.ensure_connection()
        self._django.validate_thread_sharing()
        self._django.validate_no_broken_transaction()
        with self._django.wrap_database_errors:
            results = _exchange(self._connection, statements)
        for one, result in zip(rows, results[len(before) :], strict=False):
            one.result = result
        return results


class Transaction(Pipeline):
    """A transaction of its own, on a connection that is in none and commits each statement.

    It begins with the first statement. Django is not told of it: nothing in it may use `transaction.atomic`.

    Args:
        lock_ms: how long its statements wait for a lock, in milliseconds; None: as long as the connection is told to.
        waits: is called before it waits for the server.
    """

    # Rows are found by their keys. The planner reckons with disks, and would look through all of a table of thousands
    # of streams for a dozen, which takes longer than all else in the batch.
    _settings = (Statement(b"SET LOCAL enable_seqscan = off"),)

    def __init__(
        self,
        connection: BaseDatabaseWrapper,
        lock_ms: int | None = None,
        waits: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(connection)
        self._begun = False
        self._lock_ms = lock_ms
        self._waits = waits

    def commit(self) -> None:
        """Have all that is queued executed, and commit. With nothing done at all, there is nothing to commit.

        Raises:
            CommitUncertain: the connection was lost on the way; everything was changed, or nothing.
            django.db.Error: nothing was changed.
        """
        if not self._begun and not self._waiting:
            return
        if not self._begun and self._connection is not None and _has_news(self._connection):
            # The server says something though it was not asked, most likely that it is gone. Nothing is lost if that
            # comes out before the commit is on its way too.
            self.flush()
        opening = self._opening()
        try:
            *_, result = self._travel(before=opening, after=[Statement(b"COMMIT")])
        except Error as error:
            if self._connection.closed:
                raise CommitUncertain from error
            raise
        self._begun = False
        if result.command_status != b"COMMIT":
            raise InternalError("The transaction had failed, and was rolled back.")

    def rollback(self) -> None:
        """Undo all, on the way out of an error: the connection is closed if that is not possible."""
        self._waiting.clear()
        self._rows.clear()
        if not self._begun:
            return
        self._begun = False
        try:
            if self._connection is not None and _in_transaction(self._connection):
                self._travel(after=[Statement(b"ROLLBACK")])
        except Error:
            self._django.close()
        except BaseException:
            self._django.close()  # otherwise the next transaction would commit what is there
            raise

    def _opening(self) -> list[Statement]:
        if self._begun:
            return []
        if self._waits is not None:
            self._waits()
        self._django.ensure_connection()
        self._begun = True
        # For the transaction, and not for the session, which may be others' behind a pooler.
        opening = [_begin(self._connection), *self._settings]
        if self._lock_ms is not None:
            opening.append(Statement(b"SET LOCAL lock_timeout = %d" % self._lock_ms))
        return opening


@lru_cache(maxsize=512)
def _numbered(sql: str) -> bytes:
    numbers = count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", sql).encode()


def _in_transaction(connection: Connection[Any]) -> bool:
    from psycopg.pq import TransactionStatus

    return connection.pgconn.transaction_status != TransactionStatus.IDLE


def _has_news(connection: Connection[Any]) -> bool:
    """Whether anything has come from the server, or its end of the connection, that nobody has looked at."""
    from psycopg.pq import ConnStatus

    if connection.pgconn.status != ConnStatus.OK:
        return True
    waiting = poll()
    waiting.register(connection.pgconn.socket, POLLIN)
    return bool(waiting.poll(0))


def _begin(connection: Connection[Any]) -> Statement:
    level = connection.isolation_level
    return Statement(b"BEGIN" if level is None else f"BEGIN ISOLATION LEVEL {level.name.replace('_', ' ')}".encode())


def _exchange(connection: Connection[Any], statements: Sequence[Statement]) -> list[PGresult]:
    """Have statements executed, and return their results.

    Raises:
        psycopg.Error: of the first that has failed. Those behind it were not executed.
    """
    from psycopg import OperationalError
    from psycopg.errors import error_from_result
    from psycopg.pq import ConnStatus, ExecStatus

    pgconn = connection.pgconn
    if pgconn.status != ConnStatus.OK:
        raise OperationalError("The connection to the database was lost.")
    with connection.lock:
        pgconn.enter_pipeline_mode()
        try:
            results = connection.wait(_send_and_receive(pgconn, statements))
        except BaseException:
            # What else comes over this connection belongs to what nobody waits for any more.
            pgconn.finish()
            raise
        pgconn.exit_pipeline_mode()
    for result in results:
        if result.status == ExecStatus.FATAL_ERROR:
            raise error_from_result(result, encoding="utf-8")
    return results


def _send_and_receive(pgconn: PGconn, statements: Sequence[Statement]) -> PQGen[list[PGresult]]:
    """Send statements and yield until the results of all have come. What has to be waited for is yielded."""
    from psycopg import OperationalError
    from psycopg.pq import ConnStatus, ExecStatus
    from psycopg.waiting import Ready, Wait

    for sql, parameters in statements:
        if parameters:
            oids, formats, values = zip(*parameters, strict=True)
            pgconn.send_query_params(sql, values, oids, formats)
        else:
            pgconn.send_query_params(sql, None)
    pgconn.pipeline_sync()
    while pgconn.flush():
        # The server may have to get rid of results before it takes more.
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    results: list[PGresult] = []
    while True:
        while pgconn.is_busy():
            if (yield Wait.R):
                pgconn.consume_input()
        result = pgconn.get_result()
        if result is not None:
            if result.status == ExecStatus.PIPELINE_SYNC:
                return results
            results.append(result)
        if pgconn.status != ConnStatus.OK:
            raise OperationalError(pgconn.get_error_message() or "The connection to the database was lost.")
