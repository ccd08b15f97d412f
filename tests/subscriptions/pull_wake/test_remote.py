"""Workers of subscriptions of another server, by URL: of this package, and of the protocol's reference server."""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any
from uuid import uuid4

import httpx
import pytest

from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.protocol.subscriptions import SubscriptionError
from django_durable_streams.pull_wake import PullSubscription, Wake, WakeMessage
from tests.servers import Server
from tests.subscriptions.pull_wake.fakes import until
from tests.subscriptions.pull_wake.remote_servers import own_server, reference_server

JSON = "application/json"
SECONDS = 60
TARGETS = {"own": own_server, "reference": reference_server}


@pytest.fixture(scope="module", params=TARGETS)
def root(request: pytest.FixtureRequest) -> Iterator[str]:
    with TARGETS[request.param]() as url:
        yield url


class Remote:
    """A subscription with a name of its own, and the streams that it follows."""

    def __init__(self, root: str) -> None:
        self.name = f"s-{uuid4().hex[:8]}"
        self.subscription = PullSubscription(self.name, url=root)
        self._root = root

    async def subscribe(self, **options: Any) -> None:
        assert await self.subscription.aensure(
            **{"pattern": f"{self.name}/*", "wake_stream": f"wake/{self.name}", **options}
        )

    async def request(self, method: str, path: str, body: bytes = b"", kind: str = JSON, **headers: str) -> Any:
        async with httpx.AsyncClient(timeout=10) as client:
            url = f"{self._root}{path}"
            response = await client.request(method, url, content=body, headers={"content-type": kind, **headers})
            assert response.is_success, response.text
            return response

    async def stream(self, path: str, *appends: bytes, kind: str = JSON) -> None:
        await self.request("PUT", f"{self.name}/{path}", kind=kind)
        for body in appends:
            await self.append(path, body, kind)

    async def append(self, path: str, body: bytes, kind: str = JSON) -> None:
        await self.request("POST", f"{self.name}/{path}", body, kind)

    async def acked(self, path: str) -> str:
        described = (await self.request("GET", f"__ds/subscriptions/{self.name}")).json()
        return next(one["acked_offset"] for one in described["streams"] if one["path"] == f"{self.name}/{path}")

    async def tail(self, path: str) -> str:
        return (await self.request("HEAD", f"{self.name}/{path}")).headers["stream-next-offset"]

    async def claim(self) -> Any:
        return await self.request("POST", f"__ds/subscriptions/{self.name}/claim", b'{"worker": "vanished"}')


@pytest.fixture
def remote(root: str) -> Remote:
    return Remote(root)


async def first(wakes: AsyncGenerator[Wake, None]) -> list[WakeMessage]:
    async with aclosing(wakes) as claimed:
        async for wake in claimed:
            messages = [message async for message in wake.messages()]
            assert await wake.ack(done=True)
            return messages
    raise AssertionError("there was no wake")


async def everything(remote: Remote) -> list[Any]:
    wakes = remote.subscription.aconsume("w", timeout=0)
    return [message.value async for wake in wakes async for message in wake.messages()]


async def test_messages_are_handed_over_and_acknowledged(remote: Remote) -> None:
    await remote.subscribe()
    await remote.stream("a", b'[{"n": 1}, 2]', b'"x"')
    await remote.stream("b", b"[[]]")
    messages = await first(remote.subscription.aconsume())
    assert [(one.stream, one.value) for one in messages] == [
        (f"{remote.name}/a", {"n": 1}),
        (f"{remote.name}/a", 2),
        (f"{remote.name}/a", "x"),
        (f"{remote.name}/b", []),
    ]
    assert [one.offset is None for one in messages] == [True, True, False, False]
    for path in "ab":
        assert await remote.acked(path) == await remote.tail(path)
    assert await everything(remote) == []
    await remote.append("a", b"3")
    assert await everything(remote) == [3]


async def test_an_append_wakes_a_waiting_worker(remote: Remote) -> None:
    await remote.subscribe()
    await remote.stream("a")
    waiting = asyncio.ensure_future(first(remote.subscription.aconsume(poll_interval=600)))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    await remote.append("a", b"1")
    assert [one.value for one in await asyncio.wait_for(waiting, SECONDS)] == [1]


async def test_a_body_that_raises_gets_the_same_messages_again(remote: Remote) -> None:
    await remote.subscribe()
    await remote.stream("a", b"[1, 2]")

    async def fail() -> None:
        async with aclosing(remote.subscription.aconsume()) as wakes:
            async for wake in wakes:
                async for message in wake.messages():
                    assert message.value == 1
                    assert await wake.ack()  # the page is not whole, so nothing can be acknowledged
                    break
                raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            await fail()
        assert await remote.acked("a") == "-1"
    assert await everything(remote) == [1, 2]


async def test_another_worker_takes_over_from_one_that_has_vanished(remote: Remote) -> None:
    await remote.subscribe(lease=1.0)
    await remote.stream("a", b"1")
    await remote.claim()
    began = time.monotonic()
    messages = await asyncio.wait_for(first(remote.subscription.aconsume(poll_interval=5)), SECONDS)
    assert [one.value for one in messages] == [1]
    assert time.monotonic() - began > 0.5


async def test_a_body_may_run_longer_than_its_lease(remote: Remote) -> None:
    await remote.subscribe(lease=2.0)
    await remote.stream("a", b"1")
    async with aclosing(remote.subscription.aconsume()) as wakes:
        async for wake in wakes:
            messages = [message.value async for message in wake.messages()]
            await asyncio.sleep(3.0)
            assert await everything(remote) == []
            assert await wake.ack(done=True)
            break
    assert messages == [1]
    assert await everything(remote) == []


async def test_bytes_and_text_come_page_by_page(remote: Remote) -> None:
    await remote.subscribe()
    await remote.stream("bytes", b"\x00\xff", b"\x01", kind="application/octet-stream")
    await remote.stream("text", "aä".encode(), b"b", kind="text/plain")
    assert await everything(remote) == [b"\x00\xff\x01", "aäb"]


async def test_a_character_is_handed_over_whole(remote: Remote) -> None:
    await remote.subscribe()
    await remote.stream("text", b"a\xc3", kind="text/plain")
    assert await first(remote.subscription.aconsume(timeout=0)) == []
    assert await remote.acked("text") == "-1"
    await remote.append("text", b"\xa4", "text/plain")
    assert await everything(remote) == ["aä"]


async def test_a_deleted_stream_delays_no_other(remote: Remote) -> None:
    await remote.subscribe()
    await remote.stream("a", b"1")
    await remote.stream("b", b"2")
    async with aclosing(remote.subscription.aconsume()) as wakes:
        async for wake in wakes:
            await remote.request("DELETE", f"{remote.name}/a")
            assert [message.value async for message in wake.messages()] == [2]
            assert await wake.ack(done=True)
            break
    assert await remote.acked("b") == await remote.tail("b")


async def test_without_events_the_poll_finds_the_work(remote: Remote) -> None:
    await remote.subscribe()
    await remote.request("DELETE", f"wake/{remote.name}")
    await remote.stream("a")
    waiting = asyncio.ensure_future(first(remote.subscription.aconsume(poll_interval=0.2)))
    await asyncio.sleep(0.3)
    await remote.append("a", b"1")
    assert [one.value for one in await asyncio.wait_for(waiting, SECONDS)] == [1]


async def test_a_subscription_is_confirmed_and_refused(remote: Remote) -> None:
    with pytest.raises(SubscriptionError) as raised:
        await everything(remote)
    assert raised.value.error_code == "SUBSCRIPTION_NOT_FOUND"
    await remote.subscribe(streams=[f"{remote.name}/a/b"], description="x")
    with pytest.raises(AssertionError):
        await remote.subscribe(streams=[f"{remote.name}/a/b"], description="x")
    with pytest.raises(SubscriptionError) as raised:
        await remote.subscribe(description="y")
    assert raised.value.error_code == "SUBSCRIPTION_ALREADY_EXISTS"


def test_synchronous_code_consumes_too(remote: Remote) -> None:
    remote.subscription.ensure(pattern=f"{remote.name}/*", wake_stream=f"wake/{remote.name}")
    asyncio.run(remote.stream("a", b"[1, 2]"))
    seen = [message.value for wake in remote.subscription.consume(timeout=0) for message in wake.messages()]
    assert seen == [1, 2]


async def test_workers_share_a_subscription_one_at_a_time(remote: Remote) -> None:
    await remote.subscribe()
    await remote.stream("a")
    handled: list[int] = []
    holders: set[str] = set()

    async def work(name: str) -> None:
        async with aclosing(remote.subscription.aconsume(name, poll_interval=0.5)) as wakes:
            async for wake in wakes:
                assert not holders
                holders.add(name)
                async for message in wake.messages():
                    handled.append(message.value)
                await asyncio.sleep(0.01)
                holders.remove(name)

    tasks = [asyncio.ensure_future(work(name)) for name in "abc"]
    for number in range(20):
        await remote.append("a", str(number).encode())
    while len(handled) < 20:
        assert not any(task.done() for task in tasks)
        await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert all(task.cancelled() for task in tasks)
    assert handled == list(range(20))


async def test_a_worker_waits_for_a_server_that_is_killed_and_comes_back() -> None:
    with Server(long_poll_timeout=2.0) as server:
        remote = Remote(f"{server.base_url}/v1/stream/")
        await remote.subscribe()
        await remote.stream("a")
        handled: list[int] = []

        async def work() -> None:
            async for wake in remote.subscription.aconsume(poll_interval=0.5):
                async for message in wake.messages():
                    handled.append(message.value)

        task = asyncio.ensure_future(work())
        await remote.append("a", b"1")
        await until(lambda: handled == [1])
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(1.0)
        assert not task.done()
        await asyncio.to_thread(server.start)
        await remote.append("a", b"2")
        while 2 not in handled:
            assert not task.done()
            await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        assert set(handled) == {1, 2}


@pytest.mark.parametrize("url", ["", "ftp://host/", "http:///x", "http://host/?a=b"])
def test_a_url_has_to_be_one(url: str) -> None:
    if url:
        with pytest.raises(ValueError, match="URL"):
            PullSubscription("s", url=url).aconsume()
    else:
        assert "url" not in repr(PullSubscription("s", url=url))


async def test_a_url_without_streams_is_a_refusal() -> None:
    with own_server() as root, pytest.raises(DurableStreamsError):
        await everything(Remote(root.replace("/v1/stream/", "/nothing/")))
