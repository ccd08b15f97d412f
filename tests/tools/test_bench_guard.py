"""The performance guard compares medians of ratios with the stored ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks_main
from benchmarks import guard, targets
from benchmarks.results import Sample


def samples(number: int, ceiling: float, append: float, latency: float) -> list[Sample]:
    return [
        Sample(number, targets.CEILING, "append", ceiling),
        Sample(number, targets.SQLITE, "append", append),
        Sample(number, targets.SQLITE, "sse-500-p50", latency),
    ]


def test_a_ratio_is_that_of_the_same_round() -> None:
    measured = guard.ratios([*samples(0, 10_000, 20_000, 5), *samples(1, 5_000, 10_000, 10)])
    assert measured == {"append": 2.0, "sse-500-p50": pytest.approx(0.02)}


def test_samples_with_errors_do_not_count() -> None:
    failed = Sample(0, targets.SQLITE, "append", 9_000, "a timeout")
    assert guard.ratios([Sample(0, targets.CEILING, "append", 10_000), failed]) == {}


@pytest.mark.parametrize(("factor", "holds"), [(0.84, False), (0.86, True), (1.0, True), (2.0, True)])
def test_a_loss_of_more_than_15_percent_fails(factor: float, holds: bool) -> None:
    stored = {row.key: 1.5 for row in guard.GUARDED}
    lines, result = guard.compare({**stored, "create": 1.5 * factor}, stored)
    assert result is holds
    assert [line.split()[0] for line in lines if "LOST" in line] == ([] if holds else ["create"])


def test_a_row_that_was_not_measured_fails() -> None:
    stored = {row.key: 1.0 for row in guard.GUARDED}
    assert guard.compare({}, stored)[1] is False


def test_every_guarded_row_has_a_stored_ratio() -> None:
    stored = json.loads(guard.STORED.read_text())["ratios"]
    assert stored.keys() == {row.key for row in guard.GUARDED}
    assert all(ratio > 0 for ratio in stored.values())


@pytest.mark.parametrize("others", ["", "\n## Other measurements\n\nOf another program.\n"])
def test_a_new_report_keeps_the_measurements_of_other_programs(
    others: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "benchmarks.md"
    monkeypatch.setattr(benchmarks_main, "DOCUMENT", document)
    document.write_text(f"# Benchmarks\n\nThe last report.\n{others}")
    benchmarks_main.write("# Benchmarks\n\nThe new report.\n")
    assert document.read_text() == f"# Benchmarks\n\nThe new report.\n{others}"
