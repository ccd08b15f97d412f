"""Joining the caller's transaction, however it is managed: by `atomic`, or by the caller with autocommit off.

With autocommit off (`transaction.set_autocommit(False)`, or `"AUTOCOMMIT": False` in `DATABASES`) a transaction is open
all the time, and ends when the caller says `transaction.commit()` or `rollback()`. Django's `on_commit` refuses to be
used there, and what is registered inside an `atomic` there is called once autocommit is on again, which may be never.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper


def in_callers_transaction(connection: BaseDatabaseWrapper) -> bool:
    """Whether somebody has begun a transaction already, by `atomic` or with autocommit switched off."""
    return connection.in_atomic_block or not connection.get_autocommit()


def holds_transaction(connection: BaseDatabaseWrapper) -> bool:
    """The same of this moment, without connecting: where there is no connection, nothing has begun."""
    return connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)


@contextmanager
def atomic(using: str) -> Iterator[None]:
    """Yield in a transaction of its own or, inside the caller's, up to a savepoint."""
    connection = connections[using]
    if connection.vendor == "sqlite" and _is_managed_by_caller(connection):
        _begin_sqlite(connection)
    is_own = not in_callers_transaction(connection)
    _forget_undone(connection)
    try:
        with transaction.atomic(using=using):
            try:
                yield
            except Exception:
                raise
            except BaseException:
                # A signal has raised it, and another one may while Django rolls back. Django switches autocommit on all
                # the same, which commits on MySQL: of a merge, that chunks are deleted. So the server rolls back.
                if is_own:
                    connection.close()
                raise
    finally:
        _forget_undone(connection)


def on_commit(callback: Callable[[], object], using: str) -> None:
    """Call a function once the caller's transaction has committed: now, if there is none; never, if it is undone."""
    connection = connections[using]
    is_managed = _is_managed_by_caller(connection)
    if not is_managed and not connection.in_atomic_block:
        transaction.on_commit(callback, using=using)
        return
    if is_managed and not isinstance(getattr(connection.commit, "__self__", None), _Commit):
        connection.commit = _Commit(connection).commit  # type: ignore[method-assign]
    # Where Django keeps its own: whatever is rolled back, by a savepoint too, or ends with its connection, is taken
    # out there.
    hooks: list[Any] = connection.run_on_commit
    hooks.append((_SavepointsUpToNow(connection), _Callback(callback) if is_managed else callback, False))


class _SavepointsUpToNow:
    """The savepoints whose rollback undoes what is done now. Django asks of each whether it is one of them.

    Its own set has those of `atomic`, and not those that somebody has made by `transaction.savepoint()`. All of a
    connection's are numbered, and to go back to any of them undoes whatever came after it.
    """

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._last = connection.savepoint_state

    def __contains__(self, savepoint: object) -> bool:
        number = str(savepoint).rpartition("_x")[2]
        return not number.isdecimal() or int(number) <= self._last  # one with another name may be any


class _Callback:
    """What is to be called, told apart from what others have registered."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    def __call__(self) -> None:
        self._function()


class _Commit:
    """A connection's `commit`, which then calls what waits for it here. What Django has promised others stays as is."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._commit = connection.commit

    def commit(self) -> None:
        """Commit, and call what was registered since the last time."""
        _forget_undone(self._connection)
        self._commit()
        hooks: list[Any] = self._connection.run_on_commit
        self._connection.run_on_commit = [hook for hook in hooks if not isinstance(hook[1], _Callback)]
        for _, callback, _ in hooks:
            if isinstance(callback, _Callback):
                callback()


def _forget_undone(connection: BaseDatabaseWrapper) -> None:
    """Call nobody for a transaction that the caller manages and the database has undone by itself.

    A deadlock on MySQL takes with it the savepoint to which Django would roll back, and the caller may go on. After an
    error on PostgreSQL, COMMIT rolls back and does not fail.
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
    """Whether the transaction that is open is ended by the caller's `commit()`, not at the end of an `atomic`."""
    if connection.in_atomic_block:
        return not connection.commit_on_exit
    return not connection.get_autocommit()


def _begin_sqlite(connection: BaseDatabaseWrapper) -> None:
    """Begin what the driver would begin with the first change only: a savepoint before that commits when it ends."""
    if not connection.connection.in_transaction:
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
