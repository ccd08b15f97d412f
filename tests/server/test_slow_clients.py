"""Clients that take their responses slowly, or not at all: what they hold, and for how long."""

import asyncio
from typing import Any, cast
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.engine import engine_for
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.protocol.messages import Response
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.server import response_memory
from django_durable_streams.server.asgi_sending import send_response
from django_durable_streams.server.response_memory import PIECE_BYTES, ResponseMemory, Transfer, memory
from django_durable_streams.server.sse_reader import SseReader
from django_durable_streams.server.uvicorn import downloads
from django_durable_streams.server.uvicorn.fast_path import FastPathConnection
from django_durable_streams.store.operations import Create
from tests.overriding import override_streams
from tests.server.test_fast_path import Connection, connected, send
from tests.server.waiting import until

MIB = 1024 * 1024
HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024
BINARY = "application/octet-stream"


class SlowConnection(Connection):
    """A connection whose client takes data when the test says so."""

    protocol: FastPathConnection

    def __init__(self) -> None:
        super().__init__()
        self.received = b""
        self.unsent = b""
        self.is_paused = False
        self.aborted = asyncio.Event()

    def write(self, data: Any) -> None:
        self.unsent += bytes(data)
        if len(self.unsent) > HIGH_WATER and not self.is_paused:
            self.is_paused = True
            self.protocol.pause_writing()

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def take(self, count: int) -> None:
        self.received += self.unsent[:count]
        self.unsent = self.unsent[count:]
        if self.is_paused and len(self.unsent) <= LOW_WATER:
            self.is_paused = False
            self.protocol.resume_writing()

    def abort(self) -> None:
        self.is_closed = True
        self.unsent = b""
        self.protocol.connection_lost(None)
        self.aborted.set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients may be cut off as soon as they have begun."""
    monkeypatch.setattr(response_memory, "GRACE_SECONDS", 0.0)


def slow_client() -> SlowConnection:
    connection = SlowConnection()
    connection.protocol, _ = connected(connection)
    return connection


async def page(path: str, size: int = MIB) -> bytes:
    """Create a stream with a page of so many bytes."""
    data = path.encode() * (size // len(path))
    await engine_for().write(Create(path, BINARY, data=data))
    return data


async def ask(connection: SlowConnection, target: str) -> None:
    """Ask for a page, and wait for the first bytes of the response."""
    send(connection.protocol, "GET", target)
    await until(lambda: bool(connection.unsent))


@pytest.mark.usefixtures("engines")
async def test_a_transport_holds_a_piece_of_a_large_page_and_the_client_gets_all_of_it() -> None:
    data = await page("a")
    before = memory.held
    client = slow_client()
    await ask(client, "a?offset=-1")
    send(client.protocol, "HEAD", "a")  # the next request waits
    while client.unsent:
        assert len(client.unsent) <= HIGH_WATER + downloads.PIECE_BYTES
        assert memory.held == before + (len(data) if client.is_paused else 0)
        client.take(50_000)
    assert client.received.partition(b"\r\n\r\n")[2] == data
    assert memory.held == before
    await until(lambda: bool(client.unsent))
    assert client.unsent.startswith(b"HTTP/1.1 200 OK")


@pytest.mark.usefixtures("engines")
async def test_a_client_that_takes_byte_after_byte_is_cut_off() -> None:
    await page("a")
    before = memory.held
    with override_streams(SEND_TIMEOUT=0.02):
        client = slow_client()
        await ask(client, "a?offset=-1")

        def is_cut_off() -> bool:
            client.take(1)
            return client.aborted.is_set()

        async with asyncio.timeout(20):
            await until(is_cut_off)
    assert memory.held == before


@pytest.mark.usefixtures("engines")
async def test_a_client_that_takes_byte_after_byte_of_the_last_bytes_is_cut_off() -> None:
    await page("a", 1000)
    with override_streams(SEND_TIMEOUT=0.02):
        client = slow_client()
        await ask(client, "a?offset=-1")
        client.protocol.close()

        def is_cut_off() -> bool:
            if len(client.unsent) > 1:
                client.take(1)
            return client.aborted.is_set()

        async with asyncio.timeout(20):
            await until(is_cut_off)


@pytest.mark.usefixtures("engines")
async def test_a_client_that_leaves_in_the_middle_of_a_page_holds_nothing() -> None:
    await page("a")
    before = memory.held
    client = slow_client()
    await ask(client, "a?offset=-1")
    assert memory.held == before + MIB
    client.abort()
    assert memory.held == before


@pytest.mark.usefixtures("engines")
async def test_clients_of_the_same_page_count_once() -> None:
    await page("a")
    before = memory.held
    clients = [slow_client() for _ in range(5)]
    for client in clients:
        await ask(client, "a?offset=-1")
    assert memory.held == before + MIB
    for client in clients:
        client.abort()
    assert memory.held == before


@pytest.mark.usefixtures("engines", "impatient")
async def test_those_who_have_waited_for_longest_are_cut_off_where_memory_is_short() -> None:
    for path in ("a", "b", "c", "d"):
        await page(path)
    before = memory.held
    with override_streams(MAX_RESPONSE_MEMORY=3 * MIB):
        first, second, third, fourth = clients = [slow_client() for _ in range(4)]
        for client, path in zip(clients[:3], ("a", "b", "c"), strict=True):
            await ask(client, f"{path}?offset=-1")
        first.take(HIGH_WATER + downloads.PIECE_BYTES)  # it goes on, and the second has waited for longest now
        await ask(fourth, "d?offset=-1")
        await asyncio.wait_for(second.aborted.wait(), 20)
    assert [client.aborted.is_set() for client in clients] == [False, True, False, False]
    assert memory.held == before + 3 * MIB
    for client in (first, third, fourth):
        client.abort()
    assert memory.held == before


@pytest.mark.usefixtures("engines")
async def test_the_data_of_a_large_event_counts_until_its_last_piece() -> None:
    await page("a", 2 * MIB)
    before = memory.held
    engine = engine_for()
    with override_streams(PAGE_BYTES=4 * MIB):
        snapshot = await engine.read("a", Sentinel.START)
    reader = SseReader(engine, snapshot, None, engine.live_reader_limit.acquire())
    async with reader:
        await reader.next_chunk()
        assert memory.held == before + 2 * MIB
        reader.cut_off()
        assert await reader.next_chunk() == b""
        assert reader.finished
    assert memory.held == before


@pytest.mark.usefixtures("impatient")
async def test_a_response_by_asgi_ends_where_memory_is_short() -> None:
    async def accept_head(message: Any) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    with override_streams(MAX_RESPONSE_MEMORY=3 * MIB):
        sending = [
            asyncio.create_task(send_response(accept_head, Response(200, [], bytes([number]) * MIB)))
            for number in range(4)
        ]
        done, waiting = await asyncio.wait(sending, timeout=20, return_when=asyncio.FIRST_COMPLETED)
        assert done == {sending[0]}
        with pytest.raises(BrokenPipeError):
            await sending[0]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert len(memory) == 0


@pytest.mark.usefixtures("impatient")
async def test_a_single_response_may_be_larger_than_the_memory() -> None:
    cut_off: list[str] = []
    loop = asyncio.get_running_loop()
    responses = ResponseMemory()
    with override_streams(MAX_RESPONSE_MEMORY=10):
        small, large = (
            Transfer(bytes(size), loop, lambda name=name: cut_off.append(name))
            for name, size in (("small", 5), ("large", 100))
        )
        responses.add(small)
        responses.add(large)
    await until(lambda: bool(cut_off))
    assert (cut_off, responses.held, len(responses)) == (["small"], 100, 1)
    for _ in range(2):
        for transfer in (small, large):
            responses.report_progress(transfer)
            responses.remove(transfer)
    assert (responses.held, len(responses)) == (0, 0)


@pytest.mark.usefixtures("engines")
async def test_a_page_is_refused_while_all_others_have_only_begun() -> None:
    for path in ("a", "b"):
        await page(path)
    with override_streams(MAX_RESPONSE_MEMORY=MIB):
        first, second = slow_client(), slow_client()
        await ask(first, "a?offset=-1")
        await ask(second, "b?offset=-1")
        assert second.unsent.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: 1\r\n" in second.unsent
        second.take(10_000)
        first.abort()
        await ask(second, "b?offset=-1")
        assert second.unsent.startswith(b"HTTP/1.1 200 ")
        second.abort()


async def test_a_long_response_by_asgi_is_refused_before_its_first_message() -> None:
    sent: list[Any] = []

    async def send_message(message: Any) -> None:
        sent.append(message)

    with override_streams(MAX_RESPONSE_MEMORY=MIB), memory.counted(bytes(MIB), lambda: None):
        with pytest.raises(ServiceUnavailable):
            await send_response(send_message, Response(200, [], bytes(MIB)))
        assert sent == []
        await send_response(send_message, Response(200, [], bytes(PIECE_BYTES)))
    assert len(sent) == 2


@pytest.mark.usefixtures("engines")
async def test_a_large_event_is_not_begun_without_room_for_its_data() -> None:
    await page("a", 2 * MIB)
    engine = engine_for()
    reader = SseReader(engine, await engine.read("a", Sentinel.START), None, engine.live_reader_limit.acquire())
    with override_streams(MAX_RESPONSE_MEMORY=2 * MIB), memory.counted(bytes(MIB), lambda: None):
        async with reader:
            assert await reader.next_chunk() == b""
            assert reader.finished  # the client reconnects


@pytest.mark.usefixtures("engines")
async def test_pages_that_are_read_at_once_share_the_memory() -> None:
    for number in range(12):
        await page(f"{number:02d}", 100_000)
    engine = engine_for()
    with override_streams(MAX_RESPONSE_MEMORY=500_000):
        reads = [engine.read(f"{number:02d}", Sentinel.START) for number in range(12)]
        outcomes = await asyncio.gather(*reads, engine.read("00"), return_exceptions=True)
        refused = [isinstance(outcome, ServiceUnavailable) for outcome in outcomes]
        assert refused == [False] * 8 + [True] * 4 + [False]
        snapshot = await engine.read("11", Sentinel.START)
    assert snapshot.segment is not None


class NoLoop:
    """Takes the calls that cut transfers off, and forgets them."""

    def call_soon_threadsafe(self, function: Any, *args: Any) -> None: ...


steps = st.lists(st.tuples(st.sampled_from(["add", "admit", "progress", "remove"]), st.integers(0, 7)), max_size=60)


@given(steps, st.integers(1, 60))
def test_the_count_is_the_size_of_all_different_data(order: list[tuple[str, int]], limit: int) -> None:
    responses, loop = ResponseMemory(), cast("asyncio.AbstractEventLoop", NoLoop())
    data = [bytes(size) for size in (3, 5, 8, 13)]
    transfers = [Transfer(data[number % 4], loop, lambda: None) for number in range(8)]

    def different() -> dict[int, bytes]:
        return {id(transfer.data): transfer.data for transfer in responses._transfers}

    with override_streams(MAX_RESPONSE_MEMORY=limit), patch.object(response_memory, "GRACE_SECONDS", 0.0):
        for step, number in order:
            transfer = transfers[number]
            if step == "progress":
                responses.report_progress(transfer)
            elif step == "remove" or transfer in responses._transfers:
                responses.remove(transfer)
            else:
                (responses.add if step == "add" else responses.admit)(transfer)
                assert responses.held <= limit or list(different()) == [id(transfer.data)]
            assert responses.held == sum(map(len, different().values()))
