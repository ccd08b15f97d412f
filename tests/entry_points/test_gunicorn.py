"""gunicorn with uvicorn's workers: live readers on all of them, and workers that are replaced under load."""

import asyncio
import signal
import time
from collections import Counter
from contextlib import ExitStack

import httpx

from tests.cluster.http import Client
from tests.cluster.readers import Follower
from tests.entry_points.exchange import Event, live
from tests.servers import GRACE_SECONDS, Server

URL = "/v1/stream/notes"
TEXT = {"content-type": "text/plain"}
READERS = 20
APPENDS = 300


class ReplacingServer(Server):
    """A server that replaces each of its workers after some requests."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--max-requests", "50"]


def test_live_readers_of_all_workers_get_appends_and_a_proper_end() -> None:
    with Server("gunicorn", workers=2, long_poll_timeout=30) as server, ExitStack() as stack:
        httpx.put(server.base_url + URL, headers=TEXT)
        readers = [stack.enter_context(live(server.port, "notes", "sse", "now")) for _ in range(READERS)]
        events = [reader.events() for reader in readers]
        assert [next(one).kind for one in events] == ["control"] * READERS
        httpx.post(server.base_url + URL, headers=TEXT, content=b"news")
        assert [next(one) for one in events] == [Event("data", "news")] * READERS
        began = time.monotonic()
        assert server.stop() in (0, -signal.SIGTERM)
        assert time.monotonic() - began < GRACE_SECONDS, server.log_tail()
        for one in events:
            assert {event.kind for event in one} == {"control"}


async def test_appends_and_readers_outlive_the_workers() -> None:
    with ReplacingServer("gunicorn", workers=2) as server:
        acknowledged = []
        async with Client() as client, httpx.AsyncClient(base_url=server.base_url, timeout=20) as writer:
            await writer.put(URL, headers=TEXT)
            follower = Follower(client, server.base_url + URL, "sse")
            reader = asyncio.create_task(follower.follow())
            for number in range(APPENDS):
                try:
                    response = await writer.post(URL, headers=TEXT, content=b"%d\n" % number)
                except httpx.TransportError:  # its worker has closed the connection that was idle
                    continue
                assert response.status_code == 204
                acknowledged.append(str(number))
            stored = (await writer.get(URL)).content
            await follower.has(len(stored))
            reader.cancel()
        assert follower.data == stored
        assert follower.connections > 1
        assert len(acknowledged) > 0.9 * APPENDS
        counts = Counter(stored.decode().split())
        assert set(acknowledged) <= set(counts)
        assert set(counts.values()) == {1}
