"""The exclusive lock on the rules by which new streams are linked (see `store.write.linking`).

Whoever changes a pattern or adds an explicit link holds it. Transactions that create streams hold a shared lock, so the
exclusive one waits for them, and new creates wait behind it. It therefore gives up soon, and its caller tries again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from django.db import connections

from ..models import DatabaseIdentity
from ..store.database_identity import identity
from .rows import brief_waits, transaction

LOCK_MS = 50
"""How long this lock, and each one after it, is waited for, in milliseconds. Creates wait behind it."""


@contextmanager
def changing_link_rules(using: str) -> Iterator[None]:
    """Change the rules inside the block, which is one transaction.

    Raises:
        django.db.OperationalError: a transaction that has created streams has not ended. Nothing was changed.
    """
    identity(using)  # the row exists from now on
    with transaction(using, LOCK_MS):
        # Random: the version of a transaction that was rolled back never comes back with other rules.
        version = secrets.randbelow(2**62) + 1
        _lock_table(using)
        with locking(using):
            DatabaseIdentity.objects.using(using).filter(id=DatabaseIdentity.THE_ONE).update(link_rules_version=version)
        yield


def _lock_table(using: str) -> None:
    """On PostgreSQL, have transactions that create streams from now on wait behind this one.

    They lock the row of the version without waiting for others that only want to lock it. Where they overlap without
    end, this transaction would never get it. The lock of the table has a queue.
    """
    connection = connections[using]
    if connection.vendor == "postgresql":
        table = connection.ops.quote_name(DatabaseIdentity._meta.db_table)
        with connection.cursor() as cursor:
            cursor.execute(f"LOCK TABLE {table} IN EXCLUSIVE MODE")


def locking(using: str) -> AbstractContextManager[None]:
    """Lock further rows while the rules are changed. Creates wait meanwhile, so each wait is as short."""
    return brief_waits(using, LOCK_MS)
