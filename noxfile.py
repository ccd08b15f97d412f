"""The unit tests on every supported Python and Django: `make matrix`, or `nox --list`.

What follows `--` goes to pytest: `nox -s "tests(python='3.13', django='6.1')" -- tests/store`. A Python that the
machine does not have is named and skipped; with CI in the environment it is an error.
"""

import os
import tomllib
from itertools import combinations
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.reuse_existing_virtualenvs = True

# Each Django on the Pythons that it supports.
MATRIX = {
    "5.2": ["3.11", "3.12", "3.13", "3.14"],
    "6.0": ["3.12", "3.13", "3.14"],
    "6.1": ["3.12", "3.13", "3.14"],
}
LOWEST_PYTHON = "3.11"
UNIT_TESTS = ["tests", "-m", "not conformance and not browser and not cluster and not simulation and not package"]


def select_pyenv_versions() -> None:
    """Let pyenv's commands start the newest release of each Python: they refuse a version that is not selected."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    newest: dict[tuple[int, ...], tuple[int, ...]] = {}
    for directory in versions.glob("3.*.*"):
        if directory.name.replace(".", "").isdecimal():
            release = tuple(int(number) for number in directory.name.split("."))
            newest[release[:2]] = max(release, newest.get(release[:2], release))
    if newest:
        os.environ.setdefault("PYENV_VERSION", ":".join(".".join(map(str, release)) for release in newest.values()))


def constraints_for_any_django(session: nox.Session) -> str:
    """Write constraints.txt without the line that ties a Python to one Django, and return its path."""
    lines = Path("constraints.txt").read_text().splitlines(keepends=True)
    path = Path(session.create_tmp()) / "constraints.txt"
    path.write_text("".join(line for line in lines if not line.startswith("Django==")))
    return str(path)


@nox.session
@nox.parametrize("python,django", [(python, django) for django, pythons in MATRIX.items() for python in pythons])
def tests(session: nox.Session, django: str) -> None:
    """The unit tests on one Python and one Django, with everything else as constraints.txt says."""
    constraints = constraints_for_any_django(session)
    session.install("-e", ".[dev]", f"django~={django}.0", "-c", constraints)
    session.run("pytest", *(session.posargs or UNIT_TESTS))


@nox.session(python=LOWEST_PYTHON, venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """The unit tests with the lowest version of every dependency that pyproject.toml names."""
    session.install("--resolution", "lowest-direct", "-e", ".[dev]")
    session.run("pytest", *(session.posargs or UNIT_TESTS))


@nox.session(python=False)
def extras(session: nox.Session) -> None:
    """Each extra alone, and all pairs of two, have versions that go together: the newest, and the lowest."""
    names = list(tomllib.loads(Path("pyproject.toml").read_text())["project"]["optional-dependencies"])
    pairs = [(name,) for name in names] + list(combinations((name for name in names if name != "dev"), 2))
    for resolution in ("highest", "lowest-direct"):
        for pair in pairs:
            options = [word for name in pair for word in ("--extra", name)]
            command = ["uv", "pip", "compile", "--quiet", "--no-header", "--resolution", resolution, *options]
            session.run(*command, "pyproject.toml", silent=True, external=True)


select_pyenv_versions()
