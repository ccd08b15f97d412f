"""The same programs on PostgreSQL and MariaDB, whose own time makes each run another one: its history is printed."""

import os
import random
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.services import Database, MariaDB, PostgreSQL, shared

from . import primitives, remote, sqlite
from .faults import Faults, Rates
from .images import Process
from .scheduler import Scheduler

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("SIMULATION_SEEDS", "200" if os.environ.get("STRESS") else "10"))
PART = 20

pytestmark = pytest.mark.cluster


def simulate(kind: type[Database], seeds: int, *arguments: str) -> None:
    url = shared(kind).new_database()
    for first in range(0, seeds, PART):
        part = f"{first}:{min(first + PART, seeds)}"
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seeds", part, *arguments],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": "0", "DATABASE_URL": url},
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_what_is_acknowledged_is_there_once_and_in_order_and_no_reader_skips(kind: type[Database]) -> None:
    simulate(kind, SEEDS)


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_so_it_is_where_processes_are_killed_in_the_middle_of_merges(kind: type[Database]) -> None:
    simulate(kind, SEEDS // 2, "--harsh")


class Alone(Process):
    """A process that runs nothing of the package."""

    def enter(self) -> None:
        """Leave modules as they are."""


WAITING = {
    PostgreSQL: "SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE held%'",
    MariaDB: "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'UPDATE held%'",
}


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_a_process_that_is_killed_while_it_waits_for_the_server_commits_nothing(kind: type[Database]) -> None:
    database = shared(kind)
    name = database.new_database().rpartition("/")[2]
    scheduler = Scheduler(random.Random(0), switching=0.0)
    primitives.use(scheduler)
    sqlite.use(Faults(scheduler, random.Random(0), Rates(), print))

    def die() -> None:
        with closing(database.connect(name)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("SET lock_timeout = 1000" if kind is PostgreSQL else "SET innodb_lock_wait_timeout = 1")
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO half VALUES (1)")
            try:
                update = "UPDATE held SET id = 2"
                remote.run(connection, lambda: cursor.execute(update), RuntimeError())
            finally:
                with suppress(Exception):
                    cursor.execute("COMMIT")  # as Django's drivers do, which switch autocommit on

    def main() -> None:
        with closing(database.connect(name)) as connection, closing(connection.cursor()) as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE held SET id = 3")
            dying = Alone(scheduler, "dying", {})
            dying.spawn(die, "thread")
            primitives.sleep(1.0)
            cursor.execute(WAITING[kind])
            while cursor.fetchone() == (0,):
                time.sleep(0.01)
                cursor.execute(WAITING[kind])
            dying.kill()
            cursor.execute("ROLLBACK")

    with closing(database.connect(name)) as connection, closing(connection.cursor()) as cursor:
        cursor.execute("CREATE TABLE half (id INT)")
        cursor.execute("CREATE TABLE held (id INT)")
        cursor.execute("INSERT INTO held VALUES (1)")
        scheduler.run(Alone(scheduler, "main", {}), main)
        assert not scheduler.failures
        cursor.execute("DELETE FROM held")  # has to wait for whoever is left
        cursor.execute("SELECT COUNT(*) FROM half")
        assert cursor.fetchone() == (0,)
