"""A copy of a database beside its original, with the same Redis and secret key: the original's readers never notice."""

import asyncio
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import run
from tests.cluster.http import Client
from tests.cluster.load import TEXT, read
from tests.cluster.readers import Follower
from tests.management.commands import Shell
from tests.servers import example_environment
from tests.services import Database, MariaDB, PostgreSQL, Redis, name_of, shared
from tests.templates import migrated_database, migrated_file

APPENDS = 5
SECONDS = 60.0
COPIED, REAL = "copied\n", "here 0\n"  # of the same length, so the message about one joins where the other one would


@pytest.mark.parametrize("kind", [None, PostgreSQL, MariaDB], ids=["sqlite", "postgresql", "mariadb"])
def test_appends_to_a_copy_reach_no_reader_of_its_original(
    kind: type[Database] | None, redis: Redis, tmp_path: Path
) -> None:
    database = None if kind is None else shared(kind)
    original = migrated_file(tmp_path / "original.sqlite3") if database is None else migrated_database(database)
    command(original, redis, "append", "room", "--create", "text", "--raw", content="begin\n")
    copy = copy_file(original, tmp_path) if database is None else database.new_copy(original)
    with Cluster(2, redis=redis, database_url=original) as cluster:
        run(append_to_both(cluster, copy, redis), SECONDS)


def test_appends_to_a_copy_of_all_files_of_the_server_reach_nobody_either(redis: Redis) -> None:
    """PostgreSQL cannot tell such a copy from a promoted standby. It was started at another time."""
    with PostgreSQL() as own, PostgreSQL() as other:
        original = migrated_database(own)
        command(original, redis, "append", "room", "--create", "text", "--raw", content="begin\n")
        own.stop()
        other.stop()
        for arguments in (["rm", "-rf", "data"], ["cp", "-a", str(own.directory / "data"), "data"]):
            subprocess.run(arguments, cwd=other.directory, check=True)
        own.start()
        other.start()
        with Cluster(2, redis=redis, database_url=original) as cluster:
            run(append_to_both(cluster, f"{other.url}/{name_of(original)}", redis), SECONDS)


def copy_file(url: str, folder: Path) -> str:
    target = folder / "copy.sqlite3"
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        connection.execute("VACUUM INTO ?", [str(target)])
    return f"sqlite:///{target}"


def command(database_url: str, redis: Redis, *arguments: str, content: str) -> None:
    """Run a command on a database. Its wake-up messages are sent when this returns."""
    Shell(example_environment({"DATABASE_URL": database_url, "REDIS_URL": redis.url})).output(
        *arguments, stdin=content.encode()
    )


async def append_to_both(cluster: Cluster, copy: str, redis: Redis) -> None:
    here, there = (f"{url}/room" for url in cluster.urls)
    content = "begin\n"
    async with Client() as client, asyncio.TaskGroup() as tasks:
        # The one that appends learns of the copy's append by Redis in no order. For the other one, it comes first.
        follower = Follower(client, there, "sse")
        following = tasks.create_task(follower.follow())
        await follower.has(len(content))
        for _ in range(APPENDS):
            await asyncio.to_thread(command, copy, redis, "append", "room", "--raw", content=COPIED)
            assert (await client.request("POST", here, TEXT, REAL.encode())).status == 204
            content += REAL
            await follower.has(len(content))
            assert follower.data.decode() == content
        following.cancel()
        assert (await read(client, cluster.urls[0], "room")).decode() == content
    assert "lost data" not in cluster.logs()
