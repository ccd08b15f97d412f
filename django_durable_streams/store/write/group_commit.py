"""Applying a batch of operations in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from django.db import Error

from ..operations import Append, Commit, Operation
from ..sql import CommitUncertain, statements
from .batch import LOCKED, Batch, Outcome
from .bulk_create import bulk_create_empty
from .row_cache import RowCache

__all__ = ["CommitUncertain", "apply", "apply_when_free"]

TRIES = 3
"""How often an operation is tried that finds a row where there was none: somebody else has made it meanwhile."""

CACHED_LOCK_MS = 5
"""How long appends wait for a row that somebody else holds, in milliseconds, if they have not looked at it before."""


def apply(
    operations: Sequence[Operation],
    using: str,
    *,
    wait: bool = True,
    held: Collection[str] = (),
    lock_ms: int | None = None,
    row_cache: RowCache | None = None,
    stage: bool = False,
    waits: Callable[[], None] | None = None,
    announce: Callable[[Sequence[Outcome]], None] | None = None,
    is_heard: Callable[[], bool] = lambda: True,
) -> tuple[list[Outcome], list[Commit]]:
    """Apply operations in one transaction and return what became of each, and what changed.

    An operation that breaks a rule answers only itself, with the error as its outcome.

    Args:
        operations: what to do, in order.
        using: alias of the database.
        wait: whether to wait for rows that another transaction holds. Without, the outcome of operations on such a
            stream is LOCKED, and they have changed nothing. So it is where `row_cache` was wrong of a stream.
        held: paths whose operations are LOCKED whether or not their row is free.
        lock_ms: how long to wait for a lock, in milliseconds, where the database can be told so for a transaction
            (PostgreSQL). None: as long as the connection is told to.
        known: what the connection knows of streams from its last batches. Only for transactions of their own.
        recent: whether there is so much to append that small chunks should wait to be gathered (see `stage`).
        waits: is called before the transaction waits for the database, and for its commit at the latest.
        announce: is given the outcomes before the commit, so that somebody may prepare for them meanwhile. They hold
            only if they are returned too: the very same objects, each in its place.
        is_heard: returns whether somebody wants to know of streams that are made with nothing in them. Otherwise what
            has changed may be without these.

    Raises:
        CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
        django.db.Error: nothing was changed.
    """
    if not wait and not held:
        done = _append_cached(operations, using, row_cache, waits) if row_cache is not None else None
        done = done or bulk_create_empty(
            operations, using, lock_ms=lock_ms, row_cache=row_cache, waits=waits, announce=announce, is_heard=is_heard
        )
        if done is not None:
            return done
    # A create may meet another one's of the same path, which no SKIP LOCKED tells of.
    may_wait = wait or not all(type(operation) is Append for operation in operations)
    with statements(using).transaction(lock_ms if may_wait else None, waits) as cursor:
        batch = Batch(using, cursor, row_cache, stage=stage)
        batch.load(operations, wait=wait, held=held)
        outcomes = [batch.apply(operation) for operation in operations]
        batch.save()
        if announce is not None:
            announce(outcomes)
    return outcomes, batch.commits()


def apply_when_free(
    path: str, operations: Callable[[], Sequence[Operation]], using: str, lock_ms: int
) -> tuple[list[Outcome], list[Commit]]:
    """Wait for the row of a stream and apply operations on it in the same transaction.

    Args:
        operations: returns them. It is called when the row is there.
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
    operations: Sequence[Operation],
    using: str,
    row_cache: RowCache,
    waits: Callable[[], None] | None,
) -> tuple[list[Outcome], list[Commit]] | None:
    """Append to streams without looking first how they are. None: that cannot be done, and nothing was changed.

    Where a stream has changed since, the outcome of its operations is LOCKED (`row_cache.was_stale`).
    """
    sql = statements(using)
    if not sql.versions_rows:
        return None
    try:
        with sql.transaction(CACHED_LOCK_MS, waits) as cursor:
            batch = Batch(using, cursor, row_cache)
            if not batch.load_cached(operations):
                return None
            outcomes = [batch.apply(operation) for operation in operations]
            if not batch.save_cached():
                return None
    except Error:  # somebody holds a row, most likely: with a look, that is no reason to do the others one by one
        return None
    right = batch.confirmed_paths()
    # What is not must not be tried again here: if that failed, all would be, and the others are written.
    outcomes = [
        outcome if operation.path in right else LOCKED for operation, outcome in zip(operations, outcomes, strict=True)
    ]
    row_cache.record_outcome(was_stale=LOCKED in outcomes)
    return outcomes, batch.commits()
