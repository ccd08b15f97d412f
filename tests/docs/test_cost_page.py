"""The page on cost has the numbers and the results of the model, and its calculator computes the same."""

import json
import subprocess

import pytest

from benchmarks import cost_model
from benchmarks.cost_model import POSTGRESQL, SQLITE, Load, Numbers, Plan, plan
from django_durable_streams.store.write import row_cache
from tests.docs.pages import ROOT, section, table

PAGE = ROOT / "docs" / "explanation" / "cost.md"
SCRIPT = ROOT / "docs" / "_site" / "static" / "cost.js"
COLUMNS = (SQLITE, POSTGRESQL)

LOADS = [
    Load(),
    Load(streams=10_000, readers=10_000, appends=1000, reads=1000, events=10_000),
    Load(readers=10_001),
    Load(appends=16_666),
    Load(appends=16_667, bytes=1000),
    Load(appends=1_000_000, events=3),
    Load(streams=1e8, readers=1e8, appends=1e8, reads=1e8, events=1e8, bytes=0),
]


def test_the_numbers_are_those_of_the_model() -> None:
    rows = table(section(PAGE, "The numbers"))
    assert len(rows) == len(Numbers._fields)
    for column, numbers in enumerate(COLUMNS, 1):
        assert tuple(float(row[column]) for row in rows) == numbers


def test_the_words_are_those_of_the_model() -> None:
    text = " ".join(PAGE.read_text().split())
    assert cost_model.HEADROOM == 3
    assert f"one worker for {cost_model.READERS_PER_WORKER:,} readers" in text
    assert f"planned with {cost_model.CORES_PER_DATABASE} cores" in text
    assert f"the {row_cache.MAX_STREAMS:,} rows that a committer caches" in text


def number(value: float) -> str:
    """Return a number with two digits at least, as the page has it."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def cell(load: Load, numbers: Numbers) -> str:
    result = plan(numbers, load)
    if load.streams:
        return f"{number(result.disk_gb)} GB"
    workers = f"{result.workers:,} worker{'s' if result.workers > 1 else ''}"
    if load.readers:
        return f"{workers}, {number(result.memory_gb)} GB"
    databases = f"{result.databases:,} database{'s' if result.databases > 1 else ''}"
    return f"{workers}, {databases}, {number(result.growth_gb)} GB a day"


def test_the_results_are_those_of_the_model() -> None:
    shown = {row[0]: row[1:] for row in table(section(PAGE, "What the model says"))}
    expected = {
        f"{count:,} {title}": [cell(Load(**{field: count}), numbers) for numbers in COLUMNS]
        for field, title in (("streams", "streams"), ("readers", "readers"), ("appends", "appends a second"))
        for count in (10_000, 1_000_000, 100_000_000)
    }
    assert shown == expected


@pytest.mark.parametrize("numbers", COLUMNS, ids=["SQLite", "PostgreSQL"])
def test_the_calculator_computes_the_same(numbers: Numbers) -> None:
    program = """
        await import(process.argv[1])
        const [numbers, loads] = JSON.parse(process.argv[2])
        console.log(JSON.stringify(loads.map((load) => Object.values(costModel.plan(numbers, load)))))
    """
    numbers_and_loads = json.dumps([numbers, [load._asdict() for load in LOADS]])
    done = subprocess.run(
        ["node", "--input-type=module", "-e", program, SCRIPT.as_uri(), numbers_and_loads],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [Plan(*values) for values in json.loads(done.stdout)] == [plan(numbers, load) for load in LOADS]


def test_the_site_has_the_calculator_and_it_loads_nothing() -> None:
    assert '"cost.js"' in (ROOT / "docs" / "conf.py").read_text()
    script = SCRIPT.read_text()
    assert not any(word in script for word in ("http:", "https:", "fetch(", "XMLHttpRequest", "import "))
    assert "section#calculator" in script
    assert section(PAGE, "Calculator")
