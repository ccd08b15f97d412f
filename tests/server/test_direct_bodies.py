"""Large bodies, which the loop receives into their own memory, over real sockets and on both loops."""

from __future__ import annotations

import asyncio
import random
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.server.bodies import ArrivingBody, memory
from django_durable_streams.server.uvicorn import uploads
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection
from django_durable_streams.server.uvicorn.mount import Mount
from tests.overriding import override_streams

SIZE = 3 * uploads.DIRECT_BYTES + 12_345
BODY = random.Random(14).randbytes(SIZE)
HEAD = b"POST /v1/stream/a HTTP/1.1\r\nhost: testserver\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n"

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Scenario = Callable[[Client, FastPathConnection], Awaitable[None]]

pytestmark = pytest.mark.usefixtures("engines")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Scenario], None]]:
    """Runs a scenario with a client that is connected to a connection of the fast path."""
    new_loop: Any = pytest.importorskip(request.param).new_event_loop
    Stream.objects.create(path="a", content_type="text/plain")
    with asyncio.Runner(loop_factory=new_loop) as runner:
        yield lambda scenario: runner.run(connect(scenario))
    assert memory.held == 0


async def connect(scenario: Scenario) -> None:
    made: list[FastPathConnection] = []

    def make() -> FastPathConnection:
        connection = FastPathConnection(
            mount=Mount(DurableStreams(), "", DurableStreams),
            config=Config(lambda scope: None, interface="asgi3", log_config=None),
            server_state=ServerState(),
            app_state={},
            _loop=asyncio.get_running_loop(),
        )
        made.append(connection)
        return connection

    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        async with asyncio.timeout(30):
            while not made:  # noqa: ASYNC110  there is no event for it
                await asyncio.sleep(0)
            await scenario((reader, writer), made[0])
    finally:
        writer.close()
        server.close()
        while made and not made[0].transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # the loop calls `connection_lost` before its end


async def status(reader: asyncio.StreamReader) -> int:
    head = await reader.readuntil(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            await reader.readexactly(int(line.split(b":")[1]))
    return int(head.split()[1])


async def is_direct(connection: FastPathConnection) -> None:
    """Wait until the loop receives the body into its memory."""
    while connection._receiver is None:  # noqa: ASYNC110
        await asyncio.sleep(0)


def content() -> bytes:
    return b"".join(bytes(data) for data in Chunk.objects.order_by("end").values_list("data", flat=True))


@pytest.mark.parametrize("first", [0, 1, 70_000, 2 * uploads.DIRECT_BYTES])
def test_a_large_body_arrives_as_it_was_sent(run: Any, first: int) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY[:first])
        await writer.drain()
        await is_direct(connection)
        writer.write(BODY[first:])
        assert await status(reader) == 204
        assert connection._receiver is None

    run(scenario)
    assert content() == BODY


def test_requests_that_follow_a_large_body_at_once_are_answered_in_order(run: Any) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY + HEAD % 3 + b"end" + HEAD % SIZE + BODY)
        assert [await status(reader) for _ in range(3)] == [204, 204, 204]
        writer.write(HEAD % 4 + b"last")
        assert await status(reader) == 204

    run(scenario)
    assert content() == BODY + b"end" + BODY + b"last"


@pytest.mark.parametrize("leave", [asyncio.StreamWriter.close, asyncio.StreamWriter.write_eof])
def test_a_client_that_leaves_in_the_middle_changes_nothing(run: Any, leave: Any) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY[:-1])
        await writer.drain()
        await is_direct(connection)
        leave(writer)
        while connection._receiver or memory.held:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await reader.read() == b""

    run(scenario)
    assert content() == b""


def test_the_place_of_a_body_counts_as_it_is_filled_and_a_refused_body_is_dropped(run: Any) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY[:100])
        await is_direct(connection)
        assert memory.held == 100
        with override_streams(MAX_BODY_MEMORY=SIZE - 10):
            writer.write(BODY[100:])
            assert await status(reader) == 503
        assert memory.held == 0
        # The connection is left to the requests after it.
        writer.write(HEAD % 3 + b"end")
        assert await status(reader) == 204

    run(scenario)
    assert content() == b"end"


@pytest.mark.parametrize("first", [60_000, 250_000])
def test_a_body_whose_first_part_finds_no_room_is_refused(run: Any, first: int) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        with override_streams(MAX_BODY_MEMORY=50_000):
            writer.write(HEAD % SIZE + BODY[:first])
            assert await status(reader) == 503
        assert connection._upload is None

    run(scenario)
    assert content() == b""


def test_the_place_of_a_refused_body_is_free_while_the_connection_goes_on(run: Any) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY[:100])
        await is_direct(connection)
        assert connection._upload is not None
        place = weakref.ref(connection._upload.body._placed)
        with override_streams(MAX_BODY_MEMORY=SIZE - 10):
            writer.write(BODY[100:-5])
            assert await status(reader) == 503
        writer.write(BODY[-5:] + HEAD % 3 + b"end")
        assert await status(reader) == 204
        assert place() is None

    run(scenario)
    assert content() == b"end"


def test_a_body_that_does_not_arrive_in_time_is_refused(run: Any) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY[:-1])
        assert await status(reader) == 408
        assert await reader.read() == b""

    with override_streams(RECEIVE_TIMEOUT=0.5):
        run(scenario)
    assert content() == b""


def test_a_body_on_its_way_has_a_moment_when_the_server_ends(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY[:100])
        await is_direct(connection)
        connection.shutdown()
        writer.write(BODY[100:])
        assert await status(reader) == 204
        assert await reader.read() == b""

    run(scenario)
    assert content() == BODY


def test_the_place_of_a_body_becomes_the_body_without_a_copy() -> None:
    body = ArrivingBody({}, SIZE)
    body.add(BODY[:5])
    place = body.place()
    place[:] = BODY[5:]
    body.count(len(place))
    del place
    tracemalloc.start()
    try:
        whole = body.whole()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        body.release()
    assert whole == BODY
    assert most < SIZE // 10


def test_nobody_holds_the_place_of_a_body_that_has_arrived(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    peaks: list[int] = []

    class Body(ArrivingBody):
        __slots__ = ()

        def whole(self) -> bytes:
            tracemalloc.start()
            try:
                return super().whole()
            finally:
                peaks.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.stop()

    monkeypatch.setattr(uploads, "ArrivingBody", Body)

    async def scenario(client: Client, connection: FastPathConnection) -> None:
        reader, writer = client
        writer.write(HEAD % SIZE + BODY)
        assert await status(reader) == 204

    run(scenario)
    assert content() == BODY
    assert len(peaks) == 1
    assert peaks[0] < SIZE // 10
