"""How PostgreSQL's statements are sent: values of one row as scalars, values of many rows as arrays.

Knows no table.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from django.db import connections

from .binary import Parameter, array, scalar
from .generic import Statements
from .pipeline import Pipeline, Rows
from .rows import Insert, Row


class PostgreSQLSending(Statements):
    """Sends statements through a pipeline."""

    def _insert_rows(self, cursor: Any, into: Insert, rows: Sequence[Row], suffix: str = "") -> Rows:
        if len(rows) == 1:
            values = ", ".join(["%s"] * len(into.types))
            parameters = scalars(into.types, rows[0])
            return self._send(cursor, f"{into.head} VALUES ({values}){suffix}", parameters)
        return self._insert_sent(cursor, into, SentRows(into.types, rows), suffix)

    def _insert_sent(self, cursor: Any, into: Insert, sent: SentRows, suffix: str) -> Rows:
        sql = f"{into.head} SELECT {', '.join(sent.expressions)} FROM {sent.source}{suffix}"
        return self._send(cursor, sql, sent.parameters)

    def _send(self, cursor: Any, sql: str, parameters: Sequence[Parameter]) -> Rows:
        if isinstance(cursor, Pipeline):
            return cursor.execute(sql, parameters)
        # A cursor of Django: the next statement may not pass through this class.
        pipeline = Pipeline(connections[self._using])
        rows = pipeline.execute(sql, parameters)
        pipeline.flush()
        return rows


def scalars(kinds: Sequence[str], row: Row) -> list[Parameter]:
    """Return the parameters of one row."""
    return [scalar(kind, value) for kind, value in zip(kinds, row, strict=True)]


class SentRows:
    """The parameters of many rows: one value for a column that has the same in all rows, an array for the others.

    `expressions` has the SQL of each column, `source` the SQL that yields the rows.

    Args:
        kinds: types of the columns.
        rows: at least one row.
        first: the number of the first parameter.
        alias: the name of the source in the statement.
    """

    def __init__(self, kinds: tuple[str, ...], rows: Sequence[Row], first: int = 1, alias: str = "v") -> None:
        columns = list(zip(*rows, strict=True))
        same = [_is_same(kind, values) for kind, values in zip(kinds, columns, strict=True)]
        same[-1] = same[-1] and not all(same)  # the source needs an array that yields the rows
        self.expressions, self.source = layout(kinds, tuple(same), first, alias)
        self.parameters = [
            scalar(kind, values[0]) if is_same else array(kind, values)
            for is_same, kind, values in zip(same, kinds, columns, strict=True)
        ]


def _is_same(kind: str, values: Sequence[Any]) -> bool:
    # A comparison of data could take long: it may be megabytes.
    return not any(values) if kind == "bytea" else values.count(values[0]) == len(values)


@lru_cache(maxsize=256)
def layout(
    kinds: tuple[str, ...], same: tuple[bool, ...], first: int = 1, alias: str = "v"
) -> tuple[tuple[str, ...], str]:
    """Return the SQL of each column, and the SQL of the source that yields one row for each element of the arrays.

    Args:
        kinds: types of the columns. The parameters of the statement are in their order, from the number `first` on.
        same: which columns have one value in all rows.
        alias: the name of the source.
    """
    expressions = tuple(
        f"${number}::{kind}" if is_same else f"{alias}.c{number}"
        for number, (kind, is_same) in enumerate(zip(kinds, same, strict=True), first)
    )
    arrays = [number for number, is_same in enumerate(same, first) if not is_same]
    elements = ", ".join(f"${number}::{kinds[number - first]}[]" for number in arrays)
    return expressions, f"unnest({elements}) AS {alias}({', '.join(f'c{number}' for number in arrays)})"
