"""Whatever a project sets for its connections, workers commit what handlers have done, once."""

import time
from pathlib import Path

import pytest

from tests.projects.consuming import NUMBERS
from tests.projects.databases import migrated_database
from tests.projects.project import Project, sqlite
from tests.projects.test_connections import CASES, Case

END_SECONDS = 30

NAMES = (
    "autocommit off",
    "a receiver that ends autocommit",
    "deferred transactions",
    "serializable",
    "kept connections",
)
COMBINATIONS = [(case, kind) for case in CASES if case.name in NAMES for kind in case.kinds]


@pytest.mark.parametrize(("case", "kind"), COMBINATIONS, ids=[f"{case.name}-{kind}" for case, kind in COMBINATIONS])
@pytest.mark.cluster
def test_workers_commit_once(case: Case, kind: str, tmp_path: Path) -> None:
    database = migrated_database(kind, tmp_path)
    (tmp_path / "project").mkdir()
    settings = {**database, **case.settings, "OPTIONS": {**database.get("OPTIONS", {}), **case.options}}
    result = Project(tmp_path / "project", {"default": settings}, case.source).run("tests.projects.consuming")
    assert (result["numbers"], result["open"]) == (NUMBERS, 0)


@pytest.mark.parametrize("kind", ["thread", "loop", "pool"])
def test_a_worker_ends_although_a_handler_hangs(kind: str, tmp_path: Path) -> None:
    project = Project(tmp_path, {"default": migrated_database("sqlite", tmp_path)})
    began = time.monotonic()
    done = project.start("tests.projects.hanging", "run", kind)
    assert time.monotonic() - began < END_SECONDS
    assert done.returncode == 1, done.stderr
    assert "has not ended within its lease" in done.stderr
    result = project.run("tests.projects.hanging", "look")
    assert (result["effects"], result["position"]) == ([], None)


def test_a_router_may_have_streams_in_another_database(tmp_path: Path) -> None:
    databases = {"default": sqlite(tmp_path), "streams": sqlite(tmp_path, "streams.sqlite3")}
    project = Project(tmp_path, databases, 'DATABASE_ROUTERS = ["routers.Router"]')
    project.migrate()
    result = project.run("tests.projects.consuming")
    assert (result["numbers"], result["open"], result["alias"]) == (NUMBERS, 0, "streams")
