"""The statements of the hot path, and each database's own variants of them.

Django's ORM compiles a query anew for each execution and builds an object for each row. That costs too much for each
append of a batch. Names of tables come from the models, and the tests run every statement on every database.
"""

from __future__ import annotations

from functools import lru_cache

from django.db import connections

from .generic import Statements
from .postgresql import PostgreSQLStatements
from .rows import TO_THE_END, CommitUncertain, Row, StagedSpan, plain_errors
from .sqlite import SQLiteStatements

__all__ = [
    "TO_THE_END",
    "CommitUncertain",
    "Row",
    "StagedSpan",
    "Statements",
    "plain_errors",
    "statements",
    "statements_class",
]

_BY_VENDOR = {"sqlite": SQLiteStatements, "postgresql": PostgreSQLStatements}


@lru_cache(maxsize=8)
def statements(using: str) -> Statements:
    """Return the statements for a database alias. On MySQL and MariaDB the first call uses the connection."""
    return statements_class(using)(using)


def statements_class(using: str) -> type[Statements]:
    """Return the class of the statements for a database alias. Uses no connection."""
    return _BY_VENDOR.get(connections[using].vendor, Statements)
