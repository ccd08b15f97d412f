"""A database that is killed with SIGKILL under load: 503 while it is away, then all goes on without a new worker."""

import asyncio

import pytest

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.load import Load
from tests.services import Database, MariaDB, PostgreSQL, Redis

ROUNDS = scaled(1, 10)
AWAY_SECONDS = 3.0


@pytest.mark.parametrize("kind", [PostgreSQL, MariaDB])
def test_appends_are_refused_and_go_on(kind: type[Database], redis: Redis) -> None:
    with kind() as database, Cluster(2, database, redis) as cluster:
        asyncio.run(asyncio.wait_for(kill_database_under_load(cluster, database), 60 + 20 * ROUNDS))


async def kill_database_under_load(cluster: Cluster, database: Database) -> None:
    pids = [server.pid for server in cluster.servers]
    async with Load(cluster.urls, streams=8, producers=32, plain=32) as load:
        for _ in range(ROUNDS):
            await load.progress(2)
            refused = load.statuses[503]
            await asyncio.to_thread(database.kill)
            await asyncio.sleep(AWAY_SECONDS)
            assert load.statuses[503] > refused
            await asyncio.to_thread(database.start)
            await load.progress(2)
    await load.check()
    assert load.statuses[0] == 0, "a worker did not answer while the database was away"
    assert [server.pid for server in cluster.servers] == pids
