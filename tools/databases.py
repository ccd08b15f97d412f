"""Run tests on throwaway databases: `python tools/databases.py [pytest arguments]`, tests/store if there are none.

Each database is started, used for one run of pytest, and removed. The exit status is 1 if a run has failed. The
coverage of these runs is added to the result of `make coverage`.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.services import MariaDB, PostgreSQL  # noqa: E402


def main(arguments: list[str]) -> int:
    results: dict[str, str] = {}
    # The default of an installed MariaDB: a statement may have 16 MiB.
    for make in (PostgreSQL, lambda: MariaDB(max_allowed_packet="16M")):
        with make() as database:
            name = type(database).__name__
            print(f"--- {name}", flush=True)
            env = {**os.environ, "DATABASE_URL": database.new_database()}
            pytest = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *(arguments or ["tests/store"])]
            finished = subprocess.run(pytest, cwd=ROOT, env=env, check=False)
        results[name] = "passed" if finished.returncode == 0 else f"failed: pytest exited with {finished.returncode}"
    for name, result in results.items():
        print(f"{name}: {result}")
    return 0 if all(result == "passed" for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
