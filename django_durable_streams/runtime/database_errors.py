"""Kinds of database errors: what an error means for the operations that met it."""

from __future__ import annotations

from enum import Enum

from django.db import DataError, Error, IntegrityError, InterfaceError, OperationalError

from .configuration_errors import find_problem


class FailureKind(Enum):
    """Kinds of failure."""

    AWAY = "the database does not answer, or can do nothing at the moment"
    BUSY = "another transaction holds a lock; nothing was changed, and the same operation may succeed in a moment"
    SETUP = "the database answers, but an operator has to change its configuration or the server's"
    REFUSED = "the database refuses the data"


# SQLSTATE of PostgreSQL: serialization failure, deadlock, lock not available.
_BUSY_STATES = frozenset({"40001", "40P01", "55P03"})
# Numbers of MySQL and MariaDB: lock wait timeout, deadlock, lock not available, row changed since it was read.
_BUSY_NUMBERS = frozenset({1205, 1213, 3572, 1020})


def drop_frames(error: BaseException) -> None:
    """Drop the frames in which an error and its causes were raised, with all that these hold, such as bodies.

    A frame of Django's refers to the error in turn, so they would stay until the garbage collector finds them.
    """
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()  # a cause may refer to the error that it has caused
    while waiting:
        one = waiting.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            waiting += [one.__cause__, one.__context__]


def diagnose(error: BaseException | None) -> FailureKind:
    """Return the kind of failure of an error of the database.

    Only an error about the data is the fault of the request. Other errors may pass: a server restarts, a standby is not
    promoted yet, a table is being migrated, a disk is full.
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


def may_pass(error: Error) -> bool:
    """Return whether a query of the project may succeed when it is made again, over a new connection.

    Other errors are about the query, which has a fault of its own.
    """
    return isinstance(error, OperationalError | InterfaceError) and diagnose(error) in (
        FailureKind.AWAY,
        FailureKind.BUSY,
    )
