"""The same programs on PostgreSQL and MariaDB, whose own time makes each run another one: its history is printed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.services import Database, MariaDB, PostgreSQL, shared

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "200" if os.environ.get("STRESS") else "20"))
PART = 20

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_what_is_acknowledged_is_there_once_and_in_order_and_no_reader_skips(kind: type[Database]) -> None:
    url = shared(kind).new_database()
    for first in range(0, SEEDS, PART):
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", f"{first}:{min(first + PART, SEEDS)}"],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0", "DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
