"""The time after which a run begins no more tests, where a machine is too slow for all of them.

`TESTS_END` in the environment is that time, in seconds since 1970. `.ci/run` sets it, because a job that takes longer
than an hour is ended, and then nothing of it counts. Without the variable all tests run.
"""

import os
import time
from pathlib import Path

import pytest

from tests.measuring import FOLDER

UNFINISHED = FOLDER / "unfinished"
"""This file is there if a run has left out tests. Then it says nothing about the coverage of all tests."""


def skip_if_over(end: float, unfinished: Path) -> None:
    """Skip the current test, and note that, if the time of the run is over.

    Args:
        end: in seconds since 1970.
        unfinished: the file that notes it.
    """
    if time.time() > end:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        pytest.skip("the time of this run is over")


def fail_if_nothing_passed(session: pytest.Session, end: float) -> None:
    """Let a run fail whose time was over before any of its tests has passed: it has checked nothing.

    Args:
        session: of the run. Processes of pytest-xdist have no report of their own, and are left alone.
        end: in seconds since 1970.
    """
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    is_worker = hasattr(session.config, "workerinput")
    if reporter is None or is_worker or time.time() <= end or reporter.stats.get("passed"):
        return
    if session.exitstatus == pytest.ExitCode.OK and session.testscollected:
        reporter.write_line("The time of this run was over before its first test.", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def end_of_run() -> float:
    """Return when the run begins no more tests, in seconds since 1970."""
    return float(os.environ.get("TESTS_END") or "inf")
