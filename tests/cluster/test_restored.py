"""A database server that comes back without its last commits: no reader goes on with them, and what comes is told."""

import asyncio
import subprocess
import time

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.http import Client, Response, Unreachable
from tests.cluster.load import TEXT, read
from tests.cluster.readers import Follower
from tests.services import Database, MariaDB, PostgreSQL, Redis

SECONDS = 60.0
LOST, REAL = b"lost\n", b"real\n"  # of the same length: only the database can tell them apart


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB], ids=["postgresql", "mariadb"])
def test_what_a_restored_database_has_lost_is_shown_to_nobody(kind: type[Database], redis: Redis) -> None:
    with kind() as database, Cluster(2, database, redis) as cluster:
        asyncio.run(asyncio.wait_for(restore(cluster, database), 120))


def copy(database: Database, source: str, target: str) -> None:
    """Stop a database server, put a copy of its data in the place of another one, and start it."""
    database.stop()
    for command in (["rm", "-rf", target], ["cp", "-a", source, target]):
        subprocess.run(command, cwd=database.directory, check=True)
    database.start()


async def restore(cluster: Cluster, database: Database) -> None:
    urls = [f"{url}/room" for url in cluster.urls]
    async with Client() as client, asyncio.TaskGroup() as tasks:
        assert (await client.request("PUT", urls[0], TEXT, b"begin\n")).status == 201
        await asyncio.to_thread(copy, database, "data", "backup")
        lost = (await done(client, "POST", urls[0], LOST)).headers["stream-next-offset"]
        await done(client, "GET", urls[1])  # this server may take a moment longer to notice that the database is back
        content = await read(client, cluster.urls[1], "room")
        assert content.endswith(LOST)
        followers = [Follower(client, url, mode) for url in urls for mode in ("sse", "long-poll")]
        following = [tasks.create_task(refused(follower)) for follower in followers]
        for follower in followers:
            await follower.has(len(content))
        await asyncio.to_thread(copy, database, "backup", "data")
        # Each of them was at what is lost, and learns that it is.
        assert await asyncio.wait_for(asyncio.gather(*following), SECONDS) == [410] * len(followers)
        assert {follower.data for follower in followers} == {content}
        for url in urls:
            assert (await done(client, "GET", f"{url}?offset={lost}")).status == 410
        real = content.removesuffix(LOST)
        readers = [Follower(client, url, mode) for url in urls for mode in ("sse", "long-poll")]
        running = [tasks.create_task(reader.follow()) for reader in readers]
        for reader in readers:
            await reader.has(len(real))
        for number in range(4):
            assert (await done(client, "POST", urls[number % 2], REAL)).status == 204
            for reader in readers:
                await reader.has(len(real) + (number + 1) * len(REAL))
        for task in running:
            task.cancel()
        expected = real + 4 * REAL
        assert {reader.data for reader in readers} == {expected}
        for url in cluster.urls:
            assert await read(client, url, "room") == expected


async def refused(follower: Follower) -> int:
    """Follow a stream until the server says that this cannot go on, and return the status."""
    while True:
        try:
            await follower.follow()
        except AssertionError:
            response = await follower._client.request("GET", f"{follower.url}?offset={follower._offset}")
            if response.status != 503:
                return response.status


async def done(client: Client, method: str, url: str, content: bytes = b"") -> Response:
    """Send a request until the database answers."""
    deadline = time.monotonic() + SECONDS
    while True:
        try:
            response = await client.request(method, url, TEXT, content)
            if response.status != 503:
                return response
        except Unreachable:
            pass
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
