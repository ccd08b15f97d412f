"""Whatever a project sets for its connections, workers commit what handlers have done, once."""

from pathlib import Path

import pytest

from tests.projects.consuming import NUMBERS
from tests.projects.databases import migrated_database
from tests.projects.project import Project, sqlite
from tests.projects.test_connections import CASES, Case

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


def test_a_router_may_have_streams_in_another_database(tmp_path: Path) -> None:
    databases = {"default": sqlite(tmp_path), "streams": sqlite(tmp_path, "streams.sqlite3")}
    project = Project(tmp_path, databases, 'DATABASE_ROUTERS = ["routers.Router"]')
    project.migrate()
    result = project.run("tests.projects.consuming")
    assert (result["numbers"], result["open"], result["alias"]) == (NUMBERS, 0, "streams")
