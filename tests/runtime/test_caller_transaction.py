"""Operations in Python take part in the caller's transaction, and readers are told when that commits, however it is
managed: here by the caller, with autocommit off."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import pytest
from django.db import DatabaseError, OperationalError, connection, connections, transaction

from django_durable_streams.api import transactions
from django_durable_streams.models import Stream
from django_durable_streams.store.operations import Commit


@pytest.fixture
def told(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the streams that readers are told of."""
    paths: list[str] = []

    def listen(commits: list[Commit], using: str) -> None:
        paths.extend(commit.path for commit in commits)

    monkeypatch.setattr(transactions, "_listeners", [listen])
    return paths


@contextmanager
def managed() -> Iterator[None]:
    """Manage transactions here, as a project does with AUTOCOMMIT off."""
    transaction.set_autocommit(False)
    try:
        yield
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)


def committed() -> list[str | None]:
    """What another connection sees."""
    other = connections.create_connection("default")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT path FROM durable_streams_stream ORDER BY path")
            return [path for (path,) in cursor.fetchall()]
    finally:
        other.close()


def test_nobody_is_told_before_the_commit(told: list[str]) -> None:
    with managed():
        Stream.objects.create(path="a", content_type="text/plain")
        assert (told, committed()) == ([], [])
        transaction.commit()
        assert (told, committed()) == (["a"], ["a"])


def test_each_operation_is_told_of_once(told: list[str]) -> None:
    with managed():
        stream = Stream.objects.create(path="a", content_type="text/plain")
        stream.append("one")
        transaction.commit()
        stream.append_many(["two", "three"])
        transaction.commit()
        transaction.commit()
    assert told == ["a", "a", "a"]


@pytest.mark.parametrize("whose", [managed, transaction.atomic])
def test_nobody_is_told_of_what_a_savepoint_undoes(told: list[str], whose: Callable[[], Any]) -> None:
    with whose():
        Stream.objects.create(path="a", content_type="text/plain")
        outer = transaction.savepoint()
        Stream.objects.create(path="b")
        inner = transaction.savepoint()
        Stream.objects.create(path="c")
        transaction.savepoint_commit(inner)
        transaction.savepoint_rollback(outer)
        with suppress(ZeroDivisionError), transaction.atomic():
            Stream.objects.create(path="d").append(str(1 / 0))
        kept = transaction.savepoint()
        Stream.objects.create(path="e")
        undone = transaction.savepoint()
        transaction.savepoint_rollback(undone)
        transaction.savepoint_commit(kept)
        if not connection.in_atomic_block:
            transaction.commit()
    # Django makes no savepoints on SQLite with autocommit off: there nothing but the inner `atomic` is undone.
    has_none = whose is managed and connection.vendor == "sqlite"
    assert told == committed() == (["a", "b", "c", "e"] if has_none else ["a", "e"])


def test_nobody_is_told_of_what_is_rolled_back(told: list[str]) -> None:
    with managed():
        Stream.objects.create(path="a", content_type="text/plain")
        transaction.rollback()
        Stream.objects.create(path="b", content_type="text/plain")
        transaction.commit()
    assert (told, committed()) == (["b"], ["b"])


@pytest.mark.parametrize("begun", [False, True])
def test_a_savepoint_takes_back_what_it_has(told: list[str], begun: bool) -> None:
    with managed():
        if begun:
            Stream.objects.create(path="a", content_type="text/plain")
        with transaction.atomic():
            Stream.objects.create(path="b", content_type="text/plain")
            transaction.set_rollback(True)
        with transaction.atomic():
            Stream.objects.create(path="c", content_type="text/plain")
        assert told == []
        transaction.commit()
    assert told == committed() == (["a", "c"] if begun else ["c"])


def test_a_transaction_that_is_rolled_back_in_any_case_takes_no_operation(told: list[str]) -> None:
    """Django rolls it back without an error, and would take back what was acknowledged."""
    stream = Stream.objects.create(path="a", content_type="text/plain")
    with transaction.atomic():
        with suppress(ZeroDivisionError), transaction.atomic(savepoint=False):
            stream.append(str(1 / 0))
        for operation in (
            lambda: stream.append("x"),
            lambda: stream.append_many(["x"]),
            lambda: Stream.objects.create(path="b"),
            stream.close,
            stream.delete,
        ):
            with pytest.raises(transaction.TransactionManagementError):
                operation()
    assert (told, committed()) == (["a"], ["a"])
    stream.append("y")
    assert list(stream.read()) == ["y"]


def test_a_refused_operation_leaves_the_transaction_as_it_was(told: list[str]) -> None:
    with managed():
        Stream.objects.create(path="a", content_type="text/plain", closed=True)
        with pytest.raises(transactions.StreamExists):  # type: ignore[attr-defined]
            Stream.objects.create(path="a", content_type="text/plain")
        transaction.commit()
    assert told == committed() == ["a"]


def test_what_others_have_registered_is_left_to_django(told: list[str]) -> None:
    heard: list[str] = []
    with managed():
        with transaction.atomic():
            transaction.on_commit(lambda: heard.append("theirs"))
            Stream.objects.create(path="a", content_type="text/plain")
        transaction.commit()
        assert (told, heard) == (["a"], [])
    # The caller's rollback on the way out takes it back: so it is without streams.
    assert heard == []


def test_a_connection_that_ends_takes_everything_with_it(told: list[str]) -> None:
    transaction.set_autocommit(False)
    Stream.objects.create(path="a", content_type="text/plain")
    connection.close()
    Stream.objects.create(path="b", content_type="text/plain")
    assert told == committed() == ["b"]


@pytest.mark.skipif(connection.vendor != "mysql", reason="its deadlocks undo all, and the connection goes on")
def test_a_deadlock_takes_everything_with_it(told: list[str]) -> None:
    ids = {path: Stream.objects.create(path=path, content_type="text/plain").pk for path in "ab"}
    told.clear()
    other = connections.create_connection("default")
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            lock = "SELECT id FROM durable_streams_stream WHERE id = %s FOR UPDATE"
            cursor.execute(lock, [ids["b"]])
            # The one that has changed less is undone.
            insert = "INSERT INTO durable_streams_producer (stream_id, producer_id, epoch, seq, updated_at) "
            for number in range(100):
                cursor.execute(f"{insert} VALUES (%s, %s, 0, 0, NOW())", [ids["b"], str(number)])
            with managed():
                Stream.objects.get(path="a").append("lost")
                waiting = Thread(target=cursor.execute, args=(lock, [ids["a"]]))
                waiting.start()
                with pytest.raises(OperationalError, match="1213"):
                    Stream.objects.get(path="b").append("the victim")
                waiting.join(20)
                other.rollback()
                Stream.objects.create(path="c", content_type="text/plain")
                transaction.commit()
    finally:
        other.close()
    assert Stream.objects.get(path="a").tail_position == 0
    assert (told, committed()) == (["c"], ["a", "b", "c"])


def test_nobody_is_told_of_what_the_database_has_undone(told: list[str]) -> None:
    """PostgreSQL rolls back at the commit after an error, without a word; others undo the statement only."""
    with managed():
        Stream.objects.create(path="a", content_type="text/plain")
        with pytest.raises(DatabaseError), connection.cursor() as cursor:
            cursor.execute("SELECT nothing FROM nowhere")
        transaction.commit()
    assert told == committed() == ([] if connection.vendor == "postgresql" else ["a"])
