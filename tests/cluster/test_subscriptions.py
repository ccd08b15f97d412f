"""Subscriptions in several workers that are killed: each append is told of, and no wake is in flight twice."""

import asyncio
import random

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client, Unreachable
from tests.cluster.subscribers import Subscribers
from tests.services import Database, Redis

SUBSCRIPTIONS = scaled(12, 200)
STREAMS = scaled(48, 2000)
GROUPS = scaled(6, 100)
WRITERS = scaled(4, 32)
ROUNDS = scaled(2, 20)
SETTLE_SECONDS = scaled(60, 300)
SECONDS = 120 + 10 * ROUNDS + SETTLE_SECONDS
TEXT = {"content-type": "text/plain"}


def test_on_a_database_server_with_redis(database: Database, redis: Redis) -> None:
    with Cluster(scaled(3, 4), database, redis) as cluster:
        asyncio.run(asyncio.wait_for(kill_workers_that_deliver(cluster), SECONDS))


def test_on_sqlite_without_redis() -> None:
    with Cluster(2) as cluster:
        asyncio.run(asyncio.wait_for(kill_workers_that_deliver(cluster), SECONDS))


async def kill_workers_that_deliver(cluster: Cluster) -> None:
    async with Client() as client, Subscribers(cluster.urls) as subscribers:
        await request(client, cluster, "PUT", "wakes/pool", b"", {"content-type": "application/json"})
        patterns = {f"s{number}": f"g{number % GROUPS}/*" for number in range(SUBSCRIPTIONS)}
        patterns["s1"] = "**/3"
        for number, (name, pattern) in enumerate(patterns.items()):
            await subscribers.subscribe(name, "pull-wake" if number % 3 == 2 else "webhook", pattern)
        stop = asyncio.Event()
        writing = [asyncio.create_task(write(client, cluster, stop)) for _ in range(WRITERS)]
        for _ in range(ROUNDS):
            await asyncio.sleep(random.uniform(1, 2))  # anywhere in a wake
            await cluster.restart(random.randrange(len(cluster.servers)))
        await asyncio.sleep(1)
        stop.set()
        await asyncio.gather(*writing)
        subscribers.is_calm = True
        tails = await tails_of_all(client, cluster)
        await settle(subscribers, patterns, tails)
        subscribers.check()
        for name, pattern in patterns.items():
            assert subscribers.missed(name, matching(pattern, tails)) == []


def matching(pattern: str, tails: dict[str, str]) -> dict[str, str]:
    """The tails of the streams that match one of this test's patterns."""
    group, _, name = pattern.partition("/")
    return {
        path: tail
        for path, tail in tails.items()
        if (path.endswith("/" + name) if group == "**" else True) and (group == "**" or path.startswith(group + "/"))
    }


async def write(client: Client, cluster: Cluster, stop: asyncio.Event) -> None:
    """Append to streams, and sometimes delete one, until it has to stop."""
    while not stop.is_set():
        number = random.randrange(STREAMS)
        path = f"g{number % GROUPS}/{number // GROUPS}"
        if random.random() < 0.01:
            await request(client, cluster, "DELETE", path)
        status = await request(client, cluster, "POST", path, b"x" * random.randint(1, 99))
        if status == 404:
            await request(client, cluster, "PUT", path, random.choice((b"", b"first")))
        await asyncio.sleep(random.uniform(0, 0.02))


async def request(
    client: Client, cluster: Cluster, method: str, path: str, data: bytes = b"", headers: dict[str, str] = TEXT
) -> int:
    """Send a request to any server, and to another one until one answers."""
    while True:
        try:
            response = await client.request(method, f"{random.choice(cluster.urls)}/{path}", headers, data)
        except Unreachable:
            await asyncio.sleep(0.02)
        else:
            return response.status


async def tails_of_all(client: Client, cluster: Cluster) -> dict[str, str]:
    """The offsets of the tails of all streams that have data, by path."""
    tails = {}
    for number in range(STREAMS):
        path = f"g{number % GROUPS}/{number // GROUPS}"
        response = await client.request("HEAD", f"{cluster.urls[0]}/{path}")
        if response.status == 200 and not response.headers["stream-next-offset"].endswith("_" + "0" * 16):
            tails[path] = response.headers["stream-next-offset"]
    return tails


async def settle(subscribers: Subscribers, patterns: dict[str, str], tails: dict[str, str]) -> None:
    """Wait until all subscriptions have acknowledged everything."""
    try:
        async with asyncio.timeout(SETTLE_SECONDS):
            for name, pattern in patterns.items():
                wanted = matching(pattern, tails)
                while True:
                    cursors = await subscribers.described(name)
                    behind = {
                        path: (cursors.get(path), tail) for path, tail in wanted.items() if cursors.get(path) != tail
                    }
                    if not behind:
                        break
                    await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"{name} was not told of {behind}") from None
