"""Run tests on throwaway databases: `python tools/databases.py [pytest arguments]`, tests/store if there are none.

Every database is started, used for one run of pytest, and removed. The exit status is 1 if any run failed. What the
runs cover of the package is added to what `make coverage` shows.
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
    # MariaDB as it is installed: a statement may have 16 MiB.
    for make in (PostgreSQL, lambda: MariaDB(max_allowed_packet="16M")):
        with make() as database:
            name = type(database).__name__
            print(f"--- {name}", flush=True)
            env = {**os.environ, "DATABASE_URL": database.new_database()}
            pytest = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *(arguments or ["tests/store"])]
            done = subprocess.run(pytest, cwd=ROOT, env=env, check=False)
        results[name] = "passed" if done.returncode == 0 else f"failed: pytest exited with {done.returncode}"
    for name, result in results.items():
        print(f"{name}: {result}")
    return 0 if all(result == "passed" for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
