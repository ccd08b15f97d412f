"""The transaction of a handler: its effects and the move of the cursor are committed together, or not at all.

Invariant: the cursor moves only in the transaction that has the effects. A database may undo a transaction in the
middle, and a handler may catch that error. PostgreSQL refuses all further statements then. MySQL, MariaDB and SQLite
begin another transaction, in which the cursor must not move (`UndoneTransactions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ...runtime.caller_transaction import atomic, on_commit
from . import cursors
from .cursors import Claim, ClaimLost

# Numbers of MySQL and MariaDB: deadlock, row changed since it was read, too many locks.
_UNDOES_ALL = frozenset({1213, 1020, 1206})
_LOCK_WAIT_TIMEOUT = 1205


@contextmanager
def moving(held: Claim, position: int, using: str, *, failures: int) -> Iterator[None]:
    """Run the block in a transaction that ends with the move of the cursor.

    The claim has the new position once the transaction is committed, also if a function fails that the block has
    registered for the commit.

    Args:
        held: the claim.
        position: where the cursor moves.
        using: alias of the database.
        failures: the failed attempts that the link has then.

    Raises:
        ClaimLost: the claim does not hold the stream any more. The transaction was rolled back.
        django.db.Error: the database has undone the transaction.
    """

    def note_move() -> None:
        held.position, held.failures = position, failures

    with atomic(using):
        on_commit(note_move, using)  # the first one: others may fail
        if connections[using].vendor == "sqlite" and not cursors.renew(held, using):
            # This takes the write lock. A transaction that begins with a read could fail to write later.
            raise ClaimLost
        with UndoneTransactions(connections[using]):
            yield
        cursors.advance(held, position, using, failures=failures)
    note_move()  # in a test, the transaction around this one is never committed


class UndoneTransactions:
    """Raises, at the end of the block, the error by which the database has undone the whole transaction.

    The block may have caught it. A transaction that the block itself has committed, such as by DDL on MySQL, is not
    undone.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._error: Error | None = None
        self._watch: AbstractContextManager[Any] = nullcontext()
        if connection.vendor != "postgresql":
            self._watch = connection.execute_wrapper(self._execute)

    def __enter__(self) -> None:
        self._watch.__enter__()

    def __exit__(self, kind: type[BaseException] | None, *details: Any) -> None:
        self._watch.__exit__(kind, *details)
        if kind is None and self._error is not None:
            raise self._error

    def _execute(self, execute: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return execute(*arguments)
        except Error as error:
            if self._error is None and self._is_undone_by(error):
                self._error = error
            raise

    def _is_undone_by(self, error: Error) -> bool:
        if self._connection.vendor == "sqlite":
            return not self._connection.connection.in_transaction
        number = error.args[0] if error.args else None
        return number in _UNDOES_ALL or (number == _LOCK_WAIT_TIMEOUT and self._timeouts_undo_all())

    def _timeouts_undo_all(self) -> bool:
        with self._connection.cursor() as cursor:
            cursor.execute("SELECT @@innodb_rollback_on_timeout")
            return bool(cursor.fetchall()[0][0])
