"""A crash before or after any statement or commit leaves all of an operation or nothing, and a retry completes it."""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.servers import ROOT, example_environment
from tests.services import MariaDB, PostgreSQL, shared
from tests.templates import migrated_database, migrated_file

SECONDS = 400
OPERATIONS = {"append", "batch", "close", "delete", "soft-delete", "create", "fork"}
FEWEST_STEPS = 6
# What a repeated request is told where the first one was done before the crash.
REPEATED = {"delete": 404, "soft-delete": 410}


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str]:
    match request.param:
        case "postgresql":
            yield migrated_database(shared(PostgreSQL))
        case "mariadb":
            yield migrated_database(shared(MariaDB))
        case _:
            with tempfile.TemporaryDirectory(prefix="durable-streams-") as folder:
                yield migrated_file(Path(folder) / "db.sqlite3")


def test_all_or_nothing(database_url: str) -> None:
    env = example_environment({"DATABASE_URL": database_url})
    command = [sys.executable, "-m", "tests.cluster.crashing"]
    done = preloaded.run(command, cwd=ROOT, env=env, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["operation"] for line in lines} == OPERATIONS
    for operation in sorted(OPERATIONS):
        judge(operation, [line for line in lines if line["operation"] == operation])


def judge(operation: str, lines: list[dict[str, Any]]) -> None:
    *crashes, whole = lines
    assert whole["answers"] is not None
    assert set(whole["answers"]) == {200}
    after = whole["crashed"]
    assert after != whole["before"]
    for line in crashes:
        where = f"{operation}, {line['place']}"
        assert line["crashed"] in (line["before"], after), where
        changed = line["crashed"] == after
        assert set(line["again"]) == {REPEATED.get(operation, 200) if changed else 200}, where
        assert line["repeated"] == after, where
    # Crashes happened on both sides of the commit.
    assert len(crashes) >= FEWEST_STEPS
    assert {line["crashed"] == after for line in crashes} == {False, True}
    assert "before a commit" in {line["place"] for line in crashes}
