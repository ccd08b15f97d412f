"""Workers that are killed with SIGKILL under load lose no acknowledged append, double none, and tear none."""

import asyncio
import random

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.load import Load
from tests.services import Database, Redis

WRITERS = scaled(12, 32)
ROUNDS = scaled(2, 20)
SECONDS = 60 + 10 * ROUNDS


def test_on_a_database_server_with_redis(database: Database, redis: Redis) -> None:
    with Cluster(scaled(3, 4), database, redis) as cluster:
        asyncio.run(asyncio.wait_for(kill_workers_under_load(cluster), SECONDS))


def test_on_sqlite_without_redis() -> None:
    with Cluster(2) as cluster:
        asyncio.run(asyncio.wait_for(kill_workers_under_load(cluster), SECONDS))


async def kill_workers_under_load(cluster: Cluster) -> None:
    async with Load(cluster.urls, streams=8, producers=WRITERS, plain=WRITERS) as load:
        for _ in range(ROUNDS):
            await load.progress(4)
            # Anywhere between the commits that follow each other in milliseconds.
            await asyncio.sleep(random.uniform(0, 0.05))
            await cluster.restart(random.randrange(len(cluster.servers)))
        await load.progress(4)
    await load.check()
    # The load saw the kills: else this would have shown nothing.
    assert load.statuses[0] > 0
