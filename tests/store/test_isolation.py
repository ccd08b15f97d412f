"""Callers whose transactions read from a snapshot that is older than commits of others."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from threading import Thread
from typing import Any

import pytest
from django.db import connection, transaction

from django_durable_streams.api import transactions
from django_durable_streams.models import Producer, Stream
from django_durable_streams.protocol.errors import (
    DurableStreamsError,
    StreamExists,
    StreamNotFound,
    TransactionConflict,
)
from django_durable_streams.protocol.offsets import Offset
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Appended, Create, Delete, Fork, Operation
from django_durable_streams.store.read.lineage import WIDTH
from django_durable_streams.store.upkeep import removal
from django_durable_streams.store.write.batch import Batch
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


def repeat_after_another_writer() -> Appended:
    """Have another connection append in the middle of a transaction, and do the same in it."""
    transactions.apply(Create("a", TEXT), "default")
    with isolated("REPEATABLE READ"), transaction.atomic():
        assert Producer.objects.count() == 0  # from here on the transaction has its snapshot
        elsewhere(lambda: transactions.apply(FIRST, "default"))
        result = transactions.apply(FIRST, "default")
    assert isinstance(result, Appended)
    return result


def test_a_repeated_append_is_a_duplicate_or_the_transaction_fails() -> None:
    try:
        assert repeat_after_another_writer().duplicate
    except TransactionConflict:  # PostgreSQL does not let a snapshot and what is there now mix
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
    except TransactionConflict:  # the database refuses the transaction, which may be done again
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
    except TransactionConflict:
        assert level != "READ COMMITTED"
    purge_all()
    assert [*Stream.objects.get(path="fork").read()] == ["precious"]


@pytest.mark.parametrize("level", LEVELS)
def test_a_fork_sees_data_that_is_younger_than_the_snapshot(level: str) -> None:
    transactions.apply(Create("source", "application/json", data=b"1\n"), "default")
    behind_the_first = offset_in("source", 2)
    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())
            elsewhere(lambda: transactions.apply(Append("source", "application/json", b"2\n3\n"), "default"))
            transactions.apply(Create("fork", None, fork=Fork("source", behind_the_first, 1)), "default")
    except TransactionConflict:
        assert level != "READ COMMITTED"
    else:
        assert [*Stream.objects.get(path="fork").read()] == [1, 2]


def purge_all() -> None:
    while removal.collect("default") or removal.purge("default"):
        pass


def append_elsewhere(path: str, data: bytes) -> None:
    elsewhere(lambda: transactions.apply(Append(path, TEXT, data), "default"))


@pytest.mark.parametrize("level", LEVELS)
def test_a_transaction_reads_all_data_before_its_own_append(level: str) -> None:
    transactions.apply(Create("a", TEXT, data=b"1"), "default")
    stream = Stream.objects.get(path="a")
    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())
            append_elsewhere("a", b"2")
            append_elsewhere("a", b"3")
            stream.append("4")
            assert "".join(stream.read()) == "1234"
            assert "".join(message for page in stream.tail(timeout=0) for message in page) == "1234"
            stream.append("5")
            assert "".join(stream.read()) == "12345"
    except TransactionConflict:
        assert level != "READ COMMITTED"


@pytest.mark.parametrize("level", LEVELS)
def test_a_stream_that_is_younger_than_the_snapshot_exists(level: str) -> None:
    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())
            elsewhere(lambda: transactions.apply(Create("a", TEXT, data=b"1"), "default"))
            stream, is_new = Stream.objects.ensure("a", content_type=TEXT)
            assert not is_new
            stream.append("2")
            assert "".join(stream.read()) == "12"
    except TransactionConflict:
        assert level != "READ COMMITTED"
    assert Stream.objects.get(path="a").path == "a"


@pytest.mark.parametrize("level", LEVELS)
def test_a_fork_of_a_long_chain_that_is_younger_than_the_snapshot(level: str) -> None:
    transactions.apply(Create("0", TEXT, data=b"0"), "default")
    length = 2 * WIDTH + 2

    def chain() -> None:
        for number in range(1, length):
            transactions.apply(Create(f"{number}", None, data=b"x", fork=Fork(f"{number - 1}")), "default")

    try:
        with isolated(level), transaction.atomic():
            list(Producer.objects.all())
            elsewhere(chain)
            last = f"{length - 1}"
            transactions.apply(Create("fork", None, fork=Fork(last, offset_elsewhere(last, 2))), "default")
            transactions.apply(Create("whole", None, fork=Fork(last)), "default")
    except StreamNotFound:  # as PostgreSQL does not see it
        assert connection.vendor == "postgresql"
        assert level != "READ COMMITTED"
    except TransactionConflict:
        assert level != "READ COMMITTED"
    else:
        assert "".join(Stream.objects.get(path="fork").read()) == "0x"
        assert "".join(Stream.objects.get(path="whole").read()) == "0" + "x" * (length - 1)
        for path in ("fork", "whole"):
            assert Stream.objects.get(path=path).offset_at(1) == Stream.objects.get(path="0").offset_at(1)


def offset_elsewhere(path: str, position: int) -> Offset:
    offsets_found: list[Offset] = []
    elsewhere(lambda: offsets_found.append(offset_in(path, position)))
    return offsets_found[0]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else makes the stream `a` when the next batch has seen that there is none."""
    load = Batch.load

    def load_and_be_late(self: Batch, operations: Sequence[Operation], **options: Any) -> None:
        load(self, operations, **options)
        monkeypatch.setattr(Batch, "load", load)
        elsewhere(lambda: transactions.apply(Create("a", TEXT, data=b"1"), "default"))

    monkeypatch.setattr(Batch, "load", load_and_be_late)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_two_callers_that_ensure_a_stream_both_get_it(late: None, in_transaction: bool) -> None:
    with transaction.atomic() if in_transaction else nullcontext():
        stream, is_new = Stream.objects.ensure("a", content_type=TEXT)
        assert not is_new
        stream.append("2")
    assert "".join(stream.read()) == "12"


@pytest.mark.parametrize("in_transaction", [False, True])
def test_of_two_callers_that_create_a_stream_one_gets_the_error(late: None, in_transaction: bool) -> None:
    with transaction.atomic() if in_transaction else nullcontext():
        with pytest.raises(StreamExists):
            Stream.objects.create(path="a", content_type=TEXT)
        Stream.objects.create(path="b", content_type=TEXT)
    assert [*Stream.objects.order_by("path").values_list("path", flat=True)] == ["a", "b"]
