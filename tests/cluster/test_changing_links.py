"""Streams come and go, and servers are killed, while subscriptions are created and deleted.

In the end each stream that a pattern matches has its link, and no other one has.
"""

import asyncio
import json
import random
from itertools import cycle
from urllib.parse import quote

import pytest

from django_durable_streams.protocol.globs import glob
from tests.cluster.cluster import STRESS, Cluster
from tests.cluster.http import Client, Response, Unreachable
from tests.cluster.load import TEXT
from tests.services import Database

FOLDERS = ("many", "Many", "ma_y", "m%y")
NAMES = ("a", "A", "b", "a_b", "a%b", "aXb", "ä", "x/y", "a b", "[a]")
PATTERNS = ("many/*", "many/**", "*/*", "*/a", "ma_y/*", "m%y/*", "Many/*", "many/a_b/**")
PATHS = [f"{folder}/{name}" for folder in FOLDERS for name in NAMES]
OLD_STREAMS = 1500
"""Streams that nobody changes, so that a subscription takes several portions."""

CHANGES = 400
CHANGERS = 6
SUBSCRIPTIONS = 3
CHANGES_OF_SUBSCRIPTIONS = 25
KILLS = 8
SECONDS = 900.0
TTL_SECONDS = 1

pytestmark = pytest.mark.skipif(not STRESS, reason="thousands of changes take minutes")


def test_on_a_database_server(database: Database) -> None:
    with Cluster(2, database) as cluster:
        asyncio.run(asyncio.wait_for(_Scenario(cluster).run(), SECONDS))


def test_on_sqlite() -> None:
    with Cluster(2) as cluster:
        asyncio.run(asyncio.wait_for(_Scenario(cluster).run(), SECONDS))


class _Scenario:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._client = Client()
        self._forks: set[str] = set()

    async def run(self) -> None:
        old = [f"many/old-{number}" for number in range(OLD_STREAMS)]
        async with self._client:
            for path in [*PATHS, *old]:
                assert (await self._ask("PUT", path, TEXT, b"x")).status in (200, 201)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._kill())
                for _ in range(CHANGERS):
                    tasks.create_task(self._change_streams())
                for number in range(SUBSCRIPTIONS):
                    tasks.create_task(self._change_subscription(f"__ds/subscriptions/s{number}"))
            await asyncio.sleep(2 * TTL_SECONDS)
            paths = [*PATHS, *old, *self._forks]
            alive = {path for path in paths if (await self._ask("HEAD", path)).status == 200}
            for number in range(SUBSCRIPTIONS):
                await self._compare(f"__ds/subscriptions/s{number}", alive)

    async def _ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Response:
        """Repeat a request until a server answers, one that runs."""
        while True:
            url = f"{random.choice(self._cluster.urls)}/{quote(path)}"
            try:
                response = await self._client.request(method, url, headers or {}, body)
            except Unreachable:
                await asyncio.sleep(0.05)
                continue
            if response.status != 503:
                return response

    async def _kill(self) -> None:
        for number in range(KILLS):
            await asyncio.sleep(2 * random.random())
            await self._cluster.restart(number % 2)

    async def _change_streams(self) -> None:
        for number in range(CHANGES):
            path = random.choice(PATHS)
            match random.randrange(5):
                case 0:
                    await self._ask("DELETE", path)
                case 1:
                    await self._ask("PUT", path, {**TEXT, "stream-ttl": str(TTL_SECONDS)}, random.choice((b"", b"x")))
                case 2:
                    await self._ask("PUT", path, TEXT, random.choice((b"", b"x")))
                case 3:
                    await self._ask("POST", path, TEXT, b"x")
                case _:
                    await self._fork(path, f"many/fork-{id(asyncio.current_task())}-{number}")

    async def _fork(self, source: str, path: str) -> None:
        self._forks.add(path)
        await self._ask("PUT", path, {"stream-forked-from": f"/v1/stream/{quote(source)}"})
        if random.random() < 0.7:
            await self._ask("DELETE", path)

    async def _change_subscription(self, path: str) -> None:
        patterns = cycle(random.sample(PATTERNS, len(PATTERNS)))
        for _ in range(CHANGES_OF_SUBSCRIPTIONS):
            await self._ask("DELETE", path)
            config = {"type": "pull-wake", "pattern": next(patterns), "wake_stream": "wake"}
            response = await self._ask("PUT", path, {"content-type": "application/json"}, json.dumps(config).encode())
            assert response.status in (200, 201), response.text
            await asyncio.sleep(random.random() / 5)

    async def _compare(self, path: str, alive: set[str]) -> None:
        """Wait until the delivery has linked what is left, and compare the links with the streams."""
        deadline = asyncio.get_running_loop().time() + 30
        while True:
            described = json.loads((await self._ask("GET", path)).content)
            linked = [entry["path"] for entry in described["streams"]]
            wanted = sorted(filter(glob(described["pattern"]).matches, alive))
            if sorted(linked) == wanted:
                return
            assert asyncio.get_running_loop().time() < deadline, (described["pattern"], {*linked} ^ {*wanted})
            await asyncio.sleep(0.5)
