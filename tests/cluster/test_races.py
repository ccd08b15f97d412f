"""Workers that create and delete the same streams at the same moment answer as if one came after the other."""

import asyncio
import random

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, read
from tests.services import Database

ROUNDS = scaled(40, 1000)
PATHS = ("a", "b", "c")
ALLOWED = {"PUT": {201, 200}, "POST": {204, 404}, "DELETE": {204, 404}}
FORK_ALLOWED = {201, 200, 404, 409, 410}


def test_on_a_database_server(database: Database) -> None:
    with Cluster(3, database) as cluster:
        asyncio.run(asyncio.wait_for(race(cluster), 60 + ROUNDS))


def test_on_sqlite() -> None:
    with Cluster(2) as cluster:
        asyncio.run(asyncio.wait_for(race(cluster), 60 + ROUNDS))


async def race(cluster: Cluster) -> None:
    async with Client() as client:
        for number in range(ROUNDS):
            await create_at_once(client, cluster.urls, f"new-{number}")
        async with asyncio.TaskGroup() as tasks:
            for _ in range(12):
                tasks.create_task(churn(client, cluster.urls))
            tasks.create_task(fork_and_delete(client, cluster.urls))


async def create_at_once(client: Client, urls: list[str], path: str) -> None:
    """One of those who create the same stream makes it, and the others find it."""
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(client.request("PUT", f"{url}/{path}", TEXT, b"first\n")) for url in urls * 2]
    statuses = sorted(task.result().status for task in asked)
    assert statuses == [200] * (len(asked) - 1) + [201], statuses
    assert await read(client, urls[-1], path) == b"first\n"


async def churn(client: Client, urls: list[str]) -> None:
    for _ in range(ROUNDS):
        method = random.choice(("PUT", "PUT", "POST", "DELETE"))
        content = b"x\n" if method == "POST" else b""
        headers = {} if method == "DELETE" else TEXT
        response = await client.request(method, f"{random.choice(urls)}/{random.choice(PATHS)}", headers, content)
        assert response.status in ALLOWED[method], f"{method}: {response.status} {response.text}"


async def fork_and_delete(client: Client, urls: list[str]) -> None:
    """Forks of what comes and goes, which go themselves at once: their sources are free again soon after."""
    for number in range(ROUNDS):
        source = f"source-{number % 3}"
        await client.request("PUT", f"{random.choice(urls)}/{source}", TEXT, b"line\n")
        headers = {"stream-forked-from": f"/v1/stream/{source}"}
        async with asyncio.TaskGroup() as tasks:
            forking = tasks.create_task(client.request("PUT", f"{random.choice(urls)}/fork-{number}", headers))
            deleting = tasks.create_task(client.request("DELETE", f"{random.choice(urls)}/{source}"))
        forked, deleted = forking.result(), deleting.result()
        assert forked.status in FORK_ALLOWED, f"{forked.status} {forked.text}"
        assert deleted.status in (204, 404, 410), f"{deleted.status} {deleted.text}"
        if forked.status == 201:
            assert await read(client, random.choice(urls), f"fork-{number}") == b"line\n"
            assert (await client.request("DELETE", f"{random.choice(urls)}/fork-{number}")).status == 204
