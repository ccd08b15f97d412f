"""Permissions that return an awaitable from a synchronous method, and permissions that hang."""

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError

from django_durable_streams.access import workers
from django_durable_streams.models import Stream
from django_durable_streams.permissions import AccessRequest, AllowAll
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime.monitor import monitor_for
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.testing import StreamClient
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

threads: list[str] = []


class Mixed(AllowAll):
    """It queries the database before it returns a coroutine, whose first query fails."""

    in_memory = False

    def can_read(self, user: Any, path: str, request: AccessRequest) -> Any:
        threads.append(threading.current_thread().name)
        return self._ask(get_user_model().objects.exists(), len(threads))

    async def _ask(self, has_users: bool, call: int) -> bool:
        if call == 1:
            raise OperationalError("the connection is closed")
        return not has_users


class Undecided(Mixed):
    """Its second call does not return a coroutine."""

    def can_read(self, user: Any, path: str, request: AccessRequest) -> Any:
        answer = super().can_read(user, path, request)
        if len(threads) == 1:
            return answer
        answer.close()
        return True


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("permission", ["Mixed", "Undecided"])
async def test_it_is_called_again_in_a_thread_for_permissions(permission: str) -> None:
    threads.clear()
    with override_streams(PERMISSION_CLASSES=f"{__name__}.{permission}"):
        await Stream.objects.acreate(path="a")
        assert (await StreamClient().read("a")).status == 200
    assert len(threads) == 2
    assert all(name.startswith("durable-streams-access-permission") for name in threads)


class Hanging(AllowAll):
    """Hangs for some streams, in a thread or in the event loop."""

    in_memory = False
    needs_user = True
    released = threading.Event()

    def prepare(self, user: Any) -> None:
        if prepare_hangs:
            self.released.wait(20)

    def can_read(self, user: Any, path: str, request: AccessRequest) -> bool:
        return not path.startswith("hanging") or self.released.wait(20)

    async def can_append(  # type: ignore[override]
        self, user: Any, path: str, request: AccessRequest
    ) -> bool:
        if path == "timeout":
            raise TimeoutError("the class has raised it")
        if not self.released.is_set():
            await asyncio.sleep(20)
        return True


prepare_hangs: list[bool] = []


@pytest.fixture
def hanging() -> Iterator[None]:
    Hanging.released.clear()
    with override_streams(PERMISSION_CLASSES=f"{__name__}.Hanging"):
        yield
        Hanging.released.set()
        prepare_hangs.clear()


@pytest.mark.django_db(transaction=True)
async def test_a_permission_that_hangs_delays_no_other_requests(hanging: None, engines: None) -> None:
    client = AsgiClient(DurableStreams())
    for path in ("hanging", "a"):
        await Stream.objects.acreate(path=path)
    hanging_reads = []
    for _ in range(workers.PERMISSION_THREADS - 1):
        hanging_reads.append(asyncio.ensure_future(client.request("GET", "hanging")))
        await asyncio.sleep(0)
    for number in range(workers.PERMISSION_THREADS * 2):
        async with asyncio.timeout(5):
            replies = await asyncio.gather(*[client.request("GET", "a") for _ in range(number + 1)])
        assert {reply.status for reply in replies} == {200}
    assert not any(read.done() for read in hanging_reads)
    Hanging.released.set()
    assert {reply.status for reply in await asyncio.gather(*hanging_reads)} == {200}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_waits_for_its_permission_for_so_long_only(
    hanging: None, engines: None, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 0.2)
    client = AsgiClient(DurableStreams())
    await Stream.objects.acreate(path="hanging", content_type="text/plain")
    body = b"x" if method == "POST" else b""
    calls = [
        client.request(method, "hanging", {"content-type": "text/plain"}, body)
        for _ in range(3 * workers.PERMISSION_THREADS)
    ]
    async with asyncio.timeout(5):
        replies = await asyncio.gather(*calls)
    assert {(reply.status, "retry-after" in reply.headers) for reply in replies} == {(503, True)}
    assert (await Stream.objects.aget(path="hanging")).tail_position == 0
    Hanging.released.set()
    monkeypatch.undo()
    reply = await client.request(method, "hanging", {"content-type": "text/plain"}, body)
    assert reply.status == (204 if body else 200)


@pytest.mark.django_db(transaction=True)
async def test_a_timeout_of_the_permission_itself_is_its_own_error(
    hanging: None, engines: None, caplog: pytest.LogCaptureFixture
) -> None:
    await Stream.objects.acreate(path="timeout", content_type="text/plain")
    reply = await AsgiClient(DurableStreams()).request("POST", "timeout", {"content-type": "text/plain"}, b"x")
    assert reply.status == 500
    assert "the class has raised it" in caplog.text


@pytest.mark.django_db(transaction=True)
async def test_calls_whose_requests_have_their_answer_are_not_made(
    hanging: None, engines: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a slow method would delay those that wait, for clients that have left."""
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 0.05)
    calls: list[int] = []

    def call(number: int) -> bool:
        calls.append(number)
        return Hanging.released.wait(20)

    replies = [asyncio.ensure_future(workers.call(partial(call, number))) for number in range(20)]
    results = await asyncio.gather(*replies, return_exceptions=True)
    assert all(isinstance(result, ServiceUnavailable) for result in results)
    Hanging.released.set()
    monkeypatch.undo()
    assert await asyncio.gather(*[workers.call(lambda: True) for _ in range(8)]) == [True] * 8
    assert len(calls) <= workers.PERMISSION_THREADS


@pytest.mark.django_db(transaction=True)
async def test_calls_whose_requests_were_cancelled_are_not_made(hanging: None, engines: None) -> None:
    calls: list[int] = []
    begun = threading.Semaphore(0)

    def call(number: int) -> bool:
        calls.append(number)
        begun.release()
        return Hanging.released.wait(20)

    replies = [asyncio.ensure_future(workers.call(partial(call, number))) for number in range(20)]
    for _ in range(workers.PERMISSION_THREADS):
        assert await asyncio.to_thread(begun.acquire, timeout=10)
    for reply in replies:
        reply.cancel()
    Hanging.released.set()
    assert await asyncio.gather(*[workers.call(lambda: True) for _ in range(8)]) == [True] * 8
    assert len(calls) == workers.PERMISSION_THREADS


@pytest.mark.django_db(transaction=True)
async def test_calls_wait_for_the_threads_that_there_are_if_no_other_can_start(
    hanging: None, engines: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await workers.call(lambda: True)
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    replies = [asyncio.ensure_future(workers.call(lambda: Hanging.released.wait(20))) for _ in range(5)]
    await asyncio.wait(replies, timeout=0.1)
    Hanging.released.set()
    assert await asyncio.gather(*replies) == [True] * 5
    monkeypatch.undo()
    made = len(monitor_for("default")._connections)
    assert await asyncio.gather(*[workers.call(lambda: True) for _ in range(8)]) == [True] * 8
    assert len(monitor_for("default")._connections) <= made + workers.PERMISSION_THREADS - 2  # one was kept


@pytest.mark.django_db(transaction=True)
async def test_a_user_who_cannot_be_prepared_in_time_delays_requests_for_so_long_only(
    hanging: None, engines: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "ANSWER_SECONDS", 0.2)
    await Stream.objects.acreate(path="a")
    client = AsgiClient(DurableStreams())
    prepare_hangs.append(True)
    async with asyncio.timeout(5):
        replies = await asyncio.gather(*[client.request("GET", "a") for _ in range(5)])
    assert {(reply.status, "retry-after" in reply.headers) for reply in replies} == {(503, True)}
    prepare_hangs.clear()
    Hanging.released.set()
    monkeypatch.undo()
    assert (await client.request("GET", "a")).status == 200


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("hangs", ["prepare", "method"])
async def test_the_end_of_the_process_waits_for_so_long_only(
    hanging: None, engines: None, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    """All threads hang, and more requests wait. They get their answer."""
    monkeypatch.setattr(workers, "STOP_SECONDS", 0.5)
    await Stream.objects.acreate(path="hanging")
    client = AsgiClient(DurableStreams())
    if hangs == "prepare":
        prepare_hangs.append(True)
    reads = []
    for _ in range(2):  # the second half waits behind the first
        reads += [asyncio.ensure_future(client.request("GET", "hanging")) for _ in range(workers.PERMISSION_THREADS)]
        await asyncio.wait(reads, timeout=0.2)
    assert not any(read.done() for read in reads)
    async with asyncio.timeout(10):
        await asyncio.to_thread(workers._workers.stop)
        await asyncio.to_thread(workers._pools.stop)
    done, _ = await asyncio.wait(reads, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert done
    assert {read.result().status for read in done} == {503}
    prepare_hangs.clear()
    Hanging.released.set()
    assert {read.status for read in await asyncio.gather(*reads)} <= {200, 503}
    assert (await client.request("GET", "a")).status == 404
