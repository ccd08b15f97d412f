"""Workers that are killed with SIGKILL while they handle messages apply each one once, in the order of its stream."""

import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests import preloaded
from tests.cluster.cluster import scaled
from tests.servers import ROOT, example_environment
from tests.services import Database, MariaDB, PostgreSQL
from tests.templates import migrated_database, migrated_file

WORKERS = scaled(3, 4)
STDERR = 2
KILLS = scaled(4, 20)
COUNT = scaled(400, 4_000)
MESSAGES_OF_A_RESTART = scaled(1_000, 20_000)
SECONDS = scaled(60, 600)
"""How long appends, and the handling of what is left, may take."""


def test_on_a_database_server(database: Database) -> None:
    kill_workers(migrated_database(database))


def test_on_sqlite(tmp_path: Path) -> None:
    kill_workers(migrated_file(tmp_path / "db.sqlite3"))


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB], ids=["postgresql", "mariadb"])
def test_while_the_database_is_killed(kind: type[Database]) -> None:
    with kind() as database:
        env = example_environment({"DATABASE_URL": migrated_database(database)})
        run(env, "prepare")
        run(env, "append", MESSAGES_OF_A_RESTART)
        workers = [start(env, "work") for _ in range(WORKERS)]
        try:
            for _ in range(2):
                time.sleep(random.uniform(1.5, 2.5))  # they start, or are in the middle
                database.kill()
                database.start()
            assert (
                run(env, "wait", total_of(MESSAGES_OF_A_RESTART), SECONDS) == f"{total_of(MESSAGES_OF_A_RESTART)} 0\n"
            )
            assert [worker.poll() for worker in workers] == [None] * WORKERS
        finally:
            for process in workers:
                process.kill()
                process.wait()


def test_replays_while_workers_run(database: Database) -> None:
    env = example_environment({"DATABASE_URL": migrated_database(database)})
    run(env, "prepare")
    run(env, "append", COUNT)
    processes = [start(env, "work") for _ in range(WORKERS)]
    try:
        run(env, "wait", 1, SECONDS)
        appending = start(env, "append", COUNT)
        processes.append(appending)
        for _ in range(scaled(2, 30)):
            run(env, "replay")
        assert appending.wait(SECONDS) == 0
        assert run(env, "wait", 2 * total_of(COUNT), SECONDS).startswith(f"{2 * total_of(COUNT)} ")
    finally:
        for process in processes:
            process.kill()
            process.wait()


def total_of(count: int) -> int:
    return count * (count + 1) // 2


def kill_workers(database_url: str) -> None:
    env = example_environment({"DATABASE_URL": database_url})
    assert run(env, "prepare") == ""
    workers = [start(env, "work") for _ in range(WORKERS)]
    appending = start(env, "append", COUNT)
    try:
        for _ in range(KILLS):
            time.sleep(random.uniform(0.5, 1.5))
            number = random.randrange(WORKERS)
            assert workers[number].poll() is None, "a worker has ended early"
            workers[number].kill()
            workers[number].wait()
            workers[number] = start(env, "work")
        assert appending.wait(SECONDS) == 0
        assert run(env, "wait", total_of(COUNT), SECONDS) == f"{total_of(COUNT)} 0\n"
    finally:
        for process in (*workers, appending):
            process.kill()
            process.wait()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.cluster.consumer_job", *map(str, arguments)]


def start(env: Mapping[str, str], *arguments: object) -> preloaded.Process:
    return preloaded.start(command(*arguments), cwd=ROOT, env=env, output=STDERR)


def run(env: Mapping[str, str], *arguments: object) -> str:
    done = preloaded.run(command(*arguments), cwd=ROOT, env=env, timeout=2 * SECONDS)
    assert done.returncode == 0, done.stderr
    return done.stdout
