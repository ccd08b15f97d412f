"""Participation in the caller's transaction, which `atomic` manages, or the caller itself with autocommit off.

With autocommit off (`transaction.set_autocommit(False)`, or `"AUTOCOMMIT": False` in `DATABASES`) a transaction is
always open. It ends when the caller calls `transaction.commit()` or `rollback()`. Django's `on_commit` refuses to work
there. Inside an `atomic` it accepts a callback, and calls it once autocommit is on again, which may be never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper


def in_callers_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether the caller has begun a transaction, by `atomic` or with autocommit off."""
    if connection.connection is None:
        return connection.in_atomic_block or not connection.get_autocommit()
    return connection.in_atomic_block or not connection.autocommit


def holds_transaction(connection: BaseDatabaseWrapper) -> bool:
    """The same, without connecting: without a connection no transaction has begun."""
    return connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)


@contextmanager
def atomic(using: str) -> Iterator[None]:
    """Run the block in a transaction or, inside the caller's transaction, in a savepoint."""
    connection = connections[using]
    if connection.vendor == "sqlite" and _is_managed_by_caller(connection):
        _begin_sqlite(connection)
    is_own = not in_callers_transaction(connection)
    _drop_undone_callbacks(connection)
    try:
        with transaction.atomic(using=using):
            try:
                yield
            except Exception:
                raise
            except BaseException:
                # A signal handler has raised it, and may raise again while Django rolls back. Django enables autocommit
                # on nevertheless. On MySQL that commits, for example the deletions of half a compaction. If the
                # connection ends instead, the server rolls back.
                if is_own:
                    connection.close()
                raise
    finally:
        _drop_undone_callbacks(connection)


def on_commit(callback: Callable[[], object], using: str) -> None:
    """Call a function when the caller's transaction commits. Without a transaction call it now.

    If the transaction, or a savepoint around this call, is rolled back, the function is never called.
    """
    connection = connections[using]
    is_managed = _is_managed_by_caller(connection)
    if not is_managed and not connection.in_atomic_block:
        transaction.on_commit(callback, using=using)
        return
    if is_managed and not isinstance(getattr(connection.commit, "__self__", None), _Commit):
        connection.commit = _Commit(connection).commit  # type: ignore[method-assign]
    # In Django's own list: Django removes the entries that a rollback, of a savepoint too, or a lost connection undoes.
    hooks: list[Any] = connection.run_on_commit
    hooks.append((_SavepointsUpToNow(connection), _Callback(callback) if is_managed else callback, False))


class _SavepointsUpToNow:
    """The savepoints whose rollback undoes the present work. At a rollback Django asks whether a savepoint is in it.

    Django's own set has the savepoints of `atomic`, but not those of `transaction.savepoint()`. A connection numbers
    all its savepoints, and a rollback to one of them undoes all work after it.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._last = connection.savepoint_state

    def __contains__(self, savepoint: object) -> bool:
        number = str(savepoint).rpartition("_x")[2]
        return not number.isdecimal() or int(number) <= self._last  # another kind of name: it may be any savepoint


class _Callback:
    """A callback of this module, to tell it from the callbacks of other code."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()


class _Commit:
    """Replaces a connection's `commit`, and calls the callbacks of this module after it. Others stay with Django."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._commit = connection.commit

    def commit(self) -> None:
        """Commit, and call the callbacks that were registered since the last commit."""
        _drop_undone_callbacks(self._connection)
        self._commit()
        hooks: list[Any] = self._connection.run_on_commit
        self._connection.run_on_commit = [hook for hook in hooks if not isinstance(hook[1], _Callback)]
        for _, callback, _ in hooks:
            if isinstance(callback, _Callback):
                callback()


def _drop_undone_callbacks(connection: BaseDatabaseWrapper) -> None:
    """Drop the callbacks of a transaction that the caller manages, if the database has undone it.

    A deadlock on MySQL removes the savepoint to which Django would roll back, and the caller may go on. After an error
    on PostgreSQL, COMMIT rolls back and does not fail.
    """
    if connection.in_atomic_block or not _is_managed_by_caller(connection):
        return
    if connection.needs_rollback or _has_failed(connection):
        hooks: list[Any] = connection.run_on_commit
        connection.run_on_commit = [hook for hook in hooks if not isinstance(hook[1], _Callback)]


def _has_failed(connection: BaseDatabaseWrapper) -> bool:
    if connection.vendor != "postgresql" or connection.connection is None:
        return False
    from psycopg.pq import TransactionStatus

    return bool(connection.connection.info.transaction_status == TransactionStatus.INERROR)


def _is_managed_by_caller(connection: BaseDatabaseWrapper) -> bool:
    """Whether the caller's `commit()` ends the open transaction, and not the end of an `atomic`."""
    if connection.in_atomic_block:
        return not connection.commit_on_exit
    return not connection.get_autocommit()


def _begin_sqlite(connection: BaseDatabaseWrapper) -> None:
    """Begin the transaction that the driver begins only with the first change. A savepoint alone commits at its end."""
    if not connection.connection.in_transaction:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
