"""A Redis that is killed, restarted or frozen costs readers on other workers time, at most 2 s, and nothing else."""

import asyncio
import time

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, read
from tests.cluster.readers import Follower, Ticker
from tests.services import PostgreSQL, Redis, shared

ROUNDS = scaled(1, 10)
APPENDS = 60
"""In each state of Redis: more than a second of them, so that some must wait for the look at the database."""
WITHIN = 2.0
AT_ONCE = 0.3
RECOVERY_SECONDS = 15.0


def test_readers_get_everything_whatever_happens_to_redis() -> None:
    with Redis() as redis, Cluster(2, shared(PostgreSQL), redis) as cluster:
        asyncio.run(asyncio.wait_for(disturb_redis(cluster, redis), 60 + 60 * ROUNDS))


async def disturb_redis(cluster: Cluster, redis: Redis) -> None:
    here, there = (f"{url}/redis" for url in cluster.urls)
    async with Client() as client, asyncio.TaskGroup() as tasks:
        assert (await client.request("PUT", here, TEXT)).status == 201
        follower, ticker = Follower(client, there, "sse"), Ticker(client, here)
        running = [tasks.create_task(follower.follow()), tasks.create_task(ticker.tick())]

        async def arrive() -> None:
            """Appends of some time arrive, and a reader that comes just now gets them too."""
            acknowledged = await ticker.more(APPENDS)
            late = Follower(client, there, "sse")
            running.append(tasks.create_task(late.follow()))
            came = time.monotonic()
            for reader in (follower, late):
                await reader.has(acknowledged[-1][0])
            assert follower.slowest(acknowledged) < WITHIN
            assert late.arrivals[0][1] - came < WITHIN

        await arrive()
        for _ in range(ROUNDS):
            for begin, end in ((redis.kill, redis.start), (redis.freeze, redis.thaw)):
                await asyncio.to_thread(begin)
                await arrive()
                await asyncio.to_thread(end)
                await arrive()
                await recover(ticker, follower)
        assert ticker.slowest < WITHIN, "an append waited for Redis"
        for task in running:
            task.cancel()
        expected = await read(client, cluster.urls[0], "redis")
        assert expected.startswith(follower.data)


async def recover(ticker: Ticker, follower: Follower) -> None:
    """Readers get news at once again, as they do by Redis only."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while True:
        acknowledged = await ticker.more(10)
        await follower.has(acknowledged[-1][0])
        if (slowest := follower.slowest(acknowledged)) < AT_ONCE:
            return
        assert time.monotonic() < deadline, f"news still take {slowest:.2f} s"
