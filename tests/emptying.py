"""Empties the database after a test that commits: what Django's flush does, in one transaction instead of fifty.

A flush deletes the rows of all tables and then lets all apps create theirs again: content types, permissions and the
identity of the database. That takes longer than most tests. Here the rows that apps create stay while no test has
changed them, only tables that have rows are emptied, and the database gets another identity in place.

Whatever is not as it was after the last flush is left to a flush: other content types or permissions, a missing table.
On PostgreSQL so are large tables. Deleted rows stay in their files, and make later tests slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.test import TransactionTestCase

MAX_DELETED_BYTES = 1 << 20
"""On PostgreSQL, larger tables are truncated by a flush."""

Rows = list[tuple[Any, ...]]

_created_by_apps: dict[str, list[Rows]] = {}
"""By alias: the rows of content types and permissions after the last flush."""


@contextmanager
def quick_emptying() -> Iterator[None]:
    """Empty databases quickly after each TransactionTestCase inside this block."""
    flush = TransactionTestCase._fixture_teardown  # type: ignore[attr-defined]

    def tear_down(case: TransactionTestCase) -> None:
        aliases = case._databases_names(include_mirrors=False)  # type: ignore[attr-defined]
        empty(aliases, lambda: flush(case))

    TransactionTestCase._fixture_teardown = tear_down  # type: ignore[attr-defined]
    try:
        yield
    finally:
        TransactionTestCase._fixture_teardown = flush  # type: ignore[attr-defined]


def empty(aliases: list[str], flush: Callable[[], None]) -> None:
    """Empty databases.

    aliases: of the databases.
    flush: empties all of them, for databases that are not as they were after the last flush.
    """
    try:
        is_empty = all(_deleted(alias) for alias in aliases)
    except DatabaseError:  # a table is missing
        is_empty = False
    if not is_empty:
        flush()
        for alias in aliases:
            _created_by_apps[alias] = _rows_of_apps(alias)


def _deleted(alias: str) -> bool:
    """Delete all rows but those that apps create. Returns False if that needs a flush."""
    from django_durable_streams.models.identity import DatabaseIdentity, new_identity

    if alias not in _created_by_apps or _created_by_apps[alias] != _rows_of_apps(alias):
        return False
    connection = connections[alias]
    kept = {model._meta.db_table for model in (*_models_of_apps(), DatabaseIdentity)}
    tables = sorted(set(connection.introspection.django_table_names()) - kept)
    filled = _filled(alias, tables)
    if filled and connection.vendor == "postgresql" and _bytes_of(alias, filled) > MAX_DELETED_BYTES:
        return False
    identity = connection.ops.quote_name(DatabaseIdentity._meta.db_table)
    with connection.constraint_checks_disabled(), transaction.atomic(using=alias), connection.cursor() as cursor:
        for table in filled:
            cursor.execute(f"DELETE FROM {connection.ops.quote_name(table)}")
        cursor.execute(f"DELETE FROM {identity} WHERE id <> %s", [DatabaseIdentity.THE_ONE])
        cursor.execute(
            f"UPDATE {identity} SET value = %s, link_rules_version = 0 WHERE id = %s",
            [new_identity(), DatabaseIdentity.THE_ONE],
        )
        return bool(cursor.rowcount == 1)  # otherwise the test has deleted it


def _models_of_apps() -> list[Any]:
    from django.contrib.auth.models import Permission
    from django.contrib.contenttypes.models import ContentType

    return [ContentType, Permission]


def _rows_of_apps(alias: str) -> list[Rows]:
    quote, result = connections[alias].ops.quote_name, []
    with connections[alias].cursor() as cursor:
        for model in _models_of_apps():
            cursor.execute(f"SELECT * FROM {quote(model._meta.db_table)} ORDER BY id")
            result.append(list(cursor.fetchall()))
    return result


def _filled(alias: str, tables: list[str]) -> list[str]:
    """Return those of the tables that have rows."""
    quote = connections[alias].ops.quote_name
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT " + ", ".join(f"EXISTS(SELECT 1 FROM {quote(table)})" for table in tables))
        return [table for table, has_rows in zip(tables, cursor.fetchone(), strict=True) if has_rows]


def _bytes_of(alias: str, tables: list[str]) -> int:
    """Return the bytes that tables of PostgreSQL have on the disk, those of deleted rows included."""
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT SUM(pg_total_relation_size(name::regclass)) FROM UNNEST(%s::text[]) AS name", [tables])
        return int(cursor.fetchone()[0])
