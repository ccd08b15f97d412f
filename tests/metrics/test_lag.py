"""The lag of subscriptions and consumers, with a bound on what is looked at."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_durable_streams.subscriptions import lag
from django_durable_streams.subscriptions.lag import Lag, lags
from tests.subscriptions.steps import USING, stream, subscribe, wakes

pytestmark = pytest.mark.django_db


def test_what_lies_after_the_cursors_is_counted() -> None:
    subscribe()
    subscribe("quiet", "other/*", kind="pull-wake")
    stream("events/a", b"12345").append(b"678")
    stream("events/b", b"12")
    wakes(0)
    assert lags(USING) == [Lag("s", "webhook", 2, 10), Lag("quiet", "pull-wake", 0, 0)]


def test_trimmed_data_is_no_lag() -> None:
    subscribe()
    whole, rest = stream("events/a", b"12345"), stream("events/b", b"12345")
    rest.append(b"678")
    wakes(0)
    whole.trim("now")
    rest.trim(rest.offset_at(5))
    assert lags(USING) == [Lag("s", "webhook", 1, 3)]


def test_a_large_lag_is_looked_at_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lag, "MAX_LINKS", 3)
    monkeypatch.setattr(lag, "MAX_SUBSCRIPTIONS", 2)
    for name in ("s", "t", "u"):
        subscribe(name)
    for number in range(5):
        stream(f"events/{number}", b"x")
    wakes(0)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert lags(USING) == [Lag("s", "webhook", 3, 3), Lag("t", "webhook", 3, 3)]
    assert len(queries) == 3
