"""Backups that are made while appends run, as docs/deployment/backups.md has them, and the service on their copies."""

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client, Response
from tests.cluster.load import TEXT, Load, Writer, read
from tests.servers import HOST, Server
from tests.services import Database, MariaDB, PostgreSQL, Redis, name_of

WRITERS = scaled(6, 24)
SECONDS = 120.0

Backup = Callable[[str], str]
"""Takes the URL of a database in use, and returns that of the copy which was restored from its backup."""


def test_of_a_database_server(database: Database, redis: Redis) -> None:
    tools: dict[type[Database], Callable[[Database, str], str]] = {PostgreSQL: dump_postgresql, MariaDB: dump_mariadb}
    dump = tools[type(database)]
    with Cluster(2, database, redis) as cluster:
        asyncio.run(asyncio.wait_for(back_up(cluster, lambda url: dump(database, url)), SECONDS))


@pytest.mark.parametrize("way", ["VACUUM INTO", "backup"])
def test_of_sqlite(way: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.sqlite3"

    def back_up_file(url: str) -> str:
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=20)) as source:
            if way == "backup":
                with closing(sqlite3.connect(copy)) as target:
                    source.backup(target)
            else:
                source.execute("VACUUM INTO ?", [str(copy)])
        return f"sqlite:///{copy}"

    with Cluster(2) as cluster:
        asyncio.run(asyncio.wait_for(back_up(cluster, back_up_file), SECONDS))


def dump_postgresql(database: Database, url: str) -> str:
    target = database.new_database()
    programs = {name: str(database.program.resolve().with_name(name)) for name in ("pg_dump", "pg_restore")}
    dump = subprocess.run([programs["pg_dump"], "--format=custom", url], capture_output=True, check=True).stdout
    restore = [programs["pg_restore"], "--no-owner", "--exit-on-error", "--dbname", target]
    subprocess.run(restore, input=dump, check=True)
    return target


def dump_mariadb(database: Database, url: str) -> str:
    target = database.new_database()
    login = [f"--host={HOST}", f"--port={database.port}", "--user=streams", "--password=streams"]
    dump_program = shutil.which("mariadb-dump") or "mysqldump"
    client_program = shutil.which("mariadb") or "mysql"
    options = ["--no-defaults", *login, "--single-transaction", "--quick", name_of(url)]
    dump = subprocess.run([dump_program, *options], capture_output=True, check=True).stdout
    subprocess.run([client_program, "--no-defaults", *login, name_of(target)], input=dump, check=True)
    return target


async def back_up(cluster: Cluster, backup: Backup) -> None:
    async with Load(cluster.urls, streams=3, producers=WRITERS, plain=WRITERS) as load:
        await load.progress(3)
        before = {writer.name: len(writer.acknowledged) for writer in load.writers}
        copy = await asyncio.to_thread(backup, cluster.database_url)
        await load.progress(3)
    await load.check()
    with Server(database_url=copy, migrated=True) as server:
        async with Client() as client:
            for stream in load.streams:
                writers = [writer for writer in load.writers if writer.stream == stream]
                await check(client, cluster.urls[0], f"{server.base_url}/v1/stream", stream, writers, before)


async def check(
    client: Client, original: str, restored: str, stream: str, writers: list[Writer], before: dict[str, int]
) -> None:
    """A copy has the beginning of the stream, with all that was acknowledged before, and its producers go on."""
    whole, content = await read(client, original, stream), await read(client, restored, stream)
    assert whole.startswith(content)
    assert content.endswith(b"\n")
    lines = set(content.decode().splitlines(keepends=True))
    for writer in writers:
        missing = [payload[:40] for payload, _ in writer.acknowledged[: before[writer.name]] if payload not in lines]
        assert not missing, f"{stream}: acknowledged before the backup, but not in it: {missing[:5]}"
    if len(whole) > len(content):
        tail = (await client.request("HEAD", f"{original}/{stream}")).headers["stream-next-offset"]
        assert (await client.request("GET", f"{restored}/{stream}?offset={tail}")).status == 410
    for writer in writers:
        if writer.producer:
            last = max(int(line.split(":")[1]) for line in lines if line.startswith(f"{writer.name}:"))
            assert (await repeat(client, restored, writer, last)).status == 204
            assert (await repeat(client, restored, writer, last + 2)).status == 409
            assert (await repeat(client, restored, writer, last + 1)).status == 200


async def repeat(client: Client, url: str, writer: Writer, number: int) -> Response:
    """Send what a producer sends with a number. It has sent the first ones before."""
    headers = {**TEXT, "producer-id": writer.name, "producer-epoch": "0", "producer-seq": str(number)}
    payload = writer.attempts[number] if number < len(writer.attempts) else f"{writer.name}:{number}:\n"
    return await client.request("POST", f"{url}/{writer.stream}", headers, payload.encode())
