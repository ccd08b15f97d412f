"""A primary that is lost under load, and its synchronous standby that is promoted: all goes on by itself.

Servers and consumers name both hosts in their settings, and which of them they want: the one that takes changes
(docs/deployment/databases.md).
"""

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, Load, read
from tests.cluster.readers import Follower, Mode
from tests.cluster.relay import Relay
from tests.cluster.test_consumers_killed import SECONDS as CONSUMER_SECONDS
from tests.cluster.test_consumers_killed import run, start, total_of
from tests.cluster.test_restored import done
from tests.servers import HOST, example_environment
from tests.services import PostgreSQL, Redis, Standby, name_of
from tests.templates import migrated_database

WRITERS = scaled(8, 32)
SECONDS = 120.0
LIVE: tuple[Mode, ...] = ("sse", "long-poll")
BACK_WITHIN = 15.0
MESSAGES = scaled(600, 10_000)


class Pair:
    """A primary and its synchronous standby, with a database of the example project."""

    def __init__(self, primary: PostgreSQL, standby: Standby, database: str) -> None:
        self.primary = primary
        self.standby = standby
        self.database = database
        """Its name."""

    @property
    def url(self) -> str:
        """By which clients find the one that takes changes."""
        return self.standby.url_of_both(self.database)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with PostgreSQL() as primary:
        url = migrated_database(primary)
        with Standby(primary) as standby:
            standby.synchronise()
            yield Pair(primary, standby, name_of(url))


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_the_standby_takes_over_and_nothing_acknowledged_is_lost(pair: Pair, how: str, redis: Redis) -> None:
    """Frozen: as with a machine that has vanished, its connections stay open, and new ones get no answer."""
    with Cluster(2, redis=redis, database_url=pair.url) as cluster:
        asyncio.run(asyncio.wait_for(fail_over(cluster, pair, how), SECONDS))


async def fail_over(cluster: Cluster, pair: Pair, how: str) -> None:
    pids = [server.pid for server in cluster.servers]
    async with Client() as client, asyncio.TaskGroup() as tasks:
        async with Load(cluster.urls, streams=4, producers=WRITERS, plain=WRITERS) as load:
            followers = [
                Follower(client, f"{url}/{stream}", mode)
                for url in cluster.urls
                for stream in load.streams[:2]
                for mode in LIVE
            ]
            following = [tasks.create_task(follower.follow()) for follower in followers]
            await load.progress(3)
            sizes = [len(follower.data) for follower in followers]
            await asyncio.to_thread(pair.primary.kill if how == "killed" else pair.primary.freeze)
            await asyncio.sleep(1.5)  # as long as a monitor of the databases needs to decide
            await asyncio.to_thread(pair.standby.promote)
            promoted = time.monotonic()
            await load.progress(3)
            assert time.monotonic() - promoted < BACK_WITHIN
            await steady(client, cluster, load)
        await load.check()
        for follower, size in zip(followers, sizes, strict=True):
            content = await read(client, cluster.urls[0], follower.url.partition("/v1/stream/")[2])
            assert len(content) > size
            await follower.has(len(content))
            assert follower.data == content
        for task in following:
            task.cancel()
    assert [server.pid for server in cluster.servers] == pids
    assert load.statuses[503] + load.statuses[0] > 0, "nobody noticed that the primary was lost"


async def steady(client: Client, cluster: Cluster, load: Load) -> None:
    """The host that is gone, and that settings name first, delays nothing any more."""
    refused = load.statuses[503]
    for url in cluster.urls * 3:
        await load.progress(2)
        assert (await client.request("GET", f"{url.removesuffix('/v1/stream')}/readyz")).status == 200
    assert load.statuses[503] == refused


def test_nobody_stays_with_a_primary_that_was_demoted_while_connections_to_it_were_open(pair: Pair) -> None:
    """As with one address for both, or a pooler. The first append that it refuses tells the process."""
    with Relay(pair.primary.port) as relay:
        url = f"postgresql://postgres@{HOST}:{relay.port}/{pair.database}"
        with Cluster(1, database_url=url) as cluster:
            asyncio.run(asyncio.wait_for(demote(f"{cluster.urls[0]}/room", pair, relay), SECONDS))


async def demote(url: str, pair: Pair, relay: Relay) -> None:
    async with Client() as client, asyncio.TaskGroup() as tasks:
        assert (await client.request("PUT", url, TEXT, b"first\n")).status == 201
        follower = Follower(client, url, "sse")
        following = tasks.create_task(follower.follow())
        await follower.has(6)
        # Before the promotion: without a standby its commits would wait for one.
        await asyncio.to_thread(pair.primary.execute, "ALTER SYSTEM SET default_transaction_read_only = on")
        await asyncio.to_thread(pair.primary.execute, "SELECT pg_reload_conf()")
        await asyncio.to_thread(pair.standby.promote)
        relay.target = pair.standby.port
        response = await done(client, "POST", url, b"second\n")
        assert response.status == 204, response.text
        assert (await client.request("GET", f"{url}?offset=-1")).content == b"first\nsecond\n"
        await follower.has(13)
        following.cancel()


def test_consumers_apply_each_message_once(pair: Pair) -> None:
    """Appends, and the positions of consumers, go on at the standby."""
    env = example_environment({"DATABASE_URL": pair.url})
    run(env, "prepare")
    run(env, "append", MESSAGES)
    workers = [start(env, "work") for _ in range(2)]
    try:
        run(env, "wait", 1, CONSUMER_SECONDS)
        pair.primary.kill()
        pair.standby.promote()
        expected = total_of(MESSAGES)
        assert run(env, "wait", expected, CONSUMER_SECONDS) == f"{expected} 0\n"
        assert [worker.poll() for worker in workers] == [None, None]
    finally:
        for process in workers:
            process.kill()
            process.wait()
