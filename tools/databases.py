"""Run tests on throwaway databases: `python tools/databases.py [pytest arguments]`, tests/store if there are none.

Each database is started, used for one run of pytest, and removed. The exit status is 1 if a run has failed. What the
runs have measured is added to the result of `make coverage`.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.services import Database, MariaDB, PostgreSQL  # noqa: E402

MAKERS: dict[str, Callable[[], Database]] = {
    "PostgreSQL": PostgreSQL,
    # MariaDB as it is installed: a statement may have 16 MiB.
    "MariaDB": lambda: MariaDB(max_allowed_packet="16M"),
}

# A run that hangs outside of any test, or in C code, still has to show its output in time.
RUN_SECONDS = 3000


class Run(NamedTuple):
    """The outcome of one run of pytest."""

    database: str
    status: int
    output: str


def run_on(name: str, arguments: list[str]) -> Run:
    """Start a database, run pytest on it, and remove the database."""
    with MAKERS[name]() as database, tempfile.TemporaryFile("w+") as output:
        env = {**os.environ, "DATABASE_URL": database.new_database(), "PYTEST_PLUGINS": "tests.measuring"}
        pytest = [sys.executable, "-X", "faulthandler", "-m", "pytest", "-o", f"cache_dir=.pytest_cache/{name}"]
        command = [*pytest, *(arguments or ["tests/store"])]
        status = _run(command, env, output)
        if status == 1:  # a test that failed beside the other database's tests has to pass once more
            again = [*command, "--last-failed", "--last-failed-no-failures", "none"]
            status = _run(again, {**env, "TESTS_END": ""}, output)  # without a limit: a test that is left out passes
        output.seek(0)
        return Run(name, status, output.read())


def _run(command: list[str], env: dict[str, str], output: IO[str]) -> int:
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        return process.wait(RUN_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)  # it prints the stacks of all threads as it ends
        return process.wait()
    finally:
        process.kill()


def main(arguments: list[str]) -> int:
    """Run pytest on every database and print the outcomes."""
    with ThreadPoolExecutor(len(MAKERS)) as threads:
        runs = []
        for run in threads.map(lambda name: run_on(name, arguments), MAKERS):
            print(f"--- {run.database}\n{run.output}", flush=True)
            runs.append(run)
    for run in runs:
        print(f"{run.database}: {'passed' if run.status == 0 else f'failed: pytest exited with {run.status}'}")
    return 1 if any(run.status for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
