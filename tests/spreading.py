"""The order of tests that run side by side: all processes but one begin with their share of the slow directories.

Slow tests at the end would run while other processes have nothing left to do. They also wait for most of their time:
servers start, and are killed, and times pass. So the last process has quick tests from the beginning, which use the
processor meanwhile. Tests of a directory share servers, so they stay together. Processes that are done take quick
tests from others.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

SLOW = {
    "cluster": 450,
    "projects": 250,
    "hostile": 250,
    "simulation": 150,
    "entry_points": 150,
    "conformance": 150,
    "browser": 150,
    "docs": 60,
}
"""Directories, and about how many seconds each takes."""


def spread(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return the tests in an order whose parts of equal length begin with what is slow, but for the last part."""
    quick: list[pytest.Item] = []
    by_directory: dict[str, list[pytest.Item]] = {name: [] for name in SLOW}
    for item in items:
        by_directory.get(directory_of(item), quick).append(item)
    slow: list[list[pytest.Item]] = [[] for _ in range(workers)]
    seconds = [0] * max(workers - 1, 1)
    for name, items_of_directory in by_directory.items():
        lightest = seconds.index(min(seconds))
        slow[lightest] += items_of_directory
        seconds[lightest] += SLOW[name]
    result: list[pytest.Item] = []
    for number, part in enumerate(slow, 1):
        missing = max(len(items) * number // workers - len(result) - len(part), 0)
        result += [*part, *quick[:missing]]
        del quick[:missing]
    return result + quick


def directory_of(item: pytest.Item) -> str:
    """Return the directory of a test below this one, or its file where it has none."""
    return _directory_of(item.path)


@functools.cache
def _directory_of(path: Path) -> str:
    return path.relative_to(TESTS).parts[0]
