"""The tables get those of the next version while workers of this one append, on a database with data.

There is one migration so far. So the next version is a migration with all kinds of changes that the policy allows
(docs/deployment/upgrades.md), and the tables of an app that the project adds.
"""

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Mapping

from tests import preloaded
from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, Load, read
from tests.cluster.readers import Follower
from tests.servers import EXAMPLE, example_environment
from tests.services import Database, PostgreSQL, Redis, name_of, shared

WRITERS = scaled(4, 16)
SECONDS = 90.0
MIGRATE_SECONDS = 60.0
LOCK_SECONDS = 0.5


def migrate(url: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Migrate a database to the next version, as an operator does."""
    variables = {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "tests.cluster.next_version.settings", **(env or {})}
    command = [sys.executable, str(EXAMPLE / "manage.py"), "migrate"]
    return preloaded.run(command, cwd=EXAMPLE, env=example_environment(variables), timeout=MIGRATE_SECONDS)


def test_on_a_database_server(database: Database, redis: Redis) -> None:
    with Cluster(2, database, redis) as cluster:
        asyncio.run(asyncio.wait_for(upgrade(cluster), SECONDS))


def test_on_sqlite() -> None:
    with Cluster(2) as cluster:
        asyncio.run(asyncio.wait_for(upgrade(cluster), SECONDS))


async def upgrade(cluster: Cluster) -> None:
    async with Client() as client, asyncio.TaskGroup() as tasks:
        async with Load(cluster.urls, streams=3, producers=WRITERS, plain=WRITERS) as load:
            follower = Follower(client, f"{cluster.urls[1]}/{load.streams[0]}", "sse")
            following = tasks.create_task(follower.follow())
            await load.progress(3)
            done = await asyncio.to_thread(migrate, cluster.database_url)
            assert done.returncode == 0, done.stderr
            assert "0002_additions... OK" in done.stdout
            assert "sites.0001_initial... OK" in done.stdout
            await load.progress(3)
            # What they do seldom works on the newer tables, too.
            for url in cluster.urls:
                assert (await client.request("PUT", f"{url}/later", TEXT)).status in (200, 201)
                ready = await client.request("GET", f"{url.removesuffix('/v1/stream')}/readyz")
                assert ready.status == 200, ready.text
            fork = {**TEXT, "stream-forked-from": f"/v1/stream/{load.streams[0]}"}
            assert (await client.request("PUT", f"{cluster.urls[0]}/fork", fork)).status == 201
            assert (await client.request("DELETE", f"{cluster.urls[0]}/later")).status == 204
        await load.check()
        content = await read(client, cluster.urls[0], load.streams[0])
        await follower.has(len(content))
        assert follower.data == content
        assert follower.connections == 1
        following.cancel()
    assert load.statuses.keys() <= {200, 204}, load.statuses


def test_a_migration_that_would_wait_gives_up(redis: Redis) -> None:
    """On PostgreSQL all appends would wait behind a migration that waits for one long transaction."""
    database = shared(PostgreSQL)
    with Cluster(1, database, redis) as cluster:
        asyncio.run(asyncio.wait_for(give_up(cluster, database), SECONDS))


async def give_up(cluster: Cluster, database: PostgreSQL) -> None:
    options = {"PGOPTIONS": f"-c lock_timeout={int(LOCK_SECONDS * 1000)}"}
    async with Load(cluster.urls, streams=1, producers=WRITERS, plain=0) as load, Client() as client:
        assert (await client.request("PUT", f"{cluster.urls[0]}/other", TEXT)).status == 201
        with contextlib.closing(database.connect(name_of(cluster.database_url))) as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM durable_streams_stream WHERE path = 'other' FOR UPDATE")
            done = await asyncio.to_thread(migrate, cluster.database_url, options)
            assert done.returncode != 0
            assert "lock timeout" in done.stderr
            await load.progress(2)  # while that transaction goes on
            connection.execute("COMMIT")
        done = await asyncio.to_thread(migrate, cluster.database_url, options)
        assert done.returncode == 0, done.stderr
        await load.progress(2)
    await load.check()
    assert load.statuses.keys() <= {200, 204}, load.statuses
