"""The Python of the environment is the one that `python3` names, unless the system's takes far less time."""

import sys
import sysconfig
from pathlib import Path

import pytest

from tools.choose_python import choose, try_out


def python(folder: Path, name: str, output: str) -> str:
    """Make a script that stands for a Python, and answers a trial with this output."""
    script = folder / name
    script.write_text(f"#!/bin/sh\necho {output}\n")
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("first", "system", "chosen"),
    [
        ("3 11 1 0.0010", "3 11 1 0.0005", "system"),
        ("3 14 1 0.0010", "3 11 1 0.0005", "system"),
        ("3 11 1 0.0010", "3 13 1 0.0008", "first"),
        ("3 11 1 0.0005", "3 11 1 0.0010", "first"),
        # Too old; without the headers that drivers of databases are compiled with; without ensurepip.
        ("3 11 1 0.0010", "3 10 1 0.0005", "first"),
        ("3 11 1 0.0010", "3 11 0 0.0005", "first"),
        ("3 11 1 0.0010", "; exit 1", "first"),
        # What is missing there is told by the tool that looks for it.
        ("; exit 1", "3 11 1 0.0005", "first"),
    ],
)
def test_the_systems_python_is_taken_where_it_is_much_faster(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], first: str, system: str, chosen: str
) -> None:
    path = choose(python(tmp_path, "first", first), python(tmp_path, "system", system))
    assert Path(path).name == chosen
    message = capsys.readouterr().err
    assert ("takes 50% of the time of" in message) == (chosen == "system") == bool(message)


def test_a_system_without_python_is_no_error(tmp_path: Path) -> None:
    first = python(tmp_path, "first", "3 11 1 0.001")
    assert choose(first, str(tmp_path / "missing")) == first


def test_a_trial_tells_the_version_and_the_time_of_a_python() -> None:
    tried = try_out(sys.executable)
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        assert tried is None
        return
    assert tried is not None
    version, seconds = tried
    assert version == sys.version_info[:2]
    assert 0 < seconds < 10
