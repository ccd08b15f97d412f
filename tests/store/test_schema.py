"""What the tables are like in the database."""

import pytest
from django.db import connection

from django_durable_streams.models import Stream


@pytest.mark.django_db
def test_a_path_stands_in_one_index() -> None:
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, Stream._meta.db_table).values()
    assert [constraint["unique"] for constraint in found if constraint["columns"] == ["path"]] == [True]


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "postgresql", reason="how PostgreSQL explains a query")
def test_the_index_of_paths_leads_to_those_that_begin_with_a_prefix() -> None:
    query = Stream.objects.filter(path__startswith="some/where")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    assert "Index Cond: (((path)::text >= 'some/where'" in query.explain()
