"""Errors of SQLite are Django's, also those that it meets only while rows are fetched."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext

from django_durable_streams.store.sql import statements

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="others send their rows at once"),
]

# The second row is an integer overflow, which SQLite finds when it comes to it.
SECOND_FAILS = "SELECT abs(v.column1) FROM (VALUES (1), (-9223372036854775807 - 1)) AS v"
FIRST_FAILS = "SELECT abs(v.column1) FROM (VALUES (-9223372036854775807 - 1)) AS v"

FETCHES: dict[str, Callable[[Any], Any]] = {
    "fetchall": lambda rows: rows.fetchall(),
    "fetchone": lambda rows: [rows.fetchone(), rows.fetchone()],
}

AROUND: dict[str, Callable[[], Any]] = {
    "alone": nullcontext,
    "in a transaction of the caller": transaction.atomic,
    "observed": lambda: CaptureQueriesContext(connection),
}


def in_transaction(sql: str, fetch: Callable[[Any], Any]) -> None:
    with statements("default").transaction() as cursor:
        fetch(statements("default")._execute(cursor, sql, ()))


def in_insertion(sql: str, fetch: Callable[[Any], Any]) -> None:
    with statements("default").insertion(1) as cursor:
        fetch(statements("default")._execute(cursor, sql, ()))


def with_djangos_cursor(sql: str, fetch: Callable[[Any], Any]) -> None:
    with connection.cursor() as cursor:
        fetch(statements("default")._execute(cursor, sql, ()))


@pytest.mark.parametrize("execute", [in_transaction, in_insertion, with_djangos_cursor])
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("fetch", FETCHES)
@pytest.mark.parametrize("sql", [FIRST_FAILS, SECOND_FAILS], ids=["the first row", "the second row"])
def test_an_error_at_a_row_is_djangos(
    execute: Callable[[str, Callable[[Any], Any]], None], around: str, fetch: str, sql: str
) -> None:
    with pytest.raises(OperationalError, match="integer overflow") as raised, AROUND[around]():
        execute(sql, FETCHES[fetch])
    assert isinstance(raised.value.__cause__, sqlite3.Error)
    with connection.cursor() as cursor:  # the connection goes on
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("execute", [in_transaction, in_insertion, with_djangos_cursor])
def test_an_interrupt_while_rows_are_fetched_is_djangos_too(
    execute: Callable[[str, Callable[[Any], Any]], None], around: str
) -> None:
    many = "WITH RECURSIVE n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 100000) SELECT x FROM n"

    def fetch(rows: Any) -> None:
        connection.connection.set_progress_handler(lambda: 1, 100)
        try:
            rows.fetchall()
        finally:
            connection.connection.set_progress_handler(None, 0)

    with pytest.raises(DatabaseError, match="interrupted"), AROUND[around]():
        execute(many, fetch)


def test_rows_without_an_error_come_as_before() -> None:
    for execute in (in_transaction, in_insertion, with_djangos_cursor):
        seen: list[Any] = []
        execute("SELECT 1 UNION ALL SELECT 2", lambda rows, seen=seen: seen.extend(rows.fetchall()))
        assert seen == [(1,), (2,)]
