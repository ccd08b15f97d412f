"""What a database's errors mean for those who wait, and how long a connection may wait for a lock."""

from __future__ import annotations

from enum import Enum

from django.db import DataError, Error, IntegrityError, InterfaceError, OperationalError, connections


class Trouble(Enum):
    """Kinds of failure."""

    AWAY = "the database does not answer"
    BUSY = "somebody else holds what is needed; nothing was changed, and the same may succeed in a moment"
    REFUSED = "the database does not take this"


# SQLSTATE of PostgreSQL: serialization failure, deadlock, lock not available.
_BUSY_STATES = frozenset({"40001", "40P01", "55P03"})
# Numbers of MySQL and MariaDB: lock wait timeout, deadlock, lock not available, row changed since it was read.
_BUSY_NUMBERS = frozenset({1205, 1213, 3572, 1020})


def diagnose(error: Exception) -> Trouble:
    """Return what kind of failure an error of the database is."""
    if isinstance(error, DataError | IntegrityError) or not isinstance(error, Error):
        return Trouble.REFUSED
    if getattr(error.__cause__, "sqlstate", None) in _BUSY_STATES:
        return Trouble.BUSY
    if error.args and error.args[0] in _BUSY_NUMBERS:
        return Trouble.BUSY
    if "database is locked" in str(error) or "database table is locked" in str(error):
        return Trouble.BUSY
    return Trouble.AWAY if isinstance(error, OperationalError | InterfaceError) else Trouble.REFUSED


class LockTimeout:
    """Sees to it that a thread's connection gives up waiting for a lock.

    Args:
        using: alias of the database.
        milliseconds: how long to wait; MySQL counts in whole seconds, and waits for one at least.
    """

    def __init__(self, using: str, milliseconds: int) -> None:
        self._using = using
        self._milliseconds = milliseconds
        self._prepared: object = None

    def prepare(self) -> None:
        """Tell the database, once for each connection."""
        connection = connections[self._using]
        if connection.connection is not None and connection.connection is self._prepared:
            return
        connection.ensure_connection()
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET lock_timeout = {self._milliseconds}")
        elif connection.vendor == "mysql":
            with connection.cursor() as cursor:
                cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {max(self._milliseconds // 1000, 1)}")
        self._prepared = connection.connection
