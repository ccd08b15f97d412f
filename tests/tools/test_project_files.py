"""Files that say the same thing say the same: supported versions, versions of tools, links of the package's page."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CLASSIFIERS: list[str] = PYPROJECT["project"]["classifiers"]
NOT_YET_SUPPORTED = {"3.14"}


def matrix() -> dict[str, list[str]]:
    """Return the Pythons of each Django that noxfile.py tests. nox need not be installed for it."""
    for node in ast.parse((ROOT / "noxfile.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MATRIX":
            value: dict[str, list[str]] = ast.literal_eval(node.value)
            return value
    raise AssertionError("noxfile.py has no MATRIX")


def classified(prefix: str) -> set[str]:
    """Return the versions that the classifiers name, such as 5.2."""
    versions = {name.removeprefix(prefix) for name in CLASSIFIERS if name.startswith(prefix)}
    return {version for version in versions if re.fullmatch(r"\d+\.\d+", version)}


def pins() -> dict[str, str]:
    """Return the versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split(" ")[0].lower().split("==") for line in lines if not line.startswith("#"))


def test_the_classifiers_name_the_versions_that_are_tested() -> None:
    tested = {python for pythons in matrix().values() for python in pythons}
    assert classified("Framework :: Django :: ") == set(matrix())
    assert classified("Programming Language :: Python :: ") == tested - NOT_YET_SUPPORTED


def test_the_workflow_tests_the_same_pairs() -> None:
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text()
    lists = dict(re.findall(r"^        (python|django): \[(.+)\]$", workflow, re.MULTILINE))
    pythons, djangos = (re.findall(r'"([\d.]+)"', lists[name]) for name in ("python", "django"))
    excluded = set(re.findall(r'- \{ python: "([\d.]+)", django: "([\d.]+)" \}', workflow))
    pairs = {(python, django) for python in pythons for django in djangos} - excluded
    assert pairs == {(python, django) for django, pythons in matrix().items() for python in pythons}


@pytest.mark.parametrize(
    ("repository", "package"),
    [("astral-sh/ruff-pre-commit", "ruff"), ("codespell-project/codespell", "codespell")],
)
def test_pre_commit_runs_the_versions_that_make_lint_runs(repository: str, package: str) -> None:
    configuration = (ROOT / ".pre-commit-config.yaml").read_text()
    revision = re.search(rf"repo: \S+/{repository}\n    rev: v(\S+)", configuration)
    assert revision is not None
    assert revision[1] == pins()[package]


def test_every_action_is_pinned_by_commit_with_its_version() -> None:
    lines = [
        line
        for path in (ROOT / ".github" / "workflows").glob("*.yml")
        for line in path.read_text().splitlines()
        if "uses:" in line
    ]
    assert lines
    for line in lines:
        assert re.search(r"uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line), line


def test_the_links_of_the_package_page_are_whole_addresses_of_files_that_exist() -> None:
    hook: dict[str, Any] = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    text = (ROOT / "README.md").read_text()
    for rule in hook["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"].replace("$HFPR_VERSION", "1.2"), text)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    assert [link for link in links if not link.startswith("https://")] == []
    own = [path[1] for link in links if (path := re.search(r"/v1\.2/([^#]+)", link))]
    assert len(own) > 10
    assert [path for path in own if not (ROOT / path).exists()] == []
    assert "raw.githubusercontent.com" in text
