"""Marks tell what a tracing function tells: which lines ran, and which way each branch went."""

import ast
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage
from coverage.parser import PythonParser

from tests import measuring
from tests.marking import RAN, marked
from tests.measuring import MeasuredLoader, arcs_of

SOURCE = '''
"""A docstring."""
from __future__ import annotations
import asyncio
import contextlib
import functools


class Error(Exception):
    """Nothing but text."""


@functools.cache
@functools.lru_cache
def choose(value):
    """Text first."""
    if value > 2:
        return "large"
    elif value == 2:
        return "two"
    if value < -5:
        pass
    for number in range(value):
        if number == 1:
            break
        continue
    else:
        value += 1
    while value < 1:
        value += 1
    return [one for one in range(value) if one]


def fail(value):
    try:
        if value:
            raise Error(
                value,
            )
        value = 1
    except ValueError:
        return 1
    except Error:
        return 2
    else:
        value = 2
    finally:
        value = 3
    return value


def match(value):
    match value:
        case 1 | 2:
            result = "few"
        case [first, *_] if first:
            result = "list"
        case {"key": found}:
            result = found
        case str():
            return "text"
    match value:
        case 1:
            return result
        case _:
            result = 0


def manage(values):
    with contextlib.suppress(KeyError):
        values["absent"]
    with contextlib.suppress(Error), contextlib.nullcontext() as nothing:
        return nothing
    return values


async def later(values):
    global LATER
    LATER = 0

    async def each():
        for value in values:
            yield value

    async for value in each():
        LATER += value
    async with contextlib.AsyncExitStack():
        await asyncio.sleep(0)


class Outer:
    number = 1

    @property
    def twice(self):
        def inner():
            return self.number * 2

        return inner()
'''

CALLS = [
    "",
    "choose(5)",
    "choose(2)",
    "choose(1)",
    "choose(0)",
    "choose(-9)",
    "fail(0)",
    "fail(1)",
    "match(1)",
    "match([1])",
    "match([0])",
    "match({'key': 1})",
    "match('text')",
    "manage({})",
    "asyncio.run(later([1, 2]))",
    "asyncio.run(later([]))",
    "Outer().twice",
]


def lines_and_missing_branches(path: Path, arcs: set[tuple[int, int]]) -> tuple[set[int], set[tuple[int, int]]]:
    """Return the statements that ran, and what did not of the branches of those, as coverage.py sees it."""
    parser = PythonParser(filename=str(path))
    parser.parse_source()
    lines = {line for arc in arcs for line in arc if line > 0} & parser.statements
    several = {line for line, exits in parser.exit_counts().items() if exits > 1}
    return lines, {arc for arc in parser.arcs() if arc[0] in several & lines and arc not in arcs}


@pytest.mark.parametrize("call", CALLS)
def test_marks_tell_what_a_trace_tells(tmp_path: Path, call: str) -> None:
    path = tmp_path / "measured.py"
    path.write_text(SOURCE)
    tree = ast.parse(SOURCE)
    marks = marked(tree)
    ran = [False] * len(marks)
    names: dict[str, Any] = {"__name__": "measured", RAN: ran}
    exec(compile(tree, str(path), "exec", dont_inherit=True), names)
    result = eval(call, names) if call else None
    parser = PythonParser(filename=str(path))
    parser.parse_source()
    by_marks = arcs_of(
        parser.arcs(), parser.first_line, [mark for mark, has_run in zip(marks, ran, strict=True) if has_run]
    )

    traced_names: dict[str, Any] = {"__name__": "measured"}
    traced = Coverage(branch=True, include=[str(path)], data_file=None, config_file=False)
    with traced.collect():
        exec(compile(SOURCE, str(path), "exec", dont_inherit=True), traced_names)
        assert (eval(call, traced_names) if call else None) == result
    arcs = {(parser.first_line(a), parser.first_line(b)) for a, b in traced.get_data().arcs(str(path)) or ()}
    assert lines_and_missing_branches(path, by_marks) == lines_and_missing_branches(path, arcs)


def test_code_with_marks_is_kept_for_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "CODE", tmp_path / "kept")
    monkeypatch.setattr(measuring, "_measured", {})
    path = tmp_path / "measured.py"
    path.write_text(SOURCE)
    loader = MeasuredLoader("measured", str(path))
    first = loader.get_code("measured")
    marks, _ = measuring._measured.pop(str(path))

    with monkeypatch.context() as patch:
        patch.setattr(measuring, "marked", None)  # nobody can mark anything
        assert loader.get_code("measured") == first
    assert measuring._measured.pop(str(path)) == (marks, [False] * len(marks))

    path.write_text(SOURCE + "more = 1\n")
    assert loader.get_code("measured") != first
    assert len(measuring._measured[str(path)][0]) == len(marks) + 1
