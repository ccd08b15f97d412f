"""Triggers of a database that refuse changes of one row."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from django.db import connection
from django.db.models import Model

MESSAGE = "not this one"


@contextmanager
def refusing(
    event: Literal["INSERT", "UPDATE", "DELETE"], model: type[Model], column: str, value: int
) -> Iterator[None]:
    """Have the database refuse an event where a row's column has a value."""
    name = connection.ops.quote_name
    table, row = name(model._meta.db_table), "NEW" if event == "INSERT" else "OLD"
    condition = f"{row}.{name(column)} = {value:d}"
    create = {
        "sqlite": [
            f"CREATE TRIGGER refusing BEFORE {event} ON {table} WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{MESSAGE}'); END"
        ],
        "postgresql": [
            f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{MESSAGE}'; END $$",
            f"CREATE TRIGGER refusing BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) "
            f"EXECUTE FUNCTION refuse()",
        ],
        "mysql": [
            f"CREATE TRIGGER refusing BEFORE {event} ON {table} FOR EACH ROW "
            f"IF {condition} THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = '{MESSAGE}'; END IF"
        ],
    }
    drop = {
        "sqlite": ["DROP TRIGGER refusing"],
        "postgresql": [f"DROP TRIGGER refusing ON {table}", "DROP FUNCTION refuse"],
        "mysql": ["DROP TRIGGER refusing"],
    }
    try:
        _execute(create[connection.vendor])
        yield
    finally:
        _execute(drop[connection.vendor])


def _execute(statements: list[str]) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
