"""The exclusive lock on the rules by which new streams are linked (see `store.write.linking`).

Whoever changes a pattern or adds an explicit link holds it. Transactions that create streams hold a shared lock, so the
exclusive one waits for them, and new creates wait behind it. It therefore gives up soon, and its caller tries again.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from ..models import DatabaseIdentity
from ..store.database_identity import identity
from .rows import transaction

LOCK_MS = 50
"""How long the lock is waited for, in milliseconds. Creates wait behind it."""


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
        DatabaseIdentity.objects.using(using).filter(id=DatabaseIdentity.THE_ONE).update(link_rules_version=version)
        yield
