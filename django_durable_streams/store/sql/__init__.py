"""The statements of the hot path, and what each database needs otherwise.

The ORM compiles a query anew each time and builds an object for each row; a batch cannot pay for that per append.
Names come from the models, and the tests hold every statement against every database.
"""

from __future__ import annotations

from functools import lru_cache

from django.db import connections

from .base import TO_THE_END, CommitUncertain, Row, StagedSpan, Statements
from .postgresql import PostgreSQLStatements
from .sqlite import SQLiteStatements

__all__ = ["TO_THE_END", "CommitUncertain", "Row", "StagedSpan", "Statements", "statements"]

_KINDS = {"sqlite": SQLiteStatements, "postgresql": PostgreSQLStatements}


@lru_cache(maxsize=8)
def statements(using: str) -> Statements:
    """Return the statements for a database alias."""
    return _KINDS.get(connections[using].vendor, Statements)(using)
