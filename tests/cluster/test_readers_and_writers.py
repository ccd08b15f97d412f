"""Readers beside writers on several workers: no gap, nothing twice, no half append, nothing acknowledged unseen."""

import asyncio
import random

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, Load, position, read
from tests.cluster.readers import MODES, Follower
from tests.services import Database, Redis

APPENDS = scaled(10, 300)
STREAMS = 4


def test_on_a_database_server_with_redis(database: Database, redis: Redis) -> None:
    with Cluster(4, database, redis) as cluster:
        asyncio.run(asyncio.wait_for(read_beside_writers(cluster), 60 + APPENDS))


def test_on_sqlite_without_redis() -> None:
    with Cluster(2) as cluster:
        asyncio.run(asyncio.wait_for(read_beside_writers(cluster), 60 + APPENDS))


async def read_beside_writers(cluster: Cluster) -> None:
    async with Client() as client, asyncio.TaskGroup() as tasks:
        async with Load(cluster.urls, streams=STREAMS, producers=8, plain=8) as load:
            # Each mode reads each stream, and moves on by one server from stream to stream.
            followers = [
                Follower(
                    client, f"{cluster.urls[(mode + stream) % len(cluster.urls)]}/{load.streams[stream]}", MODES[mode]
                )
                for stream in range(STREAMS)
                for mode in range(len(MODES))
            ]
            running = [tasks.create_task(follower.follow()) for follower in followers]
            checks = [tasks.create_task(read_after_write(client, cluster.urls, number)) for number in range(4)]
            await load.progress(APPENDS)
            await asyncio.gather(*checks)
        await load.check()
        for follower in followers:
            expected = await read(client, cluster.urls[0], follower.url.partition("/v1/stream/")[2])
            await follower.has(len(expected))
            assert follower.data == expected
        for task in running:
            task.cancel()


async def read_after_write(client: Client, urls: list[str], number: int) -> None:
    """A read that starts after an acknowledgement shows what was acknowledged, on any server."""
    stream = f"acknowledged/{number}"
    assert (await client.request("PUT", f"{urls[0]}/{stream}", TEXT)).status == 201
    before = "-1"
    for count in range(APPENDS):
        line = b"%d %s\n" % (count, b"y" * random.choice((1, 100, 10_000)))
        response = await client.request("POST", f"{random.choice(urls)}/{stream}", TEXT, line)
        assert response.status == 204
        after = response.headers["stream-next-offset"]
        url = f"{random.choice(urls)}/{stream}"
        seen = await client.request("GET", f"{url}?offset={before}")
        assert seen.content == line
        assert seen.headers["stream-next-offset"] == after
        head = await client.request("HEAD", url)
        assert position(head.headers["stream-next-offset"]) == position(after)
        before = after
