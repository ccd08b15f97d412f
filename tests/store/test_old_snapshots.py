"""A transaction whose snapshot is too old for an operation gets one error, and succeeds when it is repeated."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from django_durable_streams.models import DatabaseIdentity, Stream
from django_durable_streams.protocol.errors import (
    DurableStreamsError,
    SourceGone,
    StreamExists,
    StreamNotFound,
    TransactionConflict,
)
from tests.store.test_isolation import LEVELS, elsewhere, isolated

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]

TEXT = "text/plain"

OPERATIONS: dict[str, Callable[[Stream], Any]] = {
    "append": lambda s: s.append("mine"),
    "append with a producer": lambda s: s.append("mine", producer=("p", 0, 0)),
    "append_many": lambda s: s.append_many(["mine", "mine"]),
    "close": lambda s: s.close(),
    "delete": lambda s: s.delete(),
    "delete of a query": lambda s: Stream.objects.filter(path=s.path).delete(),
    "set_lifetime": lambda s: s.set_lifetime(ttl=60),
    "fork": lambda s: s.fork("fork"),
    "ensure": lambda s: Stream.objects.ensure(s.path, content_type=TEXT),
    "create": lambda s: Stream.objects.create(path=s.path, content_type=TEXT),
    "read": lambda s: [*s.read()],
    "tail": lambda s: [*s.tail(timeout=0)],
}

CHANGES: dict[str, Callable[[Stream], Any]] = {
    "an append": lambda s: s.append("theirs"),
    "an append with a producer": lambda s: s.append("theirs", producer=("p", 0, 0)),
    "a lifetime": lambda s: s.set_lifetime(expires_at=timezone.now() + timedelta(hours=1)),
    "a fork": lambda s: s.fork("theirs"),
    "its deletion": lambda s: s.delete(),
    "another stream at its path": lambda s: (s.delete(), Stream.objects.create(path="a", content_type=TEXT)),
}


def attempt(level: str, operation: Callable[[], Any], change: Callable[[], Any]) -> tuple[int, Any]:
    """Run a transaction as its caller would, again after a conflict. Return the number of conflicts and the outcome.

    In its first run another connection changes something after the transaction has its snapshot.
    """
    with isolated(level):
        for number in range(3):
            try:
                with transaction.atomic():
                    list(DatabaseIdentity.objects.all())  # from here on the transaction has its snapshot
                    if not number:
                        elsewhere(change)
                    return number, operation()
            except TransactionConflict:
                continue
            except DurableStreamsError as error:
                return number, error
    raise AssertionError("it never succeeds")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_after_any_change_it_succeeds_or_says_to_repeat_the_transaction(
    operation: str, change: str, level: str
) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT, data="first")
    other = Stream.objects.get(path="a")
    conflicts, outcome = attempt(level, lambda: OPERATIONS[operation](stream), lambda: CHANGES[change](other))
    assert conflicts <= 1
    if level == "READ COMMITTED":
        assert not conflicts
    if isinstance(outcome, DurableStreamsError):
        refused = {"create": StreamExists, "ensure": StreamExists}.get(operation, (StreamNotFound, SourceGone))
        assert isinstance(outcome, refused), outcome
        return
    if change == "an append" and operation.startswith("append"):
        assert [*Stream.objects.get(path="a").read()][:2] == ["first", "theirs"]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("how", ["ensure", "create", "fork"])
def test_a_path_that_was_taken_after_the_snapshot(how: str, level: str) -> None:
    source = Stream.objects.create(path="source", content_type=TEXT, data="first")
    operations: dict[str, Callable[[], Any]] = {
        "ensure": lambda: Stream.objects.ensure("a", content_type=TEXT),
        "create": lambda: Stream.objects.create(path="a", content_type=TEXT),
        "fork": lambda: source.fork("a"),
    }
    conflicts, outcome = attempt(
        level, operations[how], lambda: Stream.objects.create(path="a", content_type=TEXT, data="theirs")
    )
    assert conflicts <= 1
    if how == "ensure":
        stream, created = outcome
        assert (stream.path, created) == ("a", False)
    else:
        assert isinstance(outcome, StreamExists)
    assert [*Stream.objects.get(path="a").read()] == ["theirs"]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="others let the caller see the newest row")
@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("operation", ["append", "append_many", "ensure", "create"])
def test_the_error_says_what_to_do_and_is_one_of_the_database_too(operation: str, level: str) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    late = Stream(path="late")
    with isolated(level), transaction.atomic():
        list(DatabaseIdentity.objects.all())
        elsewhere(lambda: Stream.objects.get(path="a").append("theirs"))
        elsewhere(lambda: Stream.objects.create(path="late", content_type=TEXT))
        with pytest.raises(TransactionConflict, match="Run the whole transaction again") as raised:
            OPERATIONS[operation](stream if operation.startswith("append") else late)
    assert isinstance(raised.value, OperationalError)
    assert raised.value.status == 503


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_the_callers_savepoint_leaves_the_transaction_usable(level: str) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    Stream.objects.create(path="b", content_type=TEXT)
    other = Stream.objects.get(path="a")
    with isolated(level), transaction.atomic():
        list(DatabaseIdentity.objects.all())  # from here on the transaction has its snapshot
        elsewhere(lambda: other.append("theirs"))
        try:
            with transaction.atomic():
                stream.append("mine")
        except TransactionConflict:
            pass
        Stream.objects.get(path="b").append("mine")
    assert [*Stream.objects.get(path="b").read()] == ["mine"]


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_operation_in_a_transaction_of_its_own_is_repeated(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from django_durable_streams.store.write.batch import Batch

    stream = Stream.objects.create(path="a", content_type=TEXT)
    load = Batch.load

    def load_late(self: Any, operations: Any, **options: Any) -> None:
        monkeypatch.setattr(Batch, "load", load)
        list(DatabaseIdentity.objects.all())  # from here on the transaction has its snapshot
        elsewhere(lambda: Stream.objects.get(path="a").append("theirs"))
        load(self, operations, **options)

    monkeypatch.setattr(Batch, "load", load_late)
    with isolated(level):
        stream.append("mine")
    assert [*Stream.objects.get(path="a").read()] == ["theirs", "mine"]
