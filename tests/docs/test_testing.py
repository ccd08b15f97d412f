"""The examples of docs/testing.md run, with Django's runner and with pytest, and its tables name what there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from django_durable_streams import testing
from django_durable_streams.testing import StreamClient
from tests.docs.pages import ROOT, blocks, section, table

PAGE = ROOT / "docs" / "testing.md"
SECONDS = 120


def run(folder: Path, *command: str) -> str:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "settings",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(params=["in a file", "in memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project with the examples as its tests, on a SQLite database of its own."""
    lines = ["from tests.settings import *"]
    if request.param == "in memory":
        lines.append('DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}')
    (tmp_path / "settings.py").write_text("\n".join(lines) + "\n")
    for number, block in enumerate(blocks(PAGE, "python")):
        name = "conftest.py" if "pytest_plugins" in block.text else f"test_{number}.py"
        (tmp_path / name).write_text(block.text)
    return tmp_path


def test_the_examples_run_with_pytest(folder: Path) -> None:
    examples = sum(
        len(re.findall(r"^ *(?:async )?def test_", block.text, re.MULTILINE)) for block in blocks(PAGE, "python")
    )
    printed = run(folder, "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio")
    assert f"{examples} passed" in printed
    assert examples == 9


def test_the_cases_run_with_djangos_runner(folder: Path) -> None:
    assert "Ran 6 tests" in run(folder, "django", "test", "--pattern", "test_[0-9].py")


def test_the_table_has_every_call() -> None:
    shown = {name for row in table(section(PAGE, "The client")) for name in re.findall(r"client\.(\w+)\(", row[0])}
    own = {name for name in vars(StreamClient) if not name.startswith("_")} - {"request"}
    assert shown == own


def test_what_is_exported_is_explained() -> None:
    text = PAGE.read_text()
    assert {name for name in testing.__all__ if name not in text} == {"EventReader", "Exchange", "Reply"}
