"""Tells callers whose transaction has too old a snapshot what to do, by an error of the package's own family.

At REPEATABLE READ and SERIALIZABLE, a transaction sees the rows as they were at its first query. PostgreSQL refuses it
where a row has changed since, and so does MariaDB. A new row that the transaction does not see but that takes its path
violates a constraint. Another attempt in the same transaction meets the same snapshot.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import Error, OperationalError

from ..protocol import errors

# SQLSTATE of PostgreSQL: serialization failure, unique violation.
_SERIALIZATION_FAILURE, _UNIQUE_VIOLATION = "40001", "23505"
# Numbers of MySQL and MariaDB: the row has changed since the snapshot, duplicate key.
_CHANGED_SINCE_READ, _DUPLICATE_KEY = 1020, 1062


class TransactionConflict(errors.TransactionConflict, OperationalError):
    """The error for callers. Code that repeats transactions after an OperationalError knows it, too."""


@contextmanager
def snapshot_errors() -> Iterator[None]:
    """Raise TransactionConflict instead of the database's error for a snapshot that is too old for a changed row."""
    try:
        yield
    except Error as error:
        if not is_conflict(error):
            raise
        raise conflict(error) from error.__cause__ or error


def is_conflict(error: Error) -> bool:
    """Return whether a snapshot was too old for a changed row."""
    state = getattr(error.__cause__, "sqlstate", None)
    return state == _SERIALIZATION_FAILURE or error.args[:1] == (_CHANGED_SINCE_READ,)


def is_duplicate(error: Error) -> bool:
    """Return whether another row has the path of a new one. A transaction may not see that row."""
    state = getattr(error.__cause__, "sqlstate", None)
    return state == _UNIQUE_VIOLATION or error.args[:1] == (_DUPLICATE_KEY,)


def conflict(error: Error) -> TransactionConflict:
    """Return the error for a caller whose snapshot was too old."""
    if isinstance(error, TransactionConflict):
        return error
    return TransactionConflict(
        "Other transactions have changed what this operation needs since this transaction began. Run the whole "
        "transaction again: its snapshot stays as old as it is."
    )
