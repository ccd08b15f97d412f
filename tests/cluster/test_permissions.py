"""Permissions that query the database, by connections that it ends: the next request goes on over new ones."""

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.http import Client
from tests.cluster.load import TEXT
from tests.services import Database, MariaDB, PostgreSQL, name_of

READS = 12
"""More than there are threads for permissions."""
BACK_WITHIN = 15.0


@pytest.mark.parametrize("entry_point", ["asgi", "urls"])
@pytest.mark.parametrize("permission", ["Asynchronous", "Wrapped", "Synchronous"])
def test_an_ended_connection_fails_no_request(database: Database, permission: str, entry_point: str) -> None:
    env = {"PERMISSION": f"tests.cluster.permissions.{permission}", "EXAMPLE_DOOR": entry_point}
    with Cluster(1, database, env=env) as cluster:
        asyncio.run(asyncio.wait_for(end_connections(cluster, database), 60))


async def end_connections(cluster: Cluster, database: Database) -> None:
    (url,) = cluster.urls
    async with Client() as client:
        assert (await client.request("PUT", f"{url}/a", TEXT)).status == 201
        for _ in range(3):
            assert await statuses(client, url) == {200}
            await asyncio.to_thread(end_all, database, name_of(cluster.database_url))
            assert await statuses(client, url) == {200}
    assert "Traceback" not in cluster.logs()


def test_a_permission_that_hides_errors_denies_no_longer_than_a_moment(database: Database) -> None:
    env = {"PERMISSION": "tests.cluster.permissions.FailsClosed"}
    with Cluster(1, database, env=env) as cluster:
        asyncio.run(asyncio.wait_for(end_hidden(cluster, database), 60))


async def end_hidden(cluster: Cluster, database: Database) -> None:
    (url,) = cluster.urls
    async with Client() as client:
        assert (await client.request("PUT", f"{url}/a", TEXT)).status == 201
        for _ in range(2):
            assert await statuses(client, url) == {200}
            await asyncio.to_thread(end_all, database, name_of(cluster.database_url))
            ended = time.monotonic()
            while (seen := await statuses(client, url)) != {200}:
                assert seen <= {200, 403}
                assert time.monotonic() - ended < BACK_WITHIN
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
@pytest.mark.parametrize("how", ["killed", "frozen"])
@pytest.mark.parametrize("permission", ["Asynchronous", "Wrapped", "Synchronous"])
def test_reads_are_refused_while_the_database_is_away(kind: type[Database], how: str, permission: str) -> None:
    env = {"PERMISSION": f"tests.cluster.permissions.{permission}"}
    with kind() as database, Cluster(1, database, env=env) as cluster:
        begin, end = (database.kill, database.start) if how == "killed" else (database.freeze, database.thaw)
        asyncio.run(asyncio.wait_for(take_away(cluster, begin, end), 90))


async def take_away(cluster: Cluster, begin: Callable[[], object], end: Callable[[], object]) -> None:
    (url,) = cluster.urls
    async with Client() as client:
        assert (await client.request("PUT", f"{url}/a", TEXT)).status == 201
        assert await statuses(client, url) == {200}
        await asyncio.to_thread(begin)
        assert (await client.request("POST", f"{url}/a", TEXT, b"x")).status == 503
        assert await statuses(client, url) == {503}
        await asyncio.to_thread(end)
        came = time.monotonic()
        while (seen := await statuses(client, url)) != {200}:
            assert seen <= {200, 503}
            assert time.monotonic() - came < BACK_WITHIN
            await asyncio.sleep(0.1)


async def statuses(client: Client, url: str) -> set[int]:
    """What reads are answered with: some of them one after the other, and some at once."""
    each = [(await client.request("GET", f"{url}/a?offset=-1")).status for _ in range(READS)]
    together = await asyncio.gather(*[client.request("GET", f"{url}/a?offset=-1") for _ in range(READS)])
    return {*each, *(answer.status for answer in together)}


def end_all(database: Database, name: str) -> None:
    """End all connections to a database, as a pooler or an administrator does."""
    with contextlib.closing(database.connect(name)) as connection:
        cursor = connection.cursor()
        if isinstance(database, PostgreSQL):
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()",
                [name],
            )
            return
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s AND id <> connection_id()", [name])
        for (number,) in cursor.fetchall():
            with contextlib.suppress(Exception):  # it has ended meanwhile
                cursor.execute(f"KILL {int(number)}")
