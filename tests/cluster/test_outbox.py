"""A project that appends in the transactions of its own models, in a process without streams, and readers elsewhere."""

import asyncio
import itertools
import statistics
import sys
import time
from bisect import bisect_left

import httpx
import redis as redis_client

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT
from tests.cluster.outbox import OUTBOX
from tests.cluster.readers import Follower
from tests.servers import Server
from tests.services import PostgreSQL, Redis, shared

SAVES = scaled(100, 1_000)
WITHIN = 0.100
"""Seconds in the median from the append to the reader."""

QUIET_SECONDS = 1.0
"""Longer than the look at the database that readers rely on where nobody wakes them."""


class WsgiServer(Server):
    """The process that `outbox` is."""

    def _command(self) -> list[str]:
        return [sys.executable, "-m", "tests.cluster.outbox", str(self.port)]


def test_what_is_appended_with_a_model_reaches_readers_elsewhere_exactly_if_it_is_committed() -> None:
    redis = shared(Redis)
    with Cluster(1, shared(PostgreSQL), redis) as cluster:
        own = cluster.servers[0]
        with WsgiServer(database_url=cluster.database_url, migrated=True, env={"REDIS_URL": redis.url}) as wsgi:
            asyncio.run(asyncio.wait_for(save_and_fail(f"{own.base_url}/v1/stream/{OUTBOX}", wsgi, redis), 120))


async def save_and_fail(url: str, wsgi: WsgiServer, redis: Redis) -> None:
    with redis_client.Redis.from_url(redis.url) as connection, connection.pubsub() as news:
        async with Client() as client, httpx.AsyncClient(base_url=wsgi.base_url) as web, asyncio.TaskGroup() as tasks:
            assert (await client.request("PUT", url, TEXT)).status == 201
            follower = Follower(client, url, "sse")
            following = tasks.create_task(follower.follow())
            news.psubscribe("*")
            assert (await asyncio.to_thread(news.get_message, timeout=10))["type"] == "psubscribe"
            await web.get("/save/first")
            # A reader that begins now may read it before the message that wakes readers is sent.
            while b"first" not in (await asyncio.to_thread(news.get_message, timeout=10))["data"]:
                pass
            await until_lines(follower, 1)

            assert (await web.get("/save/never?fail")).status_code == 500
            assert (await web.get("/exists/never")).status_code == 404
            assert await asyncio.to_thread(news.get_message, timeout=QUIET_SECONDS) is None, "a reader was woken"
            assert follower.data.count(b"\n") == 1
            news.punsubscribe("*")

            for number in range(SAVES):
                assert (await web.get(f"/save/{number}")).status_code == 204
            await until_lines(follower, SAVES + 1)
            following.cancel()
    lines = follower.data.decode().splitlines()
    assert [line.split()[0] for line in lines] == ["first", *map(str, range(SAVES))]
    # Two lines may arrive at once: a save does not wait until readers are woken.
    sizes, moments = zip(*follower.arrivals, strict=True)
    ends = itertools.accumulate(len(line) + 1 for line in lines)
    arrived = [moments[bisect_left(sizes, end)] for end in ends]
    waits = [moment - float(line.split()[1]) for line, moment in zip(lines, arrived, strict=True)][1:]
    print(f"{SAVES} saves: median {statistics.median(waits) * 1000:.1f} ms, slowest {max(waits) * 1000:.1f} ms")
    assert statistics.median(waits) < WITHIN


async def until_lines(follower: Follower, count: int) -> None:
    deadline = time.monotonic() + 20
    while (result := follower.data.count(b"\n")) < count:
        assert time.monotonic() < deadline, f"{result} of {count} have come"
        await asyncio.sleep(0.002)
