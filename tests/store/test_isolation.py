"""Callers whose transactions read from a snapshot, which is older than what others have committed since."""

from threading import Thread

import pytest
from django.db import OperationalError, connection, transaction

from django_durable_streams.models import Producer
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store import calls
from django_durable_streams.store.operations import Append, Appended, Create

TEXT = "text/plain"
FIRST = Append("a", TEXT, b"x", producer=ProducerClaim("p", 0, 0))

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time"),
]


def repeat_after_somebody_else() -> Appended:
    """Have another connection append in the middle of a transaction, and do the same in it."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ"
            if connection.vendor == "postgresql"
            else "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ"
        )
    try:
        calls.apply(Create("a", TEXT), "default")
        with transaction.atomic():
            assert Producer.objects.count() == 0  # from here on the transaction has its snapshot
            other = Thread(target=append_elsewhere)
            other.start()
            other.join()
            result = calls.apply(FIRST, "default")
    finally:
        connection.close()
    assert isinstance(result, Appended)
    return result


def append_elsewhere() -> None:
    calls.apply(FIRST, "default")
    connection.close()


def test_a_repeated_append_is_seen_to_be_one_or_the_transaction_is_refused() -> None:
    try:
        assert repeat_after_somebody_else().duplicate
    except OperationalError:  # PostgreSQL does not let a snapshot and what is there now mix
        assert connection.vendor == "postgresql"
    assert Producer.objects.get().seq == 0
