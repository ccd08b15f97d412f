"""What a database's errors mean for those who wait."""

from __future__ import annotations

from enum import Enum

from django.db import DataError, Error, IntegrityError

from .configuration_errors import find_problem


class FailureKind(Enum):
    """Kinds of failure."""

    AWAY = "the database does not answer, or cannot do anything now"
    BUSY = "somebody else holds what is needed; nothing was changed, and the same may succeed in a moment"
    SETUP = "the database answers, and something has to be set right before it can do this"
    REFUSED = "the database does not take this"


# SQLSTATE of PostgreSQL: serialization failure, deadlock, lock not available.
_BUSY_STATES = frozenset({"40001", "40P01", "55P03"})
# Numbers of MySQL and MariaDB: lock wait timeout, deadlock, lock not available, row changed since it was read.
_BUSY_NUMBERS = frozenset({1205, 1213, 3572, 1020})


def diagnose(error: BaseException | None) -> FailureKind:
    """Return what kind of failure an error of the database is.

    Only what says that it is about the data is held against the request. All else may pass: a server that restarts,
    a standby that has not been promoted yet, a table that is being migrated, a full disk.
    """
    if isinstance(error, DataError | IntegrityError) or not isinstance(error, Error):
        return FailureKind.REFUSED
    if getattr(error.__cause__, "sqlstate", None) in _BUSY_STATES:
        return FailureKind.BUSY
    if error.args and error.args[0] in _BUSY_NUMBERS:
        return FailureKind.BUSY
    if "database is locked" in str(error) or "database table is locked" in str(error):
        return FailureKind.BUSY
    return FailureKind.AWAY if find_problem(error) is None else FailureKind.SETUP
