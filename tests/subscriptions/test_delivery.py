"""The delivery of a real server to real receivers, which do whatever receivers do, across restarts of the server."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signing import b62_decode

from tests.cluster.http import Client, Response
from tests.servers import Server
from tests.subscriptions.receivers import Answer, WebhookReceiver, endless, replies, sends

JSON = {"content-type": "application/json"}
TEXT = {"content-type": "text/plain"}
DONE = replies(200, b'{"done":true}')
ACCEPTED = replies(202)
FIRST_BACKOFF = 0.8
"""Seconds that pass at least before the first retry."""

DEAD_RECEIVERS = 20
WAKES = 20


@pytest.fixture(scope="module")
def shared_server() -> Iterator[Server]:
    with Server() as server:
        yield server


class Deliveries:
    """One receiver, the subscription that it is for, and the server."""

    def __init__(self, server: Server, name: str, *answers: Answer) -> None:
        self.name = name
        self.path = f"{name}/a"
        self._root = f"{server.base_url}/v1/stream"
        self._client = Client()
        self._answers = list(answers)
        self.receiver = WebhookReceiver(self._next_answer)
        self.arrivals: list[float] = []
        self._arrived = asyncio.Condition()

    async def __aenter__(self) -> "Deliveries":
        await self._client.__aenter__()
        await self.receiver.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.receiver.__aexit__(None, None, None)
        await self._client.__aexit__(None, None, None)

    async def _next_answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give the answers one after the other, and the last one from then on."""
        async with self._arrived:
            self.arrivals.append(time.time())
            number = len(self.arrivals) - 1
            self._arrived.notify_all()
        await self._answers[min(number, len(self._answers) - 1)](reader, writer)

    async def request(
        self, method: str, path: str, body: Any = None, token: str = "", kind: dict[str, str] = JSON
    ) -> Response:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        headers = {**kind, **({"authorization": f"Bearer {token}"} if token else {})}
        return await self._client.request(method, f"{self._root}/{path}", headers, data)

    async def ask(self, method: str, action: str = "", body: Any = None, token: str = "") -> tuple[int, Any]:
        """Send a request about the subscription."""
        response = await self.request(method, f"__ds/subscriptions/{self.name}{action}", body, token)
        return response.status, json.loads(response.content) if response.content else None

    async def subscribe(self, lease_seconds: int = 30, **more: Any) -> None:
        webhook = {"type": "webhook", "webhook": {"url": self.receiver.url("127.0.0.1")}}
        config = {"pattern": f"{self.name}/*", "lease_ttl_ms": lease_seconds * 1000, **webhook, **more}
        status, answer = await self.ask("PUT", "", config)
        assert status == 201, answer

    async def append(self, data: bytes = b"x") -> str:
        """Append to the stream, which exists from the first time on, and return its offset."""
        response = await self.request("POST", self.path, data, kind=TEXT)
        if response.status == 404:
            response = await self.request("PUT", self.path, data, kind=TEXT)
        assert response.status in (201, 204)
        return response.headers["stream-next-offset"]

    async def restart(self, server: Server) -> None:
        """Kill the server, and start it again."""
        await asyncio.to_thread(server.kill)
        await self._client.__aexit__(None, None, None)  # its connections have ended
        await asyncio.to_thread(server.start)

    async def wake(self, number: int) -> dict[str, Any]:
        """Wait for a wake, and return what it says. The first one has the number 1."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.arrivals) >= number)
        told: dict[str, Any] = json.loads(self.receiver.requests[number - 1].body)
        return told

    async def settled(self, offset: str) -> dict[str, Any]:
        """Wait until an offset is acknowledged, and return the description of the subscription."""
        while True:
            _, described = await self.ask("GET")
            if {"path": self.path, "link_type": "glob", "acked_offset": offset} in described["streams"]:
                _, described = await self.ask("GET")  # its links are read after its status
                return dict(described)
            await asyncio.sleep(0.02)

    async def failed(self) -> None:
        """Wait until the subscription has failed."""
        while True:
            if (await self.ask("GET"))[1]["status"] == "failed":
                return
            await asyncio.sleep(0.02)


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer nothing until the client closes the connection."""
    await reader.read()


async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time until the client closes the connection."""
    for byte in b"HTTP/1.1 200 X\r\nContent-Length: 1000000\r\n\r\n" + b" " * 1_000_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.05)


def begun_at(wake: dict[str, Any]) -> int:
    """The second in which the lease of a wake began, which its token says."""
    return b62_decode(wake["callback_token"].split(":")[1])


BAD_ANSWERS = {
    "500": replies(500),
    "404": replies(404, b"x" * 1000),
    "redirect": replies(307, b"", "Location: http://127.0.0.1:1/"),
    "no-http": sends(b"hello\r\n\r\n"),
    "early-end": sends(b""),
    "half": sends(b'HTTP/1.1 200 X\r\nContent-Length: 13\r\n\r\n{"done"'),
    "endless": endless(b"HTTP/1.1 200 X\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 60_000),
    "endless-head": endless(b"HTTP/1.1 200 X\r\n" + b"X-A: b\r\n" * 1000),
    "never": never,
    "slow": slowly,
}


@pytest.mark.parametrize("kind", BAD_ANSWERS)
async def test_a_wake_that_was_not_delivered_is_tried_again_by_schedule(shared_server: Server, kind: str) -> None:
    async with Deliveries(shared_server, f"bad-{kind}", BAD_ANSWERS[kind], DONE) as deliveries:
        await deliveries.subscribe(lease_seconds=1)
        offset = await deliveries.append()
        first, second = await deliveries.wake(1), await deliveries.wake(2)
        assert deliveries.arrivals[1] - begun_at(first) >= FIRST_BACKOFF
        assert (first["generation"], second["generation"]) == (1, 2)
        assert first["wake_id"] != second["wake_id"]
        assert first["streams"] == second["streams"]
        assert (await deliveries.settled(offset))["status"] == "active"
        assert len(deliveries.arrivals) == 2


async def test_a_failed_subscription_says_so_until_it_is_delivered(shared_server: Server) -> None:
    async with Deliveries(shared_server, "failing", replies(500), replies(503), DONE) as deliveries:
        await deliveries.subscribe()
        offset = await deliveries.append()
        await deliveries.wake(1)
        await deliveries.failed()
        await deliveries.wake(3)
        assert deliveries.arrivals[2] - deliveries.arrivals[1] >= 2 * FIRST_BACKOFF
        assert (await deliveries.settled(offset))["status"] == "active"


async def test_dead_receivers_delay_no_other(shared_server: Server) -> None:
    """All wakes of a living receiver are delivered while the calls of the dead ones still wait for an answer."""
    async with (
        Deliveries(shared_server, "living", DONE) as living,
        Deliveries(shared_server, "dead", never) as dead,
    ):
        await living.subscribe()
        for number in range(DEAD_RECEIVERS):
            dead.name = f"dead-{number}"
            await dead.subscribe(pattern="dead/*")
        await dead.append()
        await dead.wake(DEAD_RECEIVERS)
        for number in range(1, WAKES + 1):
            offset = await living.append()
            await living.wake(number)
            await living.settled(offset)
        assert not dead.receiver.ended.is_set()
        for number in range(DEAD_RECEIVERS):
            dead.name = f"dead-{number}"
            await dead.ask("DELETE")


async def test_a_receiver_that_accepts_and_is_silent_loses_its_lease(shared_server: Server) -> None:
    async with Deliveries(shared_server, "silent", ACCEPTED, DONE) as deliveries:
        await deliveries.subscribe(lease_seconds=1)
        offset = await deliveries.append()
        first, second = await deliveries.wake(1), await deliveries.wake(2)
        assert begun_at(second) - begun_at(first) >= 1
        body = {"wake_id": first["wake_id"], "generation": 1, "done": True}
        status, answer = await deliveries.ask("POST", "/callback", body, first["callback_token"])
        assert (status, answer["error"]["code"]) == (409, "FENCED")
        await deliveries.settled(offset)


async def test_a_subscription_that_is_deleted_with_a_wake_in_flight_is_not_called_again(shared_server: Server) -> None:
    async with (
        Deliveries(shared_server, "gone", ACCEPTED) as gone,
        Deliveries(shared_server, "stays", DONE) as stays,
    ):
        await gone.subscribe(lease_seconds=1)
        await stays.subscribe(pattern="gone/*")
        offset = await gone.append()
        wake = await gone.wake(1)
        assert (await gone.ask("DELETE"))[0] == 204
        acks = [{"stream": gone.path, "offset": offset}]
        body = {"wake_id": wake["wake_id"], "generation": 1, "acks": acks, "done": True}
        status, answer = await gone.ask("POST", "/callback", body, wake["callback_token"])
        assert (status, answer["error"]["code"]) == (404, "SUBSCRIPTION_NOT_FOUND")
        stays.path = gone.path
        await stays.settled(offset)
        await gone.append()
        await stays.wake(2)
        assert len(gone.arrivals) == 1


async def test_a_stream_that_is_deleted_with_a_wake_in_flight_ends_the_work(shared_server: Server) -> None:
    async with Deliveries(shared_server, "stream", ACCEPTED, DONE) as deliveries:
        await deliveries.subscribe()
        await deliveries.append()
        wake = await deliveries.wake(1)
        assert (await deliveries.request("DELETE", deliveries.path)).status == 204
        body = {"wake_id": wake["wake_id"], "generation": 1, "done": True}
        status, answer = await deliveries.ask("POST", "/callback", body, wake["callback_token"])
        assert (status, answer) == (200, {"ok": True, "next_wake": False})
        offset = await deliveries.append(b"of another stream")
        following = await deliveries.wake(2)
        assert following["streams"] == [
            {
                "path": deliveries.path,
                "link_type": "glob",
                "acked_offset": "-1",
                "tail_offset": offset,
                "has_pending": True,
            }
        ]
        await deliveries.settled(offset)


async def test_a_wake_event_is_written_once_its_stream_is_there(shared_server: Server) -> None:
    async with Deliveries(shared_server, "pull", DONE) as deliveries:
        await deliveries.subscribe(type="pull-wake", webhook=None, wake_stream="pull-wakes")
        await deliveries.append()
        await deliveries.failed()
        await deliveries.request("PUT", "pull-wakes")
        events: list[dict[str, Any]] = []
        while not events:
            response = await deliveries.request("GET", "pull-wakes?offset=-1&live=long-poll")
            events = json.loads(response.content) if response.status == 200 else []
        assert (events[0]["type"], events[0]["subscription_id"], events[0]["stream"]) == ("wake", "pull", "pull/a")
        status, claimed = await deliveries.ask("POST", "/claim", {"worker": "w"})
        assert (status, claimed["generation"]) == (200, events[0]["generation"])


async def test_a_lease_that_is_open_at_a_restart_runs_to_its_end() -> None:
    with Server() as server:
        async with Deliveries(server, "restart", never, DONE) as deliveries:
            await deliveries.subscribe(lease_seconds=2)
            offset = await deliveries.append()
            first = await deliveries.wake(1)
            await deliveries.restart(server)
            second = await deliveries.wake(2)
            assert second["generation"] == 2
            assert begun_at(second) - begun_at(first) >= 2
            await deliveries.settled(offset)


async def test_a_callback_after_a_restart_ends_its_wake() -> None:
    with Server() as server:
        async with Deliveries(server, "restart", ACCEPTED, DONE) as deliveries:
            await deliveries.subscribe(lease_seconds=60)
            offset = await deliveries.append()
            wake = await deliveries.wake(1)
            await deliveries.restart(server)
            acks = [{"stream": deliveries.path, "offset": offset}]
            body = {"wake_id": wake["wake_id"], "generation": 1, "acks": acks, "done": True}
            status, answer = await deliveries.ask("POST", "/callback", body, wake["callback_token"])
            assert (status, answer) == (200, {"ok": True, "next_wake": False})
            await deliveries.append()
            assert (await deliveries.wake(2))["generation"] == 2


async def test_a_retry_keeps_its_schedule_across_a_restart() -> None:
    with Server() as server:
        async with Deliveries(server, "restart", replies(500), replies(500), DONE) as deliveries:
            await deliveries.subscribe()
            offset = await deliveries.append()
            await deliveries.wake(2)
            scheduled_at = await asyncio.to_thread(next_attempt_at, server, 2)
            await deliveries.restart(server)
            assert (await deliveries.ask("GET"))[1]["status"] == "failed"
            assert (await deliveries.wake(3))["generation"] == 3
            assert deliveries.arrivals[2] >= scheduled_at
            await deliveries.settled(offset)


def next_attempt_at(server: Server, failures: int) -> float:
    """Wait until the database of a server has so many failures of its subscription, and return the time of a retry."""
    query = "SELECT next_attempt_at FROM durable_streams_subscription WHERE failures = ?"
    with contextlib.closing(sqlite3.connect(server.directory / "db.sqlite3")) as database:
        for _ in range(1000):
            for (microseconds,) in database.execute(query, [failures]):
                if microseconds is not None:
                    return float(microseconds) / 1_000_000
            time.sleep(0.02)
    raise AssertionError("the failure was not stored")
