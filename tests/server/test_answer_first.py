"""The answer to an append does not wait for the readers of the stream."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from django_durable_streams.engine import fan_out
from django_durable_streams.server.asgi import DurableStreams
from tests.asgi_client import AsgiClient
from tests.server.test_fast_path import Connection, connected, send, status

READERS = 40


class Noted(Connection):
    """A connection that notes when it is written to."""

    def __init__(self, name: str, order: list[str]) -> None:
        super().__init__()
        self._name, self._order = name, order
        self.was_written = asyncio.Event()

    def write(self, data: Any) -> None:
        self._order.append(self._name)
        self.was_written.set()
        super().write(data)


async def publishing(order: list[str]) -> tuple[Any, Any]:
    """Create the stream by a connection, and return the connection and its other end."""
    publisher, answers = connected(Noted("answer", order))
    send(publisher, "PUT", "a")
    assert await status(answers) == 201
    return publisher, answers


async def readers(order: list[str]) -> list[Noted]:
    """Open event streams, and return their connections once all of them wait."""
    connections = [Noted("reader", order) for _ in range(READERS)]
    for connection in connections:
        send(connected(connection)[0], "GET", "a?offset=-1&live=sse")
    for connection in connections:
        assert await status(connection) == 200
        while b"upToDate" not in await connection.sent.get():
            pass
        connection.was_written.clear()
    order.clear()
    return connections


async def assert_all_get(connections: list[Noted], text: bytes) -> None:
    for connection in connections:
        assert text in await asyncio.wait_for(connection.sent.get(), 20)


@pytest.mark.usefixtures("engines")
async def test_on_the_fast_path_the_answer_is_written_before_the_events() -> None:
    order: list[str] = []
    publisher, answers = await publishing(order)
    connections = await readers(order)
    for number in range(5):
        send(publisher, "POST", "a", b"news %d" % number)
        assert await status(answers) == 204
        await assert_all_get(connections, b"news %d" % number)
        assert order == ["answer"] + ["reader"] * READERS
        order.clear()


@pytest.mark.usefixtures("engines")
async def test_through_asgi_the_answer_is_sent_before_the_events() -> None:
    order: list[str] = []
    publisher = AsgiClient(DurableStreams())
    await publisher.create("a")
    connections = await readers(order)
    assert (await publisher.append("a", b"news")).status == 204
    assert order == []
    await assert_all_get(connections, b"news")


@pytest.mark.usefixtures("engines")
async def test_other_requests_are_answered_between_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "MAX_NOTIFIED", 1)
    order: list[str] = []
    publisher, answers = await publishing(order)
    connections = await readers(order)
    send(publisher, "POST", "a", b"news")
    assert await status(answers) == 204
    waits = [asyncio.create_task(connection.was_written.wait()) for connection in connections]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    send(publisher, "GET", "no%0astream")  # answered at once
    assert await status(answers) == 400
    assert order.count("reader") < READERS
    await asyncio.gather(*waits)
    await assert_all_get(connections, b"news")


@pytest.mark.usefixtures("engines")
async def test_appends_in_a_row_reach_all_readers_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fan_out, "MAX_NOTIFIED", 3)
    order: list[str] = []
    publisher, answers = await publishing(order)
    connections = await readers(order)
    for number in range(20):
        send(publisher, "POST", "a", b"<%d>" % number)
        assert await status(answers) == 204
    expected = b"".join(b"<%d>" % number for number in range(20))
    for connection in connections:
        received = b""
        while len(received) < len(expected):
            event = await asyncio.wait_for(connection.sent.get(), 20)
            received += b"".join(line[5:] for line in event.splitlines() if line.startswith(b"data:<"))
        assert received == expected
