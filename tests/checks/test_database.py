import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.postgresql import psycopg_any
from django.test import override_settings

from django_durable_streams.checks.database import check_database
from django_durable_streams.runtime.connection_settings import service_settings
from django_durable_streams.store.sql.postgresql import PostgreSQLStatements

IMMEDIATE = {"transaction_mode": "IMMEDIATE"}
WAL = {"init_command": "PRAGMA journal_mode=WAL;"}


@contextmanager
def database(vendor: str = "sqlite", **options: Any) -> Iterator[None]:
    """Other settings of the default database, which is not used meanwhile."""
    connection = connections["default"]
    before, kind = connection.settings_dict, type(connection).vendor
    connection.settings_dict = {**before, **options}
    connection.vendor = vendor
    try:
        yield
    finally:
        connection.settings_dict = before
        connection.vendor = kind


def ids(vendor: str = "sqlite", **options: Any) -> list[str | None]:
    with database(vendor, **options):
        return [message.id for message in check_database(None)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({**IMMEDIATE, **WAL}, []),
        ({"transaction_mode": "immediate", "init_command": "pragma JOURNAL_MODE = 'wal'"}, []),
        ({"transaction_mode": "EXCLUSIVE", **WAL}, []),
        (WAL, ["durable_streams.W006"]),
        ({**WAL, "transaction_mode": "DEFERRED"}, ["durable_streams.W006"]),
        (IMMEDIATE, ["durable_streams.W007"]),
        ({**IMMEDIATE, "init_command": "PRAGMA journal_mode=DELETE"}, ["durable_streams.W007"]),
        ({}, ["durable_streams.W006", "durable_streams.W007"]),
    ],
)
def test_sqlite(options: dict[str, str], expected: list[str], tmp_path: Path) -> None:
    assert ids(NAME=tmp_path / "none.sqlite3", OPTIONS=options) == expected


def test_a_file_of_sqlite_says_itself_that_it_is_in_wal_mode(tmp_path: Path) -> None:
    for mode, expected in (("WAL", []), ("DELETE", ["durable_streams.W007"])):
        path = tmp_path / f"{mode}.sqlite3"
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE t (x)")
        connection.close()
        assert ids(NAME=path, OPTIONS=IMMEDIATE) == expected


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory&cache=shared"])
def test_in_memory_there_is_no_wal(name: str) -> None:
    assert ids(NAME=name, OPTIONS=IMMEDIATE) == []


def test_connections_that_are_kept_are_left_behind_under_asgi() -> None:
    with override_settings(ASGI_APPLICATION="config.asgi.application"):
        assert ids("postgresql", CONN_MAX_AGE=60) == ["durable_streams.W008"]
        assert ids("postgresql", CONN_MAX_AGE=None) == ["durable_streams.W008"]
        assert ids("postgresql", CONN_MAX_AGE=0) == []
    assert ids("postgresql", CONN_MAX_AGE=60) == []


@pytest.mark.parametrize(
    ("vendor", "level", "expected"),
    [
        ("mysql", "read uncommitted", ["durable_streams.W011"]),
        ("mysql", "READ UNCOMMITTED", ["durable_streams.W011"]),
        ("mysql", "read committed", []),
        ("mysql", "repeatable read", []),
        ("mysql", "serializable", []),
        ("mysql", None, []),
        # PostgreSQL has no such level, and takes this for READ COMMITTED.
        ("postgresql", 1, []),
    ],
)
def test_isolation(vendor: str, level: object, expected: list[str]) -> None:
    assert ids(vendor, OPTIONS={"isolation_level": level}, CONN_MAX_AGE=0) == expected


def test_postgresql_needs_psycopg_3(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ids("postgresql", CONN_MAX_AGE=0) == []
    monkeypatch.setattr(psycopg_any, "is_psycopg3", False)
    assert ids("postgresql", CONN_MAX_AGE=0) == ["durable_streams.E014"]
    assert "durable_streams.E014" not in ids(NAME=":memory:", OPTIONS=IMMEDIATE)
    with database("postgresql"), pytest.raises(ImproperlyConfigured, match=r"django-durable-streams\[postgresql\]"):
        service_settings(connections["default"])
    with pytest.raises(ImproperlyConfigured, match="psycopg 3"):
        PostgreSQLStatements("default")
