"""An installation that fails or is ended says why, and the next one mends it. A script stands for the Python."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tools.install_packages import ROOT, UNFINISHED

TOOL = ROOT / "tools" / "install_packages.py"
PYTHON = """#!/bin/sh
cd {folder}
echo "$*" >> log
while read -r pattern; do case "$*" in $pattern) echo "no: $*" >&2; exit 1;; esac; done < fails
case "$*" in
*"config list") cat config;;
*"uv pip install"*) echo begin >> log; sleep $(cat seconds); echo end >> log;;
esac
"""
FORCED = ("--reinstall", "--force-reinstall")


class Environment:
    """An environment whose Python writes down what it is told, and fails at what it is told to fail at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "env"
        for name, text in (("log", ""), ("fails", ""), ("config", ""), ("seconds", "0")):
            (folder / name).write_text(text)
        (self.path / "bin").mkdir(parents=True)
        self.python = self.path / "bin" / "python"
        self.python.write_text(PYTHON.format(folder=folder))
        self.python.chmod(0o755)

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, str(TOOL), str(self.path), "-e", ".[dev]"]
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def install(self, *fails: str) -> tuple[int, str]:
        """Install packages, while calls that match one of the patterns fail. Return the status and the messages."""
        (self.folder / "fails").write_text("".join(f"{pattern}\n" for pattern in fails))
        (self.folder / "log").write_text("")
        process = self.start()
        _, messages = process.communicate(timeout=60)
        return process.returncode, messages

    @property
    def installs(self) -> list[str]:
        """The installations of the packages: by which program, and how."""
        lines = (self.folder / "log").read_text().splitlines()
        return [
            " ".join([line.split()[1], *(option for option in FORCED if f" {option}" in line)])
            for line in lines
            if " -e .[dev]" in line
        ]


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


@pytest.mark.parametrize(
    ("fails", "installs", "message"),
    [
        ((), ["uv"], ""),
        (("*--only-binary*",), ["pip"], "no: -m pip"),
        (("-m uv *",), ["uv", "pip"], "uv has failed, so pip installs the packages"),
    ],
)
def test_pip_installs_where_uv_is_missing_or_fails(
    environment: Environment, fails: tuple[str, ...], installs: list[str], message: str
) -> None:
    status, messages = environment.install(*fails)
    assert (status, environment.installs) == (0, installs)
    assert message in messages
    assert environment.install()[0] == 0
    assert environment.installs == ["uv"]


@pytest.mark.parametrize("option", ["global.index-url='x'", ":env:.extra-index-url='x'", "install.no-index='1'"])
def test_pip_installs_from_an_index_of_its_own(environment: Environment, option: str) -> None:
    (environment.folder / "config").write_text(option)
    assert environment.install()[0] == 0
    assert environment.installs == ["pip"]


@pytest.mark.parametrize("program", ["uv", "pip"])
def test_packages_are_installed_again_after_a_failure(environment: Environment, program: str) -> None:
    """They may be there in part, and installers look only at whether they are there."""
    if program == "pip":
        (environment.folder / "config").write_text("global.index-url='x'")
    for _ in range(2):
        status, messages = environment.install("*-e .[[]dev]*")
        assert (status, "no: " in messages) == (1, True)
    assert environment.install()[0] == 0
    assert environment.installs == [f"{program} {'--reinstall' if program == 'uv' else '--force-reinstall'}"]
    assert environment.install()[0] == 0
    assert environment.installs == [program]


def test_packages_are_installed_again_after_the_process_was_killed(environment: Environment) -> None:
    (environment.folder / "seconds").write_text("0.5")
    process = environment.start()
    while "begin" not in (environment.folder / "log").read_text():
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert (environment.path / UNFINISHED).exists()
    (environment.folder / "seconds").write_text("0")
    assert environment.install()[0] == 0
    assert environment.installs == ["uv --reinstall"]


def test_two_installations_wait_for_each_other(environment: Environment) -> None:
    (environment.folder / "seconds").write_text("0.3")
    processes = [environment.start() for _ in range(3)]
    for process in processes:
        process.communicate(timeout=60)
    marks = [line for line in (environment.folder / "log").read_text().splitlines() if line in ("begin", "end")]
    assert marks == ["begin", "end"] * 3
    assert {process.returncode for process in processes} == {0}


def test_an_environment_without_pip_gets_it(environment: Environment) -> None:
    assert environment.install("-c import pip")[0] == 0
    assert "-m ensurepip --default-pip" in (environment.folder / "log").read_text()


def test_an_environment_whose_python_was_removed_is_made_anew(tmp_path: Path) -> None:
    environment = tmp_path / "env"
    python = environment / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(tmp_path / "removed")
    (environment / "old").touch()
    done = subprocess.run([sys.executable, str(TOOL), str(environment)], capture_output=True, text=True, check=True)
    assert "does not run, so" in done.stderr
    assert not (environment / "old").exists()
    subprocess.run([python, "-c", "import pip"], check=True)


@pytest.mark.parametrize("python", ["missing", "removed", "without pip", "good"])
def test_make_installs_where_the_python_of_the_environment_is_no_good(tmp_path: Path, python: str) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").touch()
    link = tmp_path / ".venv" / "bin" / "python"
    link.parent.mkdir(parents=True)
    for mark in (".made", ".installed-example"):
        (tmp_path / ".venv" / mark).touch()
    if python != "missing":
        link.symlink_to(
            {"removed": str(tmp_path / "removed"), "without pip": "/bin/false", "good": "/bin/true"}[python]
        )
    done = subprocess.run(["make", "-n", "run"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ("install_packages.py .venv\n" in done.stdout) == (python != "good")
    assert done.stderr == ""
