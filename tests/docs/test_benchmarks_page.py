"""The page on benchmarks compares with Electric's server as the programs do: rows, limits and commands are theirs."""

import re

import pytest

from benchmarks import __main__ as benchmarks_main
from benchmarks import alternatives, ds_bench, production, targets
from benchmarks.rows import BESIDE_ELECTRIC, ROWS, Better, select
from tests.docs.pages import ROOT, section, table, tables

PAGE = ROOT / "docs" / "benchmarks.md"
PRODUCTION_SECTION = "In the shape of production"
ROWS_SECTION, GENERATOR_SECTION = "Beside Electric's server", "Electric's load generator"
ARROWS = {Better.HIGHER: "↑", Better.LOWER: "↓"}


def number(cell: str) -> float:
    """The number at the beginning of a cell."""
    digits = re.match(r"[\d.,]+", cell)
    assert digits is not None, cell
    return float(digits[0].replace(",", ""))


def arguments(title: str, program: str) -> list[str]:
    """The arguments of the section's command."""
    text = " ".join(section(PAGE, title).split())
    (command,) = re.findall(rf"`[A-Z_=/. a-z-]*python -m {re.escape(program)}( [^`]*)?`", text)
    return str(command).split()


def check_ratios(lines: list[list[str]]) -> None:
    """The ratio of each line is that of its two figures, which are rounded."""
    for line in lines:
        ours, theirs, ratio = (number(cell) for cell in line[2:5])
        assert ratio == pytest.approx(ours / theirs, rel=0.02, abs=0.006), line


def test_the_shape_of_production_has_all_rows_and_limits() -> None:
    direct, behind_nginx, ratios = tables(section(PAGE, PRODUCTION_SECTION))
    titles = [f"{row.title}, {row.unit}" for row in production.ROWS]
    assert [line[0] for line in direct] == [line[0] for line in behind_nginx] == titles
    cells = [[*ours[1:], *theirs[1:]] for ours, theirs in zip(direct, behind_nginx, strict=True)]
    columns = dict(zip((target.key for target in production.make_targets()), zip(*cells, strict=True), strict=True))
    keys = [row.key for row in production.ROWS]
    assert len(ratios) == len(production.LIMITS)
    for line, limit in zip(ratios, production.LIMITS, strict=True):
        ours = number(columns[limit.target][keys.index(limit.row)])
        theirs = number(columns[limit.against][keys.index(limit.against_row or limit.row)])
        assert number(line[2]) == pytest.approx(ours / theirs, rel=0.02), line
        held = ours / theirs >= limit.least if limit.least is not None else ours / theirs <= (limit.most or 0)
        assert line[3] == ("holds" if held else "**missed**"), line


def test_the_alternatives_are_those_of_the_program() -> None:
    lines = table(section(PAGE, "Beside what a Django project would take instead"))
    assert [line[0] for line in lines] == [shape.target.title for shape in alternatives.shapes()]
    others = (ROOT / "benchmarks" / "alternatives.txt").read_text()
    assert {"django-eventstream", "channels-redis"} <= set(re.findall(r"^[a-z-]+", others, re.MULTILINE))


def test_the_rows_are_those_with_a_limit() -> None:
    options = benchmarks_main.parse(arguments(ROWS_SECTION, "benchmarks"))
    chosen = [target.key for target in benchmarks_main.choose_targets(options)]
    assert chosen == [targets.SQLITE, targets.ELECTRIC]
    assert {row.key for row in select(options.rows)} >= BESIDE_ELECTRIC.keys()
    shown = [line[:2] for line in table(section(PAGE, ROWS_SECTION))]
    assert shown == [[f"{row.title} {ARROWS[row.better]}", row.unit] for row in select(options.rows)]


def test_the_limits_are_those_of_the_program_and_the_verdicts_are_true() -> None:
    lines = table(section(PAGE, ROWS_SECTION))
    check_ratios(lines)
    for line in lines:
        (row,) = [row for row in ROWS if f"{row.title} {ARROWS[row.better]}" == line[0]]
        hold = BESIDE_ELECTRIC.get(row.key)
        if hold is None:
            assert line[5:] == ["–", "–"]
            continue
        higher = row.better is Better.HIGHER
        bound = hold.factor if higher else 1 / hold.factor
        assert line[5] == f"{'≥' if higher else '≤'} {bound:.2g}"
        ratio = number(line[2]) / number(line[3])
        held = ratio >= bound if higher else ratio <= bound
        assert line[6] == ("holds" if held else "**missed**"), line


def test_the_styles_are_those_of_the_program() -> None:
    options = ds_bench.parse(arguments(GENERATOR_SECTION, "benchmarks.ds_bench"))
    assert [target.key for target in options.targets] == [targets.SQLITE, targets.ELECTRIC]
    lines = table(section(PAGE, GENERATOR_SECTION))
    figures = [figure for style in options.styles for figure in style.figures]
    assert [line[:2] for line in lines] == [[f"{each.title} {ARROWS[each.better]}", each.unit] for each in figures]
    check_ratios(lines)


def test_the_measured_server_is_named_with_its_flags() -> None:
    text = " ".join(section(PAGE, ROWS_SECTION).split())
    assert re.search(r"version \d+\.\d+\.\d+, commit `[0-9a-f]{12}`", text)
    assert f"`{' '.join(targets.Electric.FLAGS)}`" in text
    assert "`ELECTRIC_SERVER=" in text
    generator = " ".join(section(PAGE, GENERATOR_SECTION).split())
    assert re.search(r"commit `[0-9a-f]{12}`", generator)
    assert "DS_BENCH=" in generator
