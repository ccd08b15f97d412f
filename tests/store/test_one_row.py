"""A statement over many rows on SQLite, where there is one row."""

import sqlite3

import pytest
from django.db import connection

from django_durable_streams.store.sql import statements
from django_durable_streams.store.sql.sqlite_execution import RowsStatement

SQL = "UPDATE t SET a = {2}, b = COALESCE({0}, {2}) FROM {rows} WHERE t.id = {1}"


def test_a_column_may_stand_twice_or_not_at_all() -> None:
    statement = RowsStatement(SQL, 4).of_one_row
    assert statement is not None
    sql, pick = statement
    with sqlite3.connect(":memory:") as database:
        database.execute("CREATE TABLE t (id, a, b)")
        database.execute("INSERT INTO t VALUES (7, 0, 0), (8, 0, 0)")
        changed = database.execute(sql.replace("%s", "?"), pick((None, 7, 5, "unused"))).rowcount
        rows = database.execute("SELECT * FROM t").fetchall()
    database.close()
    assert changed == 1
    assert rows == [(7, 5, 5), (8, 0, 0)]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="the statements are SQLite's")
def test_places_have_no_numbers_which_some_versions_of_python_take_for_names() -> None:
    used = statements("default")
    for statement in (*used._update_streams.values(), used._update_producers):  # type: ignore[attr-defined]
        sql, _ = statement.of_one_row
        assert "?" not in sql
        assert "{" not in sql
