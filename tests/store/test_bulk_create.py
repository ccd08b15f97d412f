"""Many new and empty streams in one statement, without a query for existing ones."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.api import transactions
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import StreamExists
from django_durable_streams.store.operations import Append, Create, Operation
from django_durable_streams.store.write import group_commit
from tests.store.contexts import Caching, Unheard

TEXT = "text/plain"

pytestmark = pytest.mark.django_db(transaction=True)


def test_streams_that_are_made_unseen_are_all_made_or_none() -> None:
    def make(*operations: Operation) -> tuple[list[Any], list[str]]:
        outcomes, commits = group_commit.apply(operations, "default", Caching(), wait=False, lock_ms=1000)
        return outcomes, [commit.path for commit in commits if commit.created]

    outcomes, made = make(Create("a", TEXT), Create("b", TEXT, ttl=60), Create("a", TEXT), Create("b", TEXT))
    assert [getattr(outcome, "created", None) for outcome in outcomes] == [True, True, False, None]
    assert isinstance(outcomes[3], StreamExists)
    assert made == ["a", "b"]
    outcomes, made = make(Create("c", TEXT), Create("b", TEXT, ttl=60), Create("a", "other/type"))
    assert [getattr(outcome, "created", None) for outcome in outcomes] == [True, False, None]
    assert isinstance(outcomes[2], StreamExists)
    assert made == ["c"]
    outcomes, made = make(Create("d", TEXT))
    assert (outcomes[0].created, made) == (True, ["d"])
    outcomes, made = make(Create("d", TEXT))
    assert (outcomes[0].created, made) == (False, [])
    # The path of one that has expired is free, though its row is there.
    Stream.objects.filter(path="b").unguarded().update(deadline=datetime(2000, 1, 1, tzinfo=UTC))
    outcomes, made = make(Create("b", TEXT), Create("e", TEXT))
    assert [outcome.created for outcome in outcomes] == [True, True]
    assert sorted(made) == ["b", "e"]
    assert sorted(Stream.objects.filter(path__isnull=False).values_list("path", flat=True)) == ["a", "b", "c", "d", "e"]  # type: ignore[type-var]


@pytest.mark.skipif(connection.vendor == "mysql", reason="it looks first")
def test_commits_of_empty_streams_are_left_out_if_the_context_needs_none() -> None:
    def make(*paths: str) -> list[str]:
        _, commits = group_commit.apply([Create(path, TEXT) for path in paths], "default", Unheard(), wait=False)
        return [commit.path for commit in commits]

    assert make("a", "b") == []
    assert make("b", "c") == ["c"]  # with a look, as one is there
    assert Stream.objects.count() == 3


def test_commits_have_the_ids_of_the_rows() -> None:
    for first in range(0, 100, 20):
        paths = [f"s/{number}" for number in range(first, first + 20)]
        _, commits = group_commit.apply([Create(path, TEXT) for path in paths], "default", Caching(), wait=False)
        assert {commit.path: commit.stream_id for commit in commits} == dict(
            Stream.objects.filter(path__in=paths).values_list("path", "id")
        )
        # An id is never given twice, also where its stream was the last one and is no more.
        Stream.objects.filter(path=paths[-1]).delete()
        transactions.apply(Create(f"other/{first}", TEXT), "default")
    group_commit.apply([Append(f"s/{number}", TEXT, b"%d" % number) for number in range(19)], "default", Caching())
    contents = Stream.objects.filter(path="s/7").values_list("chunks__data", flat=True)
    assert [bytes(data) for data in contents] == [b"7"]
