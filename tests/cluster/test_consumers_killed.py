"""Workers that are killed with SIGKILL while they handle messages apply each one once, in the order of its stream."""

import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.cluster import scaled
from tests.servers import example_environment, migrate
from tests.services import Database

WORKERS = 3
KILLS = scaled(4, 20)
COUNT = scaled(400, 4_000)


def test_on_a_database_server(database: Database) -> None:
    kill_workers(database.new_database())


def test_on_sqlite(tmp_path: Path) -> None:
    kill_workers(f"sqlite:///{tmp_path / 'db.sqlite3'}")


def kill_workers(database_url: str) -> None:
    env = example_environment({"DATABASE_URL": database_url})
    migrate(env)
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
        assert appending.wait(60) == 0
        total = COUNT * (COUNT + 1) // 2
        assert run(env, "wait", total) == f"{total} 0\n"
    finally:
        for process in (*workers, appending):
            process.kill()
            process.wait()


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "tests.cluster.consumer_job", *map(str, arguments)]


def start(env: Mapping[str, str], *arguments: object) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(*arguments), env=env, stdin=subprocess.DEVNULL)


def run(env: Mapping[str, str], *arguments: object) -> str:
    return subprocess.run(
        command(*arguments),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
        timeout=120,
        text=True,
    ).stdout
