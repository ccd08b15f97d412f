"""The tables, as each database has them."""

import pytest
from django.db import connection
from django.db.models import Q

from django_durable_streams.models import Chunk, Producer, StagedChunk, Stream
from django_durable_streams.models.stream import LinkState

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("model", [Stream, Chunk, StagedChunk, Producer])
def test_no_database_reports_a_problem_of_a_model(model: type[Stream | Chunk | StagedChunk | Producer]) -> None:
    assert model.check(databases=["default"]) == []


@pytest.mark.skipif(connection.vendor == "mysql", reason="its indexes have all rows")
def test_streams_without_deadline_and_source_are_only_in_the_index_of_paths() -> None:
    for index in Stream._meta.indexes:
        (field,) = index.fields
        is_mark = field == "link_state"  # most linked streams have no news
        assert index.condition == (Q(link_state=LinkState.UNSEEN) if is_mark else Q(**{f"{field}__isnull": False}))


def test_queries_by_deadline_or_source_use_an_index() -> None:
    if connection.vendor != "sqlite":
        pytest.skip("a planner that knows how small the tables are reads them whole")
    assert "stream_deadline" in Stream.objects.expired().explain()
    assert "stream_source" in Stream.objects.filter(source_id__in=[1, 2], path__isnull=False).explain()
    assert "stream_deleted_at" in Stream.objects.filter(deleted_at__isnull=False, path__isnull=False).explain()


def test_a_path_is_in_one_index() -> None:
    with connection.cursor() as cursor:
        constraints = connection.introspection.get_constraints(cursor, Stream._meta.db_table).values()
    assert [constraint["unique"] for constraint in constraints if constraint["columns"] == ["path"]] == [True]


@pytest.mark.skipif(connection.vendor != "postgresql", reason="how PostgreSQL explains a query")
def test_queries_by_a_prefix_use_the_index_of_paths() -> None:
    query = Stream.objects.filter(path__startswith="some/where")
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
    assert "Index Cond: (((path)::text >= 'some/where'" in query.explain()


@pytest.mark.parametrize("model", [Chunk, StagedChunk])
def test_the_data_of_a_chunk_comes_after_all_other_columns(model: type[Chunk | StagedChunk]) -> None:
    with connection.cursor() as cursor:
        columns = connection.introspection.get_table_description(cursor, model._meta.db_table)
    assert columns[-1].name == "data"
