"""Connections that answer by themselves: without tasks where they can, and with clients quicker than the server."""

import asyncio
import logging
from collections.abc import Callable
from threading import Event
from typing import Any

import pytest
from django.db import DataError
from django.test import override_settings
from uvicorn.config import Config
from uvicorn.server import ServerState

from django_durable_streams.access.base import Permission
from django_durable_streams.engine import engine_for
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.handlers import HANDLERS
from django_durable_streams.server.uvicorn import request as fast_path_request
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection
from django_durable_streams.server.uvicorn.mount import Mount
from django_durable_streams.store.operations import Create
from django_durable_streams.store.write import group_commit
from django_durable_streams.store.write.commit_context import CommitContext
from tests.overriding import override_streams


class Connection(asyncio.Transport):
    """A connection that may have ended; what it is sent comes out of `sent`."""

    is_closed = False

    def __init__(self) -> None:
        super().__init__()
        self.sent: asyncio.Queue[bytes] = asyncio.Queue()

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    resume_reading = pause_reading

    def write(self, data: Any) -> None:
        self.sent.put_nowait(bytes(data))


def connected(connection: Connection | None = None) -> tuple[FastPathConnection, Connection]:
    protocol = FastPathConnection(
        mount=Mount(DurableStreams(), "", DurableStreams),
        config=Config(lambda scope: None, interface="asgi3", log_config=None),
        server_state=ServerState(),
        app_state={},
        _loop=asyncio.get_running_loop(),
    )
    connection = connection or Connection()
    protocol.connection_made(connection)
    return protocol, connection


def send(protocol: FastPathConnection, method: str, target: str, body: bytes = b"", kind: str = "text/plain") -> None:
    head = f"{method} /v1/stream/{target} HTTP/1.1\r\nhost: testserver\r\ncontent-type: {kind}\r\n"
    protocol.data_received(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


async def status(connection: Connection) -> int:
    return int((await connection.sent.get()).split()[1])


@pytest.mark.usefixtures("engines")
async def test_a_plain_request_takes_no_task() -> None:
    protocol, connection = connected()
    before = asyncio.all_tasks()
    for method, target, body, expected in [
        ("PUT", "a", b"", 201),
        ("POST", "a", b"x", 204),
        ("GET", "a", b"", 200),
        ("HEAD", "a", b"", 200),
        ("POST", "b", b"x", 404),
        ("GET", "a?offset=nowhere", b"", 400),
        ("DELETE", "a", b"", 204),
    ]:
        send(protocol, method, target, body)
        assert asyncio.all_tasks() == before
        assert await status(connection) == expected


def before_each_commit(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Do something between the outcomes that a committer announces and their commit."""
    real = group_commit.apply

    def apply(*args: Any, context: CommitContext, **options: Any) -> Any:
        def then(outcomes: Any) -> None:
            type(context).before_commit(context, outcomes)
            do()

        with monkeypatch.context() as patches:
            patches.setattr(context, "before_commit", then)
            return real(*args, context=context, **options)

    monkeypatch.setattr(group_commit, "apply", apply)


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize(("method", "expected"), [("PUT", 201), ("POST", 204)])
async def test_answers_are_made_before_the_commit_and_sent_after_it(
    method: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = [connected() for _ in range(20)]
    if method == "POST":
        await engine_for().write(Create("0", "text/plain"))
    go_on, made = Event(), asyncio.Event()
    prepared = []

    real = FastPathConnection.prepare

    def prepare(self: FastPathConnection, request: Any, value: object) -> Any:
        prepared.append(real(self, request, value))
        if len(prepared) == len(clients):
            made.set()
        return prepared[-1]

    monkeypatch.setattr(FastPathConnection, "prepare", prepare)
    before_each_commit(monkeypatch, lambda: go_on.wait(30))
    for number, (protocol, _) in enumerate(clients):
        send(protocol, method, str(number) if method == "PUT" else "0", b"x" if method == "POST" else b"")
    async with asyncio.timeout(30):
        await made.wait()
    assert all(connection.sent.empty() for _, connection in clients)
    monkeypatch.setattr(fast_path_request, "finish_request", None)  # it is not needed any more
    go_on.set()
    assert [await status(connection) for _, connection in clients] == [expected] * len(clients)
    assert all(connection.sent.empty() for _, connection in clients)
    assert [one and one[0] for one in prepared] == [expected] * len(clients)


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_an_answer_to_what_was_not_committed_is_not_sent(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clients = [connected() for _ in range(20)]
    if method == "POST":
        await engine_for().write(Create("0", "text/plain"))

    def fail() -> None:
        raise DataError("This is not what it should be.")

    before_each_commit(monkeypatch, fail)
    for number, (protocol, _) in enumerate(clients):
        send(protocol, method, str(number) if method == "PUT" else "0", b"x" if method == "POST" else b"")
    assert [await status(connection) for _, connection in clients] == [400] * len(clients)
    assert all(connection.sent.empty() for _, connection in clients)


class InMemory(Permission):
    """Allows everything but to delete."""

    in_memory = True
    needs_user = False

    def can_create(self, user: Any, path: str, request: Any) -> bool:
        return True

    can_append = can_read = can_create


class InThread(InMemory):
    """The same, from a thread."""

    in_memory = False


class Awaited(InMemory):
    """The same, from a coroutine that needs a task."""

    async def can_create(self, user: Any, path: str, request: Any) -> bool:  # type: ignore[override]
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
        return True

    can_append = can_read = can_create  # type: ignore[assignment]


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("permission", [InMemory, InThread, Awaited])
async def test_who_is_not_allowed_at_once_is_allowed_later(permission: type[Permission]) -> None:
    with override_streams(PERMISSION_CLASSES=f"{__name__}.{permission.__name__}"):
        protocol, connection = connected()
        for method, expected in [("PUT", 201), ("POST", 204), ("GET", 200), ("DELETE", 403)]:
            send(protocol, method, "a", b"x" if method == "POST" else b"")
            assert await status(connection) == expected


@pytest.mark.usefixtures("engines")
async def test_what_takes_long_to_prepare_is_left_to_a_thread() -> None:
    protocol, connection = connected()
    body = b"[" + b",".join(b"%d" % number for number in range(20_000)) + b"]"
    for target, sent, expected in [("a", b"", 201), ("b", body, 201), ("c", body[:-1], 400)]:
        send(protocol, "PUT", target, sent, "application/json")
        assert await status(connection) == expected
    for sent, expected in [(body, 204), (body[:-1], 400)]:
        send(protocol, "POST", "a", sent, "application/json")
        assert await status(connection) == expected
    send(protocol, "GET", "a")
    assert (await connection.sent.get()).endswith(b"\r\n\r\n" + body)


@pytest.mark.usefixtures("engines")
async def test_a_bug_is_answered_and_keeps_up_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(request: Any, engine: Any, result: Any) -> Any:
        raise RuntimeError("a bug")

    protocol, connection = connected()
    other, others = connected()
    send(protocol, "PUT", "a")
    assert await status(connection) == 201
    monkeypatch.setitem(HANDLERS, "POST", HANDLERS["POST"]._replace(respond=fail))
    with caplog.at_level(logging.CRITICAL, "django_durable_streams"):
        send(protocol, "POST", "a", b"x")
        send(other, "PUT", "b")
        assert await status(connection) == 500
        assert await status(others) == 201
    send(protocol, "GET", "a")
    assert await status(connection) == 200


@pytest.mark.usefixtures("engines")
async def test_whoever_leaves_before_the_answer_is_sent_none() -> None:
    protocol, connection = connected()
    send(protocol, "PUT", "a")
    connection.close()
    protocol.connection_lost(None)
    other, others = connected()
    send(other, "PUT", "a")
    assert await status(others) == 200  # it was made nevertheless
    assert connection.sent.empty()


@pytest.mark.parametrize("lost_first", [True, False])
def test_a_live_read_learns_that_its_client_has_left(lost_first: bool) -> None:
    async def leave() -> None:
        protocol, connection = connected()
        told: list[str] = []
        if lost_first:
            connection.close()
            protocol.connection_lost(None)
            assert told == []
            protocol.when_left(lambda: told.append("left"))
        else:
            protocol.when_left(lambda: told.append("left"))
            assert told == []
            connection.close()
            protocol.connection_lost(None)
        assert told == ["left"]

    asyncio.run(leave())


@pytest.mark.usefixtures("engines")
async def test_a_client_that_sends_garbage_and_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    aborted = asyncio.Event()
    with override_streams(SEND_TIMEOUT=0.01):
        protocol, connection = connected()
        monkeypatch.setattr(connection, "get_write_buffer_size", lambda: 1000)
        monkeypatch.setattr(connection, "abort", aborted.set)
        protocol.data_received(b"\0\r\n\r\n")
        assert connection.is_closed
        await asyncio.wait_for(aborted.wait(), 10)


HOSTS = ["a.example", "b.example", "a.example", "refused.example", "a.example", "b.example", "refused.example"]


@pytest.mark.usefixtures("engines")
async def test_the_host_of_each_request_of_a_connection_counts() -> None:
    protocol, connection = connected()
    with override_settings(ALLOWED_HOSTS=["a.example", "b.example"]):
        for number, host in enumerate(HOSTS):
            protocol.data_received(f"PUT /v1/stream/{number} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
            answer = await connection.sent.get()
            assert (b" 400 " if host.startswith("refused") else b" 201 ") in answer
            location = f"location: http://{host}/v1/stream/{number}\r\n".encode()
            assert (location in answer) is not host.startswith("refused")


@pytest.mark.usefixtures("engines")
async def test_changed_settings_count_for_an_open_connection() -> None:
    protocol, connection = connected()
    head = b"GET /v1/stream/a HTTP/1.1\r\nhost: a.example\r\n"
    for hosts, expected in [(["a.example"], 404), (["b.example"], 400), (["*"], 404), ([], 400)]:
        with override_settings(ALLOWED_HOSTS=hosts):
            protocol.data_received(head + b"\r\n")
            assert await status(connection) == expected
            protocol.data_received(head + b"x-name: value\r\n\r\n")
            assert await status(connection) == expected
