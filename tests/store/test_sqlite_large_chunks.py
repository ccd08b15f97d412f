"""Large data on SQLite is written into its row, and not bound to the statement."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.sql import statements
from django_durable_streams.store.write import group_commit

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "sqlite", reason="others have no cache of changed pages"),
]

BINARY = "application/octet-stream"
MIB = 1024 * 1024
SPILL_PAGES = 8193
"""As many pages of 4 KB as the connections of the service keep in memory."""

AROUND: dict[str, Callable[[], Any]] = {
    "alone": nullcontext,
    "in a transaction of the caller": transaction.atomic,
    "observed": lambda: CaptureQueriesContext(connection),
}


@pytest.fixture
def large_cache() -> None:
    """Let the connection keep as much changed data in memory as those of the service do."""
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA cache_spill = {SPILL_PAGES}")


def pattern(size: int) -> bytes:
    return (bytes(range(256)) * (size // 256 + 1))[:size]


def stored(path: str) -> list[tuple[int, int, bytes, bytes]]:
    rows = Chunk.objects.filter(stream__path=path).order_by("end").values_list("start", "end", "data", "ends")
    return [(start, end, bytes(data), bytes(ends)) for start, end, data, ends in rows]


def executed(work: Callable[[], object]) -> list[str]:
    """Return the statements that SQLite executes, also those that go past Django."""
    sql: list[str] = []
    connection.connection.set_trace_callback(sql.append)
    try:
        work()
    finally:
        connection.connection.set_trace_callback(None)
    return sql


@pytest.mark.usefixtures("large_cache")
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("size", [MIB - 1, MIB, MIB + 1, 3 * MIB + 7, 14 * MIB, 16 * MIB])
@pytest.mark.slow
def test_large_data_is_stored_as_it_came(size: int, around: str) -> None:
    body = pattern(size)
    with AROUND[around]():
        group_commit.apply([Create("a", BINARY, data=b"before")], "default")
        group_commit.apply([Append("a", BINARY, body), Create("b", BINARY, data=body)], "default")
        group_commit.apply([Append("a", BINARY, b"behind")], "default")
    assert b"".join(data for _, _, data, _ in stored("a")) == b"before" + body + b"behind"
    assert stored("b") == [(0, size, body, b"")]


@pytest.mark.usefixtures("large_cache")
@pytest.mark.parametrize("around", AROUND)
def test_an_append_that_is_not_committed_leaves_nothing(around: str) -> None:
    group_commit.apply([Create("a", BINARY)], "default")
    owner = Stream.objects.get(path="a").pk
    row = (owner, 0, 2 * MIB, pattern(2 * MIB), b"", str(timezone.now().replace(tzinfo=None)))

    def insert_and_fail() -> None:
        with AROUND[around](), statements("default").transaction() as cursor:
            statements("default").insert_chunks(cursor, [row])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        insert_and_fail()
    assert stored("a") == []


@pytest.mark.parametrize(
    ("pages", "size", "is_in_place"),
    [
        (SPILL_PAGES, MIB - 1, False),
        (SPILL_PAGES, MIB, True),
        (SPILL_PAGES, 16 * MIB, True),
        (SPILL_PAGES, 17 * MIB, False),
        (1000, MIB, True),
        (1000, 3 * MIB, False),
    ],
)
def test_zeros_are_never_written_to_the_disk_first(pages: int, size: int, is_in_place: bool) -> None:
    """A connection that keeps few changed pages in memory would write the zeros to the log, and then the data."""
    group_commit.apply([Create("a", BINARY)], "default")
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA cache_spill = {pages}")
    body = pattern(size)
    sql = executed(lambda: group_commit.apply([Append("a", BINARY, body)], "default"))
    assert any("zeroblob" in statement for statement in sql) == is_in_place
    assert stored("a") == [(0, size, body, b"")]


@pytest.mark.usefixtures("large_cache")
def test_a_row_that_cannot_be_written_is_an_error_of_django(monkeypatch: pytest.MonkeyPatch) -> None:
    group_commit.apply([Create("a", BINARY)], "default")
    monkeypatch.setattr(Chunk._meta, "db_table", "missing")
    with pytest.raises(OperationalError, match="no such table"):
        group_commit.apply([Append("a", BINARY, pattern(2 * MIB))], "default")
    monkeypatch.undo()
    assert stored("a") == []
