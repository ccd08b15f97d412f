"""Applying a batch of operations in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from django.db import IntegrityError

from .batch import Batch, Outcome
from .known import KnownStreams
from .operations import Append, Commit, Create, Operation
from .sql import CommitUncertain, statements

__all__ = ["CommitUncertain", "apply"]


def apply(
    operations: Sequence[Operation],
    using: str,
    *,
    wait: bool = True,
    held: Collection[str] = (),
    lock_ms: int | None = None,
    known: KnownStreams | None = None,
    waits: Callable[[], None] | None = None,
) -> tuple[list[Outcome], list[Commit]]:
    """Apply operations in one transaction and return what became of each, and what changed.

    An operation that breaks a rule answers only itself, with the error as its outcome.

    Args:
        operations: what to do, in order.
        using: alias of the database.
        wait: whether to wait for rows that another transaction holds. Without, the outcome of operations on such a
            stream is LOCKED, and they have changed nothing.
        held: paths whose operations are LOCKED whether or not their row is free.
        lock_ms: how long to wait for a lock, in milliseconds, where the database can be told so for a transaction
            (PostgreSQL). None: as long as the connection is told to.
        known: what the connection knows of streams from its last batches. Only for transactions of their own.
        waits: is called before the transaction waits for the database, and for its commit at the latest.

    Raises:
        CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
        django.db.Error: nothing was changed.
    """
    if not wait and not held and statements(using).creates_unseen and all(map(_is_plain_create, operations)):
        made = _create_unseen(operations, using, lock_ms, known, waits)
        if made is not None:
            return made
    # A create may meet another one's of the same path, which no SKIP LOCKED tells of.
    may_wait = wait or not all(type(operation) is Append for operation in operations)
    with statements(using).transaction(lock_ms if may_wait else None, waits) as cursor:
        batch = Batch(using, cursor, known)
        batch.load(operations, wait=wait, held=held)
        outcomes = [batch.apply(operation) for operation in operations]
        batch.save()
    return outcomes, batch.commits()


def _is_plain_create(operation: Operation) -> bool:
    """Whether an operation is to make a stream with nothing in it."""
    return type(operation) is Create and not operation.data and operation.fork is None and operation.defect is None


def _create_unseen(
    operations: Sequence[Operation],
    using: str,
    lock_ms: int | None,
    known: KnownStreams | None,
    waits: Callable[[], None] | None,
) -> tuple[list[Outcome], list[Commit]] | None:
    """Make streams without looking first whether they are there. None: some are, and nothing was changed."""
    sql = statements(using)
    try:
        with sql.insertion(len(operations), lock_ms, waits) as cursor:
            if known is not None and not known.has_begun:
                known.check(cursor, sql)
            batch = Batch(using, cursor, known, unseen=True)
            outcomes = [batch.apply(operation) for operation in operations]
            batch.save()
    except IntegrityError:
        return None
    return (outcomes, batch.commits()) if batch.is_made() else None
