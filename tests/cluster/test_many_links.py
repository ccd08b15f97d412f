"""A subscription to very many streams: appends go on while it links and deletes, and its first wake comes soon."""

import asyncio
import itertools
import time
from contextlib import AsyncExitStack

import httpx
import pytest

from tests.cluster.cluster import STRESS, Cluster
from tests.cluster.http import Client, Unreachable
from tests.services import Database
from tests.subscriptions.receivers import WebhookReceiver, replies

STREAMS = 100_000
CLIENTS = 64
BASELINE_SECONDS = 20.0
"""About as long as the other measurements: the slowest of more requests is slower."""

SECONDS = 900
STOP_SECONDS = 0.1
"""How much longer than the slowest append before may an append take while streams are linked."""

FIRST_WAKE_SECONDS = 5.0
DELETE_SECONDS = 20.0
"""Time in which the links of the deleted subscription are deleted, or most of them."""

TEXT = {"content-type": "text/plain"}

pytestmark = pytest.mark.skipif(not STRESS, reason="a hundred thousand streams take minutes")


def test_on_a_database_server(database: Database) -> None:
    with Cluster(2, database) as cluster:
        asyncio.run(asyncio.wait_for(link_very_many_streams(cluster), SECONDS))


def test_on_sqlite() -> None:
    with Cluster(1) as cluster:
        asyncio.run(asyncio.wait_for(link_very_many_streams(cluster), SECONDS))


async def link_very_many_streams(cluster: Cluster) -> None:
    url = cluster.urls[0]
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client())
        receiver = await stack.enter_async_context(WebhookReceiver(replies(200, b'{"done":true}')))
        subscriber = await stack.enter_async_context(httpx.AsyncClient(timeout=300, base_url=url))
        # The long answers to the other one take the processor of another server than the measured one.
        observer = await stack.enter_async_context(httpx.AsyncClient(timeout=300, base_url=cluster.urls[-1]))
        await create(client, url)
        appends, creates = (Requests(client, method, url) for method in ("POST", "PUT"))
        running = [asyncio.create_task(requests.run()) for requests in (appends, creates)]
        await asyncio.sleep(BASELINE_SECONDS)
        slowest = {"before": (appends.slowest(), creates.slowest())}
        config = {"type": "webhook", "pattern": "many/*", "webhook": {"url": receiver.url("127.0.0.1")}}
        assert (await subscriber.put("__ds/subscriptions/s", json=config)).status_code == 201
        await all_linked(observer)
        slowest["while linking"] = appends.slowest(), creates.slowest()
        began = time.monotonic()
        await client.request("POST", f"{url}/many/{STREAMS // 2}", TEXT, b"x")
        await receiver.reached.wait()
        first_wake = time.monotonic() - began
        appends.slowest(), creates.slowest()
        assert (await subscriber.delete("__ds/subscriptions/s")).status_code == 204
        await asyncio.sleep(DELETE_SECONDS)
        slowest["while deleting"] = appends.slowest(), creates.slowest()
        appends.is_stopping = creates.is_stopping = True
        await asyncio.gather(*running)
        print(f"\nfirst wake {first_wake:.3f} s; slowest append and create in s: {slowest}")
        allowed = [seconds + STOP_SECONDS for seconds in slowest.pop("before")]
        for when, (append, _) in slowest.items():
            assert append < allowed[0], when
        assert first_wake < FIRST_WAKE_SECONDS


async def create(client: Client, url: str) -> None:
    numbers = iter(range(STREAMS))

    async def create_some() -> None:
        for number in numbers:
            assert await create_one(client, f"{url}/many/{number}") in (200, 201)  # 200: it was not answered in time

    await asyncio.gather(*(create_some() for _ in range(CLIENTS)))
    await create_one(client, f"{url}/other")


async def create_one(client: Client, url: str) -> int:
    """Create a stream and return the status. Only the measured requests have to be answered in time."""
    while True:
        try:
            return (await client.request("PUT", url, TEXT)).status
        except Unreachable:
            await asyncio.sleep(0.02)


async def all_linked(client: httpx.AsyncClient) -> None:
    """Wait until the subscription follows all streams."""
    while True:
        response = await client.get("__ds/subscriptions/s")
        if response.content.count(b'"path"') == STREAMS:  # to parse it would stop the appends of this process
            return
        await asyncio.sleep(1)


class Requests:
    """Requests one after the other, and how long they take: appends to a stream without a link, or creates of such."""

    def __init__(self, client: Client, method: str, url: str) -> None:
        self._client = client
        self._method = method
        self._url = url
        self._seconds: list[float] = []
        self.is_stopping = False

    async def run(self) -> None:
        for number in itertools.count():
            if self.is_stopping:
                return
            path = "other" if self._method == "POST" else f"new/{number}"
            began = time.monotonic()
            response = await self._client.request(self._method, f"{self._url}/{path}", TEXT, b"x")
            assert response.status in (201, 204)
            self._seconds.append(time.monotonic() - began)

    def slowest(self) -> float:
        """Return the longest time since the last call."""
        seconds, self._seconds = self._seconds, []
        return max(seconds)
