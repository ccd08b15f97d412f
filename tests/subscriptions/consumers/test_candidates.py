"""The streams that a worker may take next: each once in an iteration, and without a query while the last one is new."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_durable_streams.consumers import consumer
from django_durable_streams.models import Stream, SubscriptionLink
from django_durable_streams.subscriptions.consumers import candidates
from django_durable_streams.subscriptions.consumers.candidates import Candidates
from tests.subscriptions.consumers.steps import subscribed
from tests.subscriptions.steps import USING

pytestmark = pytest.mark.django_db

STREAMS = 7


@pytest.fixture
def subscription_id() -> int:
    numbers = consumer("numbers/*", name="sum", start="beginning")(lambda batch: None)
    for number in range(STREAMS):
        Stream.objects.create(path=f"numbers/{number}", content_type="application/json", data=b"1")
    return subscribed(numbers, from_beginning=None)


def ids() -> list[int]:
    return list(SubscriptionLink.objects.order_by("pk").values_list("pk", flat=True))


@pytest.mark.parametrize("per_query", [1, 2, 3, STREAMS - 1, STREAMS, STREAMS + 1])
@pytest.mark.parametrize("begin", [None, -1, 0, 1, STREAMS // 2, STREAMS - 2, STREAMS - 1, 10 * STREAMS])
def test_an_iteration_sees_each_stream_once(
    subscription_id: int, monkeypatch: pytest.MonkeyPatch, per_query: int, begin: int | None
) -> None:
    monkeypatch.setattr(candidates, "PER_QUERY", per_query)
    first = 0 if begin is None else ids()[0] + begin
    monkeypatch.setattr("random.choice", lambda choices: first)
    seen = [link.pk for link in Candidates(subscription_id, USING)]
    assert seen == [pk for pk in ids() if pk > first] + [pk for pk in ids() if pk <= first]


def test_the_next_iteration_goes_on_without_a_query_while_the_last_query_is_new(
    subscription_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.choice", lambda choices: 0)
    expected = ids()
    mine = Candidates(subscription_id, USING)
    monkeypatch.setattr(candidates, "FRESH_SECONDS", 1000.0)
    assert next(iter(mine)).pk == expected[0]
    with CaptureQueriesContext(connection) as captured:
        assert next(iter(mine)).pk == expected[1]
    assert len(captured) == 0
    monkeypatch.setattr(candidates, "FRESH_SECONDS", -1.0)
    with CaptureQueriesContext(connection) as captured:
        assert next(iter(mine)).pk == expected[2]
    assert len(captured) == 1


def test_an_iteration_that_began_with_old_links_still_sees_all(
    subscription_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "FRESH_SECONDS", 1000.0)
    mine = Candidates(subscription_id, USING)
    next(iter(mine))
    assert {link.pk for link in mine} == set(ids())
