"""The protocol's public suite, run by vitest against real servers.

pytest tests/conformance -k granian                              one configuration
CONFORMANCE_TARGET_URL=http://127.0.0.1:8000 pytest tests/conformance   a server that runs already
"""

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers import EntryPoint, Kind, Server
from tests.services import Database, MariaDB, PostgreSQL, Redis, shared
from tests.templates import migrated_database

pytestmark = pytest.mark.conformance

SUITE = Path(__file__).resolve().parent
ARTIFACTS = SUITE.parent / "artifacts"
VITEST = SUITE / "node_modules" / "vitest" / "vitest.mjs"

# All tests that the pinned version of the suite declares, the skipped ones included.
SUITE_TESTS = 338
SUBSCRIPTIONS = "Reserved subscription APIs"
# The blocks that are left out, by the beginning of their names. Every other test must run and pass.
EXCLUDED_BLOCKS: tuple[str, ...] = ()

# Below vitest's 5 s for one test, since the suite allows its long-poll tests this long and 1 s more.
LONG_POLL_TEST_MS = 4_000
# A run takes about 20 s. A server that answers nothing at all would take every test to its limit.
RUN_SECONDS = 600

OWN_SETTINGS = {"DJANGO_SETTINGS_MODULE": "config.settings"}
"""The example project's, with all of its apps."""

TARGET_URL = os.environ.get("CONFORMANCE_TARGET_URL")


@dataclass(frozen=True)
class Configuration:
    kind: Kind
    entry_point: EntryPoint
    workers: int = 1
    database: type[Database] | None = None
    redis: bool = False

    def __str__(self) -> str:
        parts = [self.kind, self.entry_point]
        if self.workers > 1:
            parts.append(f"{self.workers}-workers")  # type: ignore[arg-type]
        if self.database is not None:
            parts.append(self.database.__name__.lower())  # type: ignore[arg-type]
        return "-".join([*parts, "redis"] if self.redis else parts)

    def server(self) -> Server:
        """A server of this configuration, with an empty database. Started services stay for the next one."""
        return Server(
            self.kind,
            entry_point=self.entry_point,
            workers=self.workers,
            database_url=None if self.database is None else migrated_database(shared(self.database)),
            migrated=self.database is not None,
            env={**OWN_SETTINGS, **({"REDIS_URL": shared(Redis).url} if self.redis else {})},
        )


CONFIGURATIONS = (
    Configuration("uvicorn", "asgi"),
    Configuration("granian", "asgi"),
    Configuration("daphne", "asgi"),
    Configuration("uvicorn", "urls"),
    *(
        pytest.param(configuration, marks=pytest.mark.cluster)
        for configuration in (
            Configuration("uvicorn", "asgi", workers=2),
            Configuration("uvicorn", "asgi", workers=4, database=PostgreSQL, redis=True),
            Configuration("uvicorn", "asgi", workers=4, database=MariaDB, redis=True),
        )
    ),
)


@pytest.mark.skipif(TARGET_URL is not None, reason="CONFORMANCE_TARGET_URL names another server")
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=str)
def test_the_public_suite_passes(configuration: Configuration) -> None:
    with configuration.server() as server:
        problems = run_suite(server.base_url, str(configuration))
        log = server.log_tail()
    if problems:
        pytest.fail(report(problems, log), pytrace=False)


if TARGET_URL is not None:

    @pytest.mark.parametrize("target_url", [TARGET_URL], ids=["target"])
    def test_the_public_suite_passes_on_the_target(target_url: str) -> None:
        problems = run_suite(target_url, "target")
        if problems:
            pytest.fail(report(problems), pytrace=False)


def run_suite(base_url: str, name: str) -> list[str]:
    """Run the suite against a server. Returns one line for each thing that is wrong; none is a pass."""
    node = shutil.which("node")
    assert node, "Node.js is needed"
    assert VITEST.exists(), "the suite is not installed: run `make conformance`"

    ARTIFACTS.mkdir(exist_ok=True)
    results = ARTIFACTS / f"conformance-{name}.json"
    results.unlink(missing_ok=True)
    command = [node, str(VITEST), "run", "--reporter=json", f"--outputFile={results}"]
    if EXCLUDED_BLOCKS:
        command += ["--testNamePattern", f"^(?!{'|'.join(map(re.escape, EXCLUDED_BLOCKS))})"]
    env = {
        **os.environ,
        "CONFORMANCE_URL": base_url,
        "CONFORMANCE_LONG_POLL_MS": str(LONG_POLL_TEST_MS),
        "CONFORMANCE_SUBSCRIPTIONS": "0" if SUBSCRIPTIONS in EXCLUDED_BLOCKS else "1",
        "NO_COLOR": "1",
    }
    try:
        vitest = subprocess.run(
            command,
            cwd=SUITE,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=RUN_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [f"vitest did not end within {RUN_SECONDS} s"]

    output = vitest.stdout.decode(errors="replace")
    if not results.exists():
        return [f"vitest ended with status {vitest.returncode} and left no report:\n{output}"]
    problems = judge(json.loads(results.read_text()))
    if vitest.returncode != 0 and not problems:
        problems = [f"every test passed, but vitest ended with status {vitest.returncode}:\n{output}"]
    return problems


def judge(results: dict[str, Any]) -> list[str]:
    """What is wrong with a run: failures, tests that did not run, a suite of the wrong size."""
    problems = []
    result = 0
    for file in results["testResults"]:
        if file["message"]:
            problems.append(f"{Path(file['name']).name}: {file['message']}")
        for test in file["assertionResults"]:
            result += 1
            name = " > ".join([*test["ancestorTitles"], test["title"]])
            match test["status"]:
                case "passed":
                    pass
                case "failed":
                    # Asynchronous failures may come without a message.
                    first_line = "\n".join(test["failureMessages"]).partition("\n")[0]
                    problems.append(f"{name}: {first_line}")
                case _ if not name.startswith(EXCLUDED_BLOCKS):
                    problems.append(f"{name}: did not run ({test['status']})")
    if result != SUITE_TESTS:
        problems.append(f"the suite has {result} tests where {SUITE_TESTS} were expected")
    return problems


def report(problems: list[str], log: str = "") -> str:
    lines = [f"{len(problems)} problems", *(f"  {problem}" for problem in problems)]
    if log:
        lines += ["the server's log ends with", log]
    return "\n".join(lines)
