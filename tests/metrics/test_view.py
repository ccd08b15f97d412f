"""The endpoint for Prometheus: who may see it, and that its text is what happened, read by Prometheus' own parser."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from prometheus_client import REGISTRY
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from django_durable_streams.contrib.prometheus import lags, registration
from django_durable_streams.contrib.prometheus.collector import to_metric
from django_durable_streams.contrib.prometheus.views import MetricsView
from django_durable_streams.engine.numbers import numbers_for
from django_durable_streams.runtime.counting import BatchNumbers
from django_durable_streams.server import request_numbers
from django_durable_streams.store.operations import Commit
from django_durable_streams.subscriptions.lag import Lag
from tests.admin.pages import client_of, staff

TOKEN = "a-token-of-some-length"

urlpatterns = [
    path("metrics", MetricsView.as_view(token=TOKEN)),
    path("for-staff", MetricsView.as_view()),
    path("with-lags", MetricsView.as_view(token=TOKEN, lag_seconds=60)),
]

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]


@pytest.fixture(autouse=True)
def _registered() -> None:
    registration.register()


def scrape(target: str = "/metrics", **headers: str) -> Any:
    return Client().get(target, headers={"Authorization": f"Bearer {TOKEN}", **headers})


def samples(text: str) -> dict[tuple[str, frozenset[Any]], float]:
    parse: Any = text_string_to_metric_families
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(text: str, name: str, **labels: str) -> float:
    return samples(text).get((name, frozenset(labels.items())), 0.0)


def test_the_text_has_what_happened() -> None:
    labels = {"database": "default", "origin": "transaction"}
    before = scrape().content.decode()
    numbers_for("default").count([Commit(1, "a", "text/plain", 0, 5, False, ends=[2, 5])], "transaction")
    request_numbers.websocket.add(("subscribe", 200), 3)
    after = scrape().content.decode()
    added = {
        name: value(after, name, **labels) - value(before, name, **labels)
        for name in ("durable_streams_appends_total", "durable_streams_append_bytes_total")
    }
    assert added == {"durable_streams_appends_total": 2, "durable_streams_append_bytes_total": 5}
    subscribed = {"entry_point": "websocket", "operation": "subscribe", "status": "200"}
    name = "durable_streams_requests_total"
    assert value(after, name, **subscribed) - value(before, name, **subscribed) == 3
    assert "python_info" in after  # the metrics of the project and of Python are there too


def test_buckets_grow_to_the_count() -> None:
    batches = BatchNumbers()
    for size in (1, 3, 3, 5000):
        batches.sizes.observe(size)
    numbers_for("default").committers.append(batches)
    text = scrape().content.decode()
    name = "durable_streams_commit_batch_size"
    counts = samples(text).items()
    buckets = [
        count for (metric, labels), count in counts if metric == f"{name}_bucket" and ("database", "default") in labels
    ]
    assert buckets == sorted(buckets)
    assert buckets[-1] == value(text, f"{name}_count", database="default") >= 4
    assert value(text, f"{name}_bucket", database="default", le="4.0") < buckets[-1]
    numbers_for("default").committers.remove(batches)


@pytest.mark.parametrize("target", ["/metrics", "/with-lags"])
def test_the_format_of_openmetrics_is_valid_too(target: str) -> None:
    response = scrape(target, Accept="application/openmetrics-text; version=1.0.0")
    assert response["Content-Type"].startswith("application/openmetrics-text")
    parse: Any = openmetrics.text_string_to_metric_families
    names = {family.name for family in parse(response.content.decode())}
    assert {"durable_streams_appends", "durable_streams_commit_seconds"} <= names


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Bearer wrong", f"bearer {TOKEN}", TOKEN, "Bearer ü"])
def test_others_do_not_see_the_metrics(header: str) -> None:
    response = Client().get("/metrics", headers={"Authorization": header})
    assert (response.status_code, response["WWW-Authenticate"]) == (401, "Bearer")
    assert b"durable_streams" not in response.content


def test_without_a_token_staff_who_may_view_streams_see_the_metrics() -> None:
    assert Client().get("/for-staff").status_code == 403
    assert client_of(staff(name="nobody")).get("/for-staff").status_code == 403
    assert MetricsView.as_view()(RequestFactory().get("/")).status_code == 403  # without a user at all
    response = client_of(staff("view")).get("/for-staff")
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]


def test_a_short_token_is_refused() -> None:
    for token in ("", "short"):
        with pytest.raises(ImproperlyConfigured, match="16 characters"):
            MetricsView.as_view(token=token)


def test_metrics_are_only_read() -> None:
    assert Client().post("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 405


def test_lags_are_queried_at_most_once_in_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    queries = []

    def query(using: str) -> list[Lag]:
        queries.append(using)
        return [Lag('a "quoted"\nname', "consumer", 3, 4711)]

    monkeypatch.setattr(lags, "lags", query)
    collector = lags.LagCollector(60.0)
    text = "".join(str(metric) for metric in [*collector.collect(), *collector.collect()])
    assert queries == ["default"]
    assert "4711" in text


def test_names_of_subscriptions_cannot_break_the_text() -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    class Collected:
        def collect(self) -> Any:
            return map(to_metric, lags.families([Lag('a "quoted"\nname\\', "webhook", 3, 4711)]))

    registry = CollectorRegistry()
    registry.register(Collected())
    text = generate_latest(registry).decode()
    labels = {"subscription": 'a "quoted"\nname\\', "kind": "webhook"}
    assert value(text, "durable_streams_subscription_pending_bytes", **labels) == 4711


def test_lags_are_left_out_while_the_database_fails(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    from django.db import OperationalError

    def query(using: str) -> list[Lag]:
        raise OperationalError("gone")

    monkeypatch.setattr(lags, "lags", query)
    collector = lags.LagCollector(0.0)
    assert [len(metric.samples) for metric in [*collector.collect(), *collector.collect()]] == [0, 0, 0, 0]
    assert caplog.text.count("The lags of subscriptions cannot be queried") == 1


def test_scrapes_do_not_wait_for_each_other_at_a_frozen_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would keep a thread for as long as the database does not answer."""
    asked, answered = Event(), Event()
    results = iter([[Lag("s", "webhook", 1, 2)], []])

    def query(using: str) -> list[Lag]:
        asked.set()
        assert answered.wait(30)
        return next(results)

    monkeypatch.setattr(lags, "lags", query)
    collector = lags.LagCollector(60.0)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(collector._present)
        assert asked.wait(30)
        assert collector._present() == []
        answered.set()
        assert first.result(30) == collector._present() == [Lag("s", "webhook", 1, 2)]
        asked.clear()
        answered.clear()
        collector._expires_at = 0.0
        second = threads.submit(collector._present)
        assert asked.wait(30)
        assert collector._present() == [Lag("s", "webhook", 1, 2)]  # from the query before
        collector._expires_at = 0.0  # the query takes longer than its result would be shown
        assert collector._present() == []
        answered.set()
        assert second.result(30) == []


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=abc",
        "text/plain;version=1.x",
        "text/plain;version=²",
        "application/openmetrics-text;version=1..0;escaping=;q=;;=,,=",
        "text/plain;version=" + "9" * 5000,
    ],
)
def test_an_odd_accept_header_gets_a_format_that_is_valid(accept: str) -> None:
    response = scrape(Accept=accept)
    assert response.status_code == 200
    assert b"# HELP durable_streams_requests" in response.content


def test_the_collector_is_registered_once() -> None:
    registration.register()
    text = [metric.name for metric in REGISTRY.collect()]
    assert text.count("durable_streams_appends") == 1


@override_settings(MIDDLEWARE=[])
def test_a_project_without_sessions_may_have_the_endpoint() -> None:
    assert scrape().status_code == 200
