"""A subscription that matches very many streams: appends go on while it links them, and its first wake comes soon."""

import asyncio
import time

import httpx
import pytest

from tests.cluster.cluster import STRESS, Cluster
from tests.cluster.http import Client
from tests.services import Database
from tests.subscriptions.receivers import WebhookReceiver, replies

STREAMS = 100_000
CLIENTS = 64
BASELINE_SECONDS = 3.0
STOP_SECONDS = 0.1
"""How much longer than the slowest append before may an append take while streams are linked."""

FIRST_WAKE_SECONDS = 5.0
TEXT = {"content-type": "text/plain"}

pytestmark = pytest.mark.skipif(not STRESS, reason="a hundred thousand streams take minutes")


def test_on_a_database_server(database: Database) -> None:
    with Cluster(2, database) as cluster:
        asyncio.run(asyncio.wait_for(link_very_many_streams(cluster), 600))


def test_on_sqlite() -> None:
    with Cluster(1) as cluster:
        asyncio.run(asyncio.wait_for(link_very_many_streams(cluster), 600))


async def link_very_many_streams(cluster: Cluster) -> None:
    url = cluster.urls[0]
    async with Client() as client, WebhookReceiver(replies(200, b'{"done":true}')) as receiver:
        await create(client, url)
        appends = Appends(client, url)
        appending = asyncio.create_task(appends.run())
        await asyncio.sleep(BASELINE_SECONDS)
        before = appends.slowest()
        config = {"type": "webhook", "pattern": "many/*", "webhook": {"url": receiver.url("127.0.0.1")}}
        async with httpx.AsyncClient(timeout=60) as subscriber:
            response = await subscriber.put(f"{url}/__ds/subscriptions/s", json=config)
            assert response.status_code == 201
            await all_linked(subscriber, url)
        during = appends.slowest()
        began = time.monotonic()
        await client.request("POST", f"{url}/many/{STREAMS // 2}", TEXT, b"x")
        await receiver.reached.wait()
        first_wake = time.monotonic() - began
        appends.is_stopping = True
        await appending
        print(f"\nslowest append {before:.3f} s before, {during:.3f} s while linking; first wake {first_wake:.3f} s")
        assert during < before + STOP_SECONDS
        assert first_wake < FIRST_WAKE_SECONDS


async def create(client: Client, url: str) -> None:
    numbers = iter(range(STREAMS))

    async def create_some() -> None:
        for number in numbers:
            response = await client.request("PUT", f"{url}/many/{number}", TEXT)
            assert response.status == 201

    await asyncio.gather(*(create_some() for _ in range(CLIENTS)))
    await client.request("PUT", f"{url}/other", TEXT)


async def all_linked(client: httpx.AsyncClient, url: str) -> None:
    """Wait until the subscription follows all streams."""
    while True:
        response = await client.get(f"{url}/__ds/subscriptions/s")
        if response.content.count(b'"path"') == STREAMS:  # to parse it would stop the appends of this process
            return
        await asyncio.sleep(0.5)


class Appends:
    """Appends one after the other, to a stream without a link, and how long they take."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url
        self._seconds: list[float] = []
        self.is_stopping = False

    async def run(self) -> None:
        while not self.is_stopping:
            began = time.monotonic()
            response = await self._client.request("POST", f"{self._url}/other", TEXT, b"x")
            assert response.status == 204
            self._seconds.append(time.monotonic() - began)

    def slowest(self) -> float:
        """Return the longest time since the last call."""
        seconds, self._seconds = self._seconds, []
        return max(seconds)
