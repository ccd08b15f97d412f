"""A run that has a limit of time begins no tests after it, and says so."""

import time
from pathlib import Path

import pytest

from tests.time_limit import end_of_run, skip_if_over


def test_no_test_begins_after_the_end(tmp_path: Path) -> None:
    unfinished = tmp_path / "coverage" / "unfinished"
    with pytest.raises(pytest.skip.Exception, match="the time of this run is over"):
        skip_if_over(time.time() - 1, unfinished)
    assert unfinished.exists()


def test_tests_begin_before_the_end(tmp_path: Path) -> None:
    skip_if_over(time.time() + 60, tmp_path / "unfinished")
    assert not list(tmp_path.iterdir())


def test_without_a_limit_all_tests_begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TESTS_END", raising=False)
    skip_if_over(end_of_run(), tmp_path / "unfinished")
    monkeypatch.setenv("TESTS_END", "17.5")
    assert end_of_run() == 17.5
