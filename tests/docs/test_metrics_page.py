"""docs/metrics.md has every metric with its labels, and the dashboard asks only for metrics that exist."""

import importlib
import json
import re
from typing import Any

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from django_durable_streams.admin.process_view import KINDS
from django_durable_streams.contrib.prometheus import lags
from django_durable_streams.contrib.prometheus.families import PREFIX, Family, Kind, families
from django_durable_streams.contrib.prometheus.views import MIN_TOKEN_LENGTH
from django_durable_streams.engine import housekeeping_tasks, key_compaction_task, retention_tasks
from django_durable_streams.engine.housekeeping_tasks import HousekeepingTask, SweepTask
from django_durable_streams.engine.live_reader import LiveReader
from django_durable_streams.engine.numbers import COMMITTER, MESSAGE, OWN, TRANSACTION
from django_durable_streams.models import Subscription
from django_durable_streams.server import request_numbers
from django_durable_streams.server.uvicorn.handed_over import Reason
from django_durable_streams.stats import process_stats
from django_durable_streams.subscriptions.lag import MAX_LINKS, MAX_SUBSCRIPTIONS
from tests.docs.pages import ROOT, blocks, code, section, table

PAGE = ROOT / "docs" / "metrics.md"
BASES = (HousekeepingTask, SweepTask, retention_tasks.PatternTask)
FAST_PATH = ROOT / "docs" / "deployment" / "fast-path.md"
DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())


def all_families() -> dict[str, Family]:
    """All metrics by the names that Prometheus shows."""
    everything = [*families(process_stats()), *lags.families([])]
    return {family.name + ("_total" if family.kind is Kind.COUNTER else ""): family for family in everything}


def values_of(label: str) -> set[str]:
    """The values that the page gives for a label."""
    _, _, labels = section(PAGE, "Metrics").partition("| Label |")
    (values,) = [row[1] for row in table(f"| Label |{labels}") if row[0] == label]
    return set(re.findall(r"`([^`]+)`", values))


def test_the_table_has_every_metric_with_its_labels() -> None:
    rows = table(section(PAGE, "Metrics"))
    shown = {PREFIX + code(name): (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert len(shown) == len(rows)
    assert shown == {name: (family.kind.value, family.labels) for name, family in all_families().items()}


def test_values_of_labels_are_those_of_the_code() -> None:
    assert values_of("`entry_point`") == {"fast_path", "asgi", "urls", "websocket"}
    own = {"long_poll", "sse", "control", "subscribe", request_numbers.OTHER}
    assert values_of("`operation`") == {*request_numbers.OPERATIONS.values(), *own}
    assert values_of("`origin`") == {COMMITTER, TRANSACTION}
    assert values_of("`source`") == {OWN, MESSAGE}
    assert values_of("`kind` of live readers") == set(KINDS) == reader_kinds(LiveReader)
    assert values_of("`kind` of subscriptions") == set(Subscription.Kind.values)
    assert {code(row[0]) for row in table(FAST_PATH.read_text())} == set(Reason)
    tasks = {
        name.removesuffix("Task").lower()
        for module in (housekeeping_tasks, retention_tasks, key_compaction_task)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, HousekeepingTask) and kind not in BASES
    }
    assert values_of("`task`") == tasks


def reader_kinds(base: type[LiveReader]) -> set[str]:
    """The kinds of live readers in the package."""
    for module in ("api.tail", "server.handlers", "server.pages.reader", "server.websocket.subscription"):
        importlib.import_module(f"django_durable_streams.{module}")
    own = {base.kind} if base.__module__.startswith("django_durable_streams") else set()
    return {*own, *(kind for child in base.__subclasses__() for kind in reader_kinds(child))} - {LiveReader.kind}


def test_the_numbers_are_those_of_the_code() -> None:
    text = " ".join(PAGE.read_text().split())
    assert f"It has {MIN_TOKEN_LENGTH} characters or more" in text
    assert f"the first {MAX_SUBSCRIPTIONS} subscriptions, and at {MAX_LINKS:,} pending streams of each" in text


def test_the_example_in_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in blocks(PAGE, "python") if "process_stats" in block.text]
    exec(block.text, {})
    assert capsys.readouterr().out.endswith("}\n")


def test_the_urls_have_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [block for block in blocks(PAGE, "python") if "MetricsView" in block.text]
    monkeypatch.setenv("METRICS_TOKEN", "a-token-of-some-length")
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    request: HttpRequest = RequestFactory().get("/metrics")
    assert scope["urlpatterns"][0].callback(request).status_code == 401


def test_attributes_of_records_are_those_of_the_code() -> None:
    source = "".join(path.read_text() for path in (ROOT / "django_durable_streams").rglob("*.py"))
    for row in table(section(PAGE, "Logs")):
        assert f'"{code(row[0])}":' in source, row[0]


class TestDashboard:
    EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

    @pytest.mark.parametrize("expression", EXPRESSIONS)
    def test_it_asks_for_metrics_and_labels_that_exist(self, expression: str) -> None:
        existing = all_families()
        names = re.findall(rf"\b({PREFIX}\w+)\b", expression)
        assert names
        labels = {"job", "instance"}
        for name in names:
            family = existing.get(name) or existing[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert (name not in existing) == (family.kind is Kind.HISTOGRAM)
            labels |= {*family.labels, *(["le"] if name.endswith("_bucket") else [])}
        for group in re.findall(r"by \(([^)]*)\)", expression):
            assert set(group.split(", ")) <= labels
        assert set(re.findall(r"[{,]\s*(\w+)=", expression)) <= labels
        assert expression.count("(") == expression.count(")")

    def test_it_shows_every_metric(self) -> None:
        text = " ".join(self.EXPRESSIONS)
        left_out = {f"{PREFIX}{name}" for name in (
            "waiting_bytes", "cache_bytes", "cache_segments", "housekeeping_steps_total", "housekeeping_failures_total",
            "read_batch_size", "subscription_pending_streams",
        )}  # fmt: skip
        assert {name for name in all_families() if name not in text} == left_out

    def test_panels_do_not_overlap_and_have_ids_of_their_own(self) -> None:
        panels = DASHBOARD["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
        assert len(set(places)) == len(places)
        assert {(panel["gridPos"]["w"], panel["gridPos"]["h"]) for panel in panels} == {(12, 8)}

    def test_it_names_no_data_source_of_its_own(self) -> None:
        sources = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
        assert sources == {"${datasource}"}
        assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource", "job", "instance"]
