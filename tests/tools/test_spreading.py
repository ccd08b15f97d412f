"""Processes begin with slow tests, but for one of them, and no test is lost."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.spreading import SLOW, TESTS, directory_of, spread


def items(**counts: int) -> list[Any]:
    return [SimpleNamespace(path=TESTS / name / f"test_{n}.py") for name, count in counts.items() for n in range(count)]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_parts_of_all_processes_but_one_begin_with_what_is_slow(workers: int) -> None:
    tests = items(access=50, browser=10, cluster=10, projects=5, server=60, simulation=10)
    result = spread(tests, workers)
    assert sorted(map(id, result)) == sorted(map(id, tests))
    size = len(tests) / workers
    parts = [[directory_of(item) for item in result[round(n * size) : round((n + 1) * size)]] for n in range(workers)]
    slow = [[name for name in part if name in SLOW] for part in parts]
    assert all(part[: len(names)] == names for part, names in zip(parts, slow, strict=True))
    assert [bool(names) for names in slow] == ([True] * (workers - 1) + [False] if workers > 1 else [True])


def test_tests_of_a_directory_stay_together() -> None:
    result = spread(items(access=50, browser=10, cluster=10, projects=5), 3)
    names = [directory_of(item) for item in result]
    for name in ("browser", "cluster", "projects"):
        first = names.index(name)
        assert set(names[first : first + names.count(name)]) == {name}
