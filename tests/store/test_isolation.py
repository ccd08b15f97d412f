"""Callers whose transactions read from a snapshot, which is older than what others have committed since."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread

import pytest
from django.db import OperationalError, connection, transaction

from django_durable_streams.api import transactions
from django_durable_streams.models import Producer, Stream
from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create, Delete, Fork
from django_durable_streams.store.upkeep import removal
from tests.tokens import offset_in

TEXT = "text/plain"
FIRST = Append("a", TEXT, b"x", producer=ProducerClaim("p", 0, 0))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]


LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

LEVELS = ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]


@contextmanager
def isolated(level: str) -> Iterator[None]:
    """Have this thread's transactions run at an isolation level."""
    kind = "CHARACTERISTICS AS TRANSACTION" if connection.vendor == "postgresql" else "TRANSACTION"
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION {kind} ISOLATION LEVEL {level}")
    try:
        yield
    finally:
        connection.close()


def elsewhere(work: Callable[[], object]) -> None:
    """Do something over another connection, and wait for it."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    other = Thread(target=run)
    other.start()
    other.join(20)
    assert not other.is_alive()
    if errors:
        raise errors[0]


def repeat_after_somebody_else() -> Appended:
    """Have another connection append in the middle of a transaction, and do the same in it."""
    transactions.apply(Create("a", TEXT), "default")
    with isolated("REPEATABLE READ"), transaction.atomic():
        assert Producer.objects.count() == 0  # from here on the transaction has its snapshot
        elsewhere(lambda: transactions.apply(FIRST, "default"))
        result = transactions.apply(FIRST, "default")
    assert isinstance(result, Appended)
    return result


def test_a_repeated_append_is_seen_to_be_one_or_the_transaction_is_refused() -> None:
    try:
        assert repeat_after_somebody_else().duplicate
    except OperationalError:  # PostgreSQL does not let a snapshot and what is there now mix
        assert connection.vendor == "postgresql"
    assert Producer.objects.get().seq == 0


def end_by_delete(path: str) -> None:
    transactions.apply(Delete(path), "default")


def end_by_model(path: str) -> None:
    stream = Stream.objects.filter(path=path).get()
    stream.delete()


@pytest.mark.parametrize("end", [end_by_delete, end_by_model])
@pytest.mark.parametrize("level", LEVELS)
def test_a_fork_that_is_younger_than_the_snapshot_keeps_its_source(level: str, end: Callable[[str], None]) -> None:
    transactions.apply(Create("source", TEXT, data=b"precious"), "default")
    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())  # from here on the transaction has its snapshot
            elsewhere(lambda: transactions.apply(Create("fork", None, fork=Fork("source")), "default"))
            end("source")
    except OperationalError:  # the database refuses the transaction, which may be done again
        assert level != "READ COMMITTED"
    else:
        with pytest.raises(DurableStreamsError):
            transactions.find("source", "default")
    purge_all()
    assert [*Stream.objects.get(path="fork").read()] == ["precious"]


@pytest.mark.parametrize("level", LEVELS)
def test_an_expired_source_with_a_younger_fork_is_kept(level: str) -> None:
    """The path is taken anew in a transaction that has not seen the fork."""
    transactions.apply(Create("source", TEXT, ttl=1000, data=b"precious"), "default")
    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())
            elsewhere(lambda: transactions.apply(Create("fork", None, ttl=1000, fork=Fork("source")), "default"))
            elsewhere(lambda: Stream.objects.filter(path="source").unguarded().update(deadline=LONG_AGO))
            with pytest.raises(DurableStreamsError):
                transactions.apply(Create("source", TEXT, data=b"new"), "default")
    except OperationalError:
        assert level != "READ COMMITTED"
    purge_all()
    assert [*Stream.objects.get(path="fork").read()] == ["precious"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_fork_sees_what_is_younger_than_the_snapshot(level: str) -> None:
    transactions.apply(Create("source", "application/json", data=b"1\n"), "default")
    behind_the_first = offset_in("source", 2)
    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())
            elsewhere(lambda: transactions.apply(Append("source", "application/json", b"2\n3\n"), "default"))
            transactions.apply(Create("fork", None, fork=Fork("source", behind_the_first, 1)), "default")
    except OperationalError:
        assert level != "READ COMMITTED"
    else:
        assert [*Stream.objects.get(path="fork").read()] == [1, 2]


def purge_all() -> None:
    while removal.collect("default") or removal.purge("default"):
        pass
