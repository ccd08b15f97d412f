"""PostgreSQL's transactions without round trips of their own, and errors inside of them."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import DataError, Error, InternalError, connection, transaction

from django_durable_streams.api import transactions
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create, Created, Delete, Operation
from django_durable_streams.store.sql import binary, pipeline, statements
from django_durable_streams.store.sql.pipeline import Pipeline, Transaction
from django_durable_streams.store.write import group_commit
from django_durable_streams.store.write.row_cache import PostgreSQLRowCache
from tests.store.contexts import Caching, Holding

TEXT = "text/plain"
POISON = "\x00"
"""A text that PostgreSQL refuses, and that no check finds before."""

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor != "postgresql", reason="how PostgreSQL's statements travel"),
]


def apply(*operations: Operation) -> list[Any]:
    return group_commit.apply(operations, "default")[0]


def tails() -> dict[str | None, int]:
    return dict(Stream.objects.values_list("path", "tail_position"))


@pytest.fixture
def travels(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Get the first words of the statements that travel together, for each time that some do."""
    seen: list[list[str]] = []
    real: Callable[..., Any] = pipeline._exchange

    def exchange(driver: Any, sent: Sequence[pipeline.Statement]) -> Any:
        seen.append([statement.sql.split()[0].decode() for statement in sent])
        return real(driver, sent)

    monkeypatch.setattr(pipeline, "_exchange", exchange)
    return seen


def test_a_batch_of_cached_streams_is_one_round_trip(travels: list[list[str]]) -> None:
    row_cache = PostgreSQLRowCache()

    def round_trips_of(*operations: Operation) -> list[list[str]]:
        travels.clear()
        outcomes, _ = group_commit.apply(operations, "default", Caching(row_cache), wait=False)
        assert all(isinstance(outcome, Created | Appended) for outcome in outcomes), outcomes
        return list(travels)

    round_trips_of(*(Create(path, TEXT) for path in "abc"))
    begin, insert, update, commit = ["BEGIN", "SET", "SET"], "INSERT", "UPDATE", "COMMIT"
    assert len(round_trips_of(*(Append(path, TEXT, b"0") for path in "abc"))) == 2
    one_way = [[*begin, "WITH", commit]]  # the UPDATE and the INSERT are one statement
    assert round_trips_of(Append("a", TEXT, b"1"), Append("b", TEXT, b"22"), Append("a", TEXT, b"333")) == one_way
    # A producer has to be met first.
    assert len(round_trips_of(Append("c", TEXT, b"4", producer=ProducerClaim("p", 0, 0)))) == 2
    assert round_trips_of(Append("c", TEXT, b"5", producer=ProducerClaim("p", 0, 1)), Append("a", TEXT, b"6")) == [
        [*begin, update, insert, update, commit]
    ]
    assert round_trips_of(Append("b", TEXT, b"", close=True)) == [[*begin, update, commit]]
    assert tails() == {"a": 6, "b": 3, "c": 3}


@pytest.mark.parametrize(("lock_ms", "limit"), [(0, "1ms"), (1, "1ms"), (250, "250ms")])
def test_the_limit_of_waits_for_locks_is_that_of_the_caller(lock_ms: int, limit: str) -> None:
    """Zero is no wait at all, and for PostgreSQL no limit: a read that renews a TTL waited for a locked table."""
    with statements("default").transaction(lock_ms) as travelling:
        rows = travelling.execute("SELECT current_setting('lock_timeout')").fetchall()
    assert [value for (value,) in rows] == [limit]


def test_a_batch_without_cached_streams_is_two_round_trips(travels: list[list[str]]) -> None:
    apply(Create("z", TEXT))  # the first create of a process also reads the rules for links
    travels.clear()
    apply(*(Create(path, TEXT) for path in "abc"))
    begin, settings, select, insert, update, commit = "BEGIN", "SET", "SELECT", "INSERT", "UPDATE", "COMMIT"
    insert_copies = "WITH"  # the condition on the rules for links stands before the INSERT
    # The lock on the rules for links travels with the lock on the rows.
    assert travels == [[begin, settings, select, select], [insert, commit]]
    for sequence in range(2):
        travels.clear()
        claim = ProducerClaim("p", 0, sequence)
        apply(Append("a", TEXT, b"1"), Append("b", TEXT, b"2", producer=claim))
        assert travels == [
            [begin, settings, select, select],
            [update, insert, insert if sequence == 0 else update, commit],
        ]
    travels.clear()
    group_commit.apply([Create("e", TEXT), Create("f", TEXT)], "default", wait=False, lock_ms=1000)
    assert travels == [[begin, settings, settings, insert_copies, commit]]
    travels.clear()
    group_commit.apply([Create("a", TEXT), Create("new", TEXT)], "default", wait=False, lock_ms=1000)
    assert travels == [
        [begin, settings, settings, insert_copies, commit],
        [begin, settings, settings, select, select, select],
        [insert, commit],
    ]
    travels.clear()
    apply(Create("full", TEXT, data=b"x"), Delete("a"))
    # The chunk names its stream's id, which the database gives.
    assert travels[-2:] == [[update, insert], [insert, commit]]
    assert tails() == {None: 2, "b": 2, "c": 0, "e": 0, "f": 0, "new": 0, "full": 1, "z": 0}


def test_a_batch_that_changes_nothing_commits_nothing(travels: list[list[str]]) -> None:
    apply(Append("nowhere", TEXT, b"x"))
    assert travels == [["BEGIN", "SET", "SELECT"], ["COMMIT"]]
    travels.clear()
    group_commit.apply([Append("held", TEXT, b"x")], "default", Holding({"held"}), wait=False)
    assert travels == []


@pytest.mark.parametrize("poison", [POISON, "\ud800"])
def test_an_error_in_a_transaction_leaves_no_changes(poison: str) -> None:
    apply(Create("a", TEXT), Create("b", TEXT))
    for operation in (
        Append("b", TEXT, b"x", seq=poison),
        Append("b", TEXT, b"x", producer=ProducerClaim(poison, 0, 0)),
        Create(f"c{poison}", TEXT, data=b"x"),
        Append("b", TEXT, b"x", producer=ProducerClaim("p", 2**63, 0)),
    ):
        with pytest.raises((DataError, ValueError)):
            apply(Append("a", TEXT, b"x"), operation, Append("a", TEXT, b"y"))
        assert connection.connection.info.transaction_status == 0  # idle
        assert tails() == {"a": 0, "b": 0}
    apply(Append("a", TEXT, b"x"))
    assert tails() == {"a": 1, "b": 0}


def test_the_callers_transaction_goes_on_after_an_error() -> None:
    apply(Create("a", TEXT))
    called: list[str] = []
    with transaction.atomic():
        transaction.on_commit(lambda: called.append("before"))
        transactions.apply(Append("a", TEXT, b"1"), "default")
        with pytest.raises(DataError):
            transactions.apply(Append("a", TEXT, b"2", seq=POISON), "default")
        transactions.apply(Append("a", TEXT, b"3"), "default")
        transaction.on_commit(lambda: called.append("after"))
        assert called == []
    assert called == ["before", "after"]
    assert b"".join(bytes(chunk.data) for chunk in Chunk.objects.order_by("end")) == b"13"


def test_the_first_statement_of_a_callers_transaction_is_part_of_it() -> None:
    apply(Create("a", TEXT))
    number = Stream.objects.get().pk
    with transaction.atomic(), connection.cursor() as cursor:
        statements("default").update_streams(cursor, [(7, False, "", None, None, None, None, number)])
        transaction.set_rollback(True)
    assert tails() == {"a": 0}


def test_without_autocommit_the_caller_commits() -> None:
    apply(Create("a", TEXT))
    transaction.set_autocommit(False)
    try:
        apply(Append("a", TEXT, b"1"))
        transaction.rollback()
        apply(Append("a", TEXT, b"22"))
        transaction.commit()
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert tails() == {"a": 2}


def test_a_connection_that_was_lost_before_has_changed_nothing() -> None:
    apply(Create("a", TEXT))
    with connection.cursor() as cursor, pytest.raises(Error):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(Error):
        apply(Append("a", TEXT, b"x"))
    connection.close()
    assert tails() == {"a": 0}


def test_the_commit_of_a_failed_transaction_is_an_error() -> None:
    failed = Transaction(connection)
    with pytest.raises(DataError):
        failed.execute("SELECT 1/0").fetchall()
    failed.execute("SELECT 1")
    with pytest.raises(Error):
        failed.commit()
    failed.rollback()
    swallowed = Transaction(connection)
    with pytest.raises(DataError):
        swallowed.execute("SELECT 1/0").fetchall()
    with pytest.raises(InternalError):
        swallowed.commit()
    swallowed.rollback()
    assert apply(Create("a", TEXT))[0].created


def test_the_session_is_left_as_it_was() -> None:
    """Behind a pooler, another client may use it next."""
    group_commit.apply([Create("a", TEXT)], "default", wait=False, lock_ms=1234)
    own = Transaction(connection, lock_ms=1234)
    assert own.execute("SELECT current_setting('lock_timeout')").fetchall() == [("1234ms",)]
    own.commit()
    rows = (
        Pipeline(connection)
        .execute("SELECT current_setting('lock_timeout'), current_setting('enable_seqscan')")
        .fetchall()
    )
    assert rows == [("0", "on")]
    assert Pipeline(connection).execute("SELECT name FROM pg_prepared_statements").fetchall() == []


def test_the_isolation_level_of_the_settings_is_the_transactions() -> None:
    from psycopg import IsolationLevel

    connection.ensure_connection()
    connection.connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        own = Transaction(connection)
        assert own.execute("SHOW transaction_isolation").fetchall() == [("repeatable read",)]
        own.rollback()
    finally:
        connection.close()


MOMENT = datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC)
VALUES: dict[str, list[Any]] = {
    "bigint": [0, -1, 2**63 - 1, -(2**63)],
    "text": ["", "a,b{}\"'\\", "é 😀", "NULL"],
    "boolean": [True, False],
    "bytea": [b"", bytes(range(256))],
    "timestamptz": [MOMENT, MOMENT.replace(year=1), MOMENT.replace(year=9999)],
    "jsonb": ["[[1, 0, 5]]"],
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_arrive_as_they_are(kind: str) -> None:
    values = [*VALUES[kind], None]
    (row,) = (
        Pipeline(connection)
        .execute(f"SELECT {', '.join(['%s'] * len(values))}", [binary.scalar(kind, value) for value in values])
        .fetchall()
    )
    assert list(row) == values
    for some in (values, values[:-1], values[:1], [None], []):
        rows = Pipeline(connection).execute("SELECT * FROM unnest(%s)", [binary.array(kind, some)]).fetchall()
        assert [value for (value,) in rows] == some


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1])
def test_a_number_that_is_too_large_is_an_error_of_the_data(number: int) -> None:
    with pytest.raises(DataError):
        binary.scalar("bigint", number)
    with pytest.raises(DataError):
        binary.array("bigint", [1, number])
    with pytest.raises(DataError):
        binary.array("bigint", [None, number])
