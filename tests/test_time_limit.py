"""A run that has a limit of time begins no tests after it, and says so."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.time_limit import end_of_run, skip_if_over

ROOT = Path(__file__).resolve().parent.parent
SHORT_TEST = "test_without_a_limit_all_tests_begin"


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


@pytest.mark.parametrize(("seconds", "status"), [(3600, 0), (-1, 1)])
def test_a_run_whose_time_was_over_before_its_first_test_fails(seconds: int, status: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::{SHORT_TEST}"]
    with tempfile.TemporaryDirectory() as folder:  # the note about unfinished runs is for this run's own tests
        patch = f"import pathlib, tests.time_limit as limit; limit.UNFINISHED = pathlib.Path({folder!r}) / 'unfinished'"
        (Path(folder) / "elsewhere.py").write_text(patch)
        env = {
            **os.environ,
            "TESTS_END": str(time.time() + seconds),
            "PYTEST_PLUGINS": "elsewhere",
            "PYTHONPATH": f"{folder}:{ROOT}",
        }
        run = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True)
    assert run.returncode == status, run.stdout + run.stderr


@pytest.mark.parametrize(("status", "repeats"), [(0, False), (1, True), (2, False), (3, False), (137, False)])
def test_only_tests_that_have_failed_run_again(tmp_path: Path, status: int, repeats: bool) -> None:
    """A run that broke off has left tests out. The failed tests of an earlier run say nothing about it."""
    pytest_script = tmp_path / "pytest"
    pytest_script.write_text(f"#!/bin/sh\ntouch {tmp_path}/repeated\n")
    pytest_script.chmod(0o700)
    rule = f"--eval=broken: ; (exit {status}) || $(ALONE)"
    make = subprocess.run(["make", "-s", rule, "broken", f"BIN={tmp_path}"], cwd=ROOT, check=False, capture_output=True)
    assert (tmp_path / "repeated").exists() == repeats
    assert (make.returncode == 0) == (status in (0, 1))
