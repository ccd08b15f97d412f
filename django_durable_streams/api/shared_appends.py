"""Appends of asynchronous code outside a transaction: the committer commits them together with other operations.

Only the thread that `sync_to_async` uses knows whether the caller is in a transaction. So this asks there, and encodes
the message there as well. An append in a transaction is done in that thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from ..engine.engine import engine_for, existing_engine
from ..models.methods import StreamMethods
from ..protocol.values import Data
from ..runtime import execution, test_transactions
from ..runtime.batch_worker import WorkerEnded
from ..runtime.caller_transaction import holds_transaction
from ..store.operations import Append, Appended

MakeOperation = Callable[[StreamMethods, Data, dict[str, Any]], Append]


async def append(stream: StreamMethods, value: Data, options: dict[str, Any], make: MakeOperation) -> Appended:
    """Append one message, in the caller's transaction, or else in a commit that others may share.

    Args:
        options: the keyword arguments of `Stream.append`.
        make: returns the operation for the stream, the value and the options.

    Raises:
        The errors of `Stream.append`.
        ServiceUnavailable: too many operations wait, or the database does not answer.
    """
    made = await sync_to_async(_append_or_make)(stream, value, options, make)
    if isinstance(made, Appended):
        return made
    try:
        result = await engine_for(stream._alias()).write(made)
    except WorkerEnded:  # the engine of a server that ends has not begun it
        return await sync_to_async(stream.append)(value, **options)
    assert isinstance(result, Appended)
    stream.tail_position, stream.closed = result.tail, result.closed
    return result


def _append_or_make(
    stream: StreamMethods, value: Data, options: dict[str, Any], make: MakeOperation
) -> Append | Appended:
    """Append in the caller's transaction, or return the operation for the committer."""
    using = stream._alias()
    if not _may_share(stream, using):
        return stream.append(value, **options)
    return make(stream, value, options)


def _may_share(stream: StreamMethods, using: str) -> bool:
    if type(stream).append is not StreamMethods.append:  # a project's own method has more to do
        return False
    connection = connections[using]
    if execution.is_inline() or holds_transaction(connection) or _may_block_writers(connection):
        return False
    # A project's tests would not expect that an append starts threads with connections.
    if test_transactions.is_under_test() and existing_engine(using) is None:
        return False
    try:
        test_transactions.check_engine(using)
    except test_transactions.InvisibleTransaction:
        return False
    return True


def _may_block_writers(connection: BaseDatabaseWrapper) -> bool:
    """Return whether a query that the caller still iterates over would block the committer, but not the caller itself.

    So it is on SQLite without WAL mode, and with a database in memory, which only one connection sees.
    """
    if connection.vendor != "sqlite" or connection.connection is None:
        return False
    ((mode,),) = connection.connection.execute("PRAGMA journal_mode")
    return bool(mode != "wal")
