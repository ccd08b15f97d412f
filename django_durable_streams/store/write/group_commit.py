"""Group commit: a batch of operations is applied in one transaction.

Tries the fast ways first, and the general way where these do not apply. Knows no thread and no request: `CommitContext`
is all that it knows of its caller.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from django.db import Error

from ...runtime import tracing
from ...runtime.database_errors import drop_frames
from ..operations import Append, Commit, Operation
from ..sql import CommitUncertain, statements
from . import registry_entries
from .batch import LOCKED, Batch, Outcome
from .bulk_create import bulk_create_empty
from .commit_context import WITHOUT_CALLBACKS, CommitContext
from .row_cache import PostgreSQLRowCache

__all__ = ["CommitUncertain", "apply", "apply_when_free"]

TRIES = 3
"""Attempts to create a stream. An attempt fails if another transaction creates a row at the path meanwhile."""

CACHED_LOCK_MS = 5
"""How long appends to cached rows wait for a row that another transaction holds, in milliseconds."""

ONE_ROW_LOCK_MS = 50
"""The same where all appends are to one stream. The other transaction is likely a batch of another process, which
commits within milliseconds. A second attempt would take longer than the wait."""

SHORT_WAITS_SECONDS = 5.0
"""For so long after a wait that ended without the row, all waits are short. Operations on other streams arrive during a
wait, and a transaction that holds the row for long would delay them again and again."""


@tracing.traced("durable_streams.commit")
def apply(
    operations: Sequence[Operation],
    using: str,
    context: CommitContext = WITHOUT_CALLBACKS,
    *,
    wait: bool = True,
    lock_ms: int | None = None,
) -> tuple[list[Outcome], list[Commit]]:
    """Apply operations in one transaction and return the outcome of each operation, and the changes.

    An operation that breaks a rule has the error as its outcome. The other operations are not affected.

    Args:
        operations: the operations, in order.
        using: alias of the database.
        context: the caller, and the row cache of its connection.
        wait: whether to wait for rows that another transaction holds. Without, the outcome of operations on such a
            stream is LOCKED, and they have changed nothing. The same holds where the row cache was stale.
        lock_ms: how long to wait for a lock, in milliseconds, where the database has such a setting for a transaction
            (PostgreSQL). None: as the connection is set.

    Raises:
        CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
        django.db.Error: nothing was changed.
    """
    locked_paths = context.locked_paths(operation.path for operation in operations)
    if not wait and not locked_paths:
        done = _append_cached(operations, using, context) or bulk_create_empty(operations, using, context, lock_ms)
        if done is not None:
            return done
    # In spite of SKIP LOCKED it may wait: for another create of the same path, or for a table that is locked.
    with statements(using).transaction(lock_ms, context.before_wait) as cursor:
        batch = Batch(using, cursor, context.row_cache, stage=context.stages_chunks())
        batch.load(operations, wait=wait, held=locked_paths)
        outcomes = [batch.apply(operation) for operation in operations]
        batch.save()
        context.before_commit(outcomes)
    return outcomes, batch.commits()


@tracing.traced("durable_streams.commit")
def apply_when_free(
    path: str, operations: Callable[[], Sequence[Operation]], using: str, lock_ms: int
) -> tuple[list[Outcome], list[Commit]]:
    """Wait for the row of a stream and apply operations to it in the same transaction.

    Args:
        path: the stream's path.
        operations: returns the operations. Called when the transaction has the row.
        using: alias of the database.
        lock_ms: how long to wait for each lock, in milliseconds.

    Raises:
        CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
        django.db.Error: nothing was changed.
    """
    sql = statements(using)
    with sql.transaction(lock_ms) as cursor:
        sql.wait_for_stream(cursor, path, lock_ms)
        batch = Batch(using, cursor)
        waiting = operations()
        batch.load(waiting)
        outcomes = [batch.apply(operation) for operation in waiting]
        batch.save()
    return outcomes, batch.commits()


def _append_cached(
    operations: Sequence[Operation], using: str, context: CommitContext
) -> tuple[list[Outcome], list[Commit]] | None:
    """Append to streams on the condition that their rows are as the row cache has them, without a read.

    Returns None, with nothing changed, where that is not possible. Where a row was changed by another transaction, the
    outcome of the stream's operations is LOCKED, and the caller applies them again (`RowCache.needs_repeat`).
    """
    row_cache = context.row_cache
    if type(row_cache) is not PostgreSQLRowCache:  # `isinstance` of an abstract class is a call in Python
        return None
    if registry_entries.path() is not None and any(type(one) is Append and one.close for one in operations):
        return None  # the entry of a close must not be written if the row turns out to be stale
    sql = statements(using)
    may_wait = len({operation.path for operation in operations}) == 1 and row_cache.short_waits_until < time.monotonic()
    try:
        with sql.transaction(ONE_ROW_LOCK_MS if may_wait else CACHED_LOCK_MS, context.before_wait) as cursor:
            batch = Batch(using, cursor, row_cache)
            if not batch.load_cached(operations):
                return None
            outcomes = [batch.apply(operation) for operation in operations]
            if not batch.save_cached(operations):
                return None
    except Error as error:  # probably a locked row: the general way applies the others together, without a wait
        drop_frames(error)
        if may_wait:
            row_cache.short_waits_until = time.monotonic() + SHORT_WAITS_SECONDS
        return None
    confirmed_paths = batch.confirmed_paths()
    moved = batch.correct(operations, outcomes)
    # The caller applies the LOCKED operations again. A failure here would repeat the operations that are committed.
    outcomes = [
        outcome if operation.path in confirmed_paths else LOCKED
        for operation, outcome in zip(operations, outcomes, strict=True)
    ]
    # By identity: `in` would compare each outcome, which is a call for each.
    row_cache.record_write(met_stale_row=bool([outcome for outcome in outcomes if outcome is LOCKED]), moved=moved)
    return outcomes, batch.commits()
