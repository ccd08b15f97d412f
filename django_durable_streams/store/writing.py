"""Applying a batch of operations in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import Error, connections, transaction

from .batch import Batch, Outcome
from .operations import Commit, Operation


class CommitUncertain(Exception):
    """The answer to a commit never came, so trying again could append twice."""


def apply(operations: Sequence[Operation], using: str) -> tuple[list[Outcome], list[Commit]]:
    """Apply operations in one transaction and return what became of each, and what changed.

    An operation that breaks a rule answers only itself, with the error as its outcome.

    Args:
        operations: what to do, in order.
        using: alias of the database.

    Raises:
        CommitUncertain: the connection was lost during the commit; everything was changed, or nothing.
        django.db.Error: nothing was changed.
    """
    saved = False
    try:
        with transaction.atomic(using=using):
            batch = Batch(using)
            batch.load(operations)
            outcomes = [batch.apply(operation) for operation in operations]
            commits = batch.save()
            saved = True
    except Error as error:
        if saved and connections[using].vendor != "sqlite":
            raise CommitUncertain from error
        raise
    return outcomes, commits
