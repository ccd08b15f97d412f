"""A server that starts logs what an operator has to set right in the database, and changes nothing there."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import Error, connection

from django_durable_streams.engine.readiness import check_setup, try_tables
from django_durable_streams.models import Producer, Stream
from django_durable_streams.runtime.configuration_errors import ProblemReporter

pytestmark = pytest.mark.django_db(transaction=True)


@contextmanager
def missing(table: str) -> Iterator[None]:
    """Let a table be away."""
    names = connection.ops.quote_name(table), connection.ops.quote_name(f"{table}_away")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE {} RENAME TO {}".format(*names))
        try:
            yield
        finally:
            cursor.execute("ALTER TABLE {1} RENAME TO {0}".format(*names))


def test_a_ready_database_causes_no_message_and_is_not_changed(caplog: pytest.LogCaptureFixture) -> None:
    stream = Stream.objects.create(path="a", content_type="text/plain", data="abc")
    check_setup("default", ProblemReporter("default"))
    assert caplog.records == []
    assert list(stream.read()) == ["abc"]


def test_a_table_that_is_missing_is_named_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    with missing(Producer._meta.db_table):
        check_setup("default", ProblemReporter("default"))
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "run manage.py migrate" in record.getMessage()
    assert Producer._meta.db_table in record.getMessage()


@pytest.mark.parametrize("writes", [False, True])
def test_a_caller_that_tries_the_tables_gets_the_error(writes: bool) -> None:
    with missing(Producer._meta.db_table), pytest.raises(Error):
        try_tables("default", writes=writes)
