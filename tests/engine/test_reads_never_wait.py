"""Reads never wait for writes, not even for a TTL renewal while another transaction holds the stream's row."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.db import connection, transaction
from django.utils import timezone

from django_durable_streams import clock
from django_durable_streams.api import transactions
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Append, Create
from tests.asgi_client import AsgiClient
from tests.engine.held import Holder, holder
from tests.server.waiting import until

TEXT = "text/plain"
TTL = 1000
SOON = 5.0
"""Seconds within which a read is answered on a busy machine too. A held row is waited for much longer."""

READS = ["", "?offset=-1", "?offset=now", "?offset=-1&live=long-poll", "?offset=-1&live=sse"]


@pytest.fixture
def stream(engines: None) -> Stream:
    """A stream whose TTL has to start anew with the next read."""
    transactions.apply(Create("a", TEXT, ttl=TTL, data=b"data"), "default")
    Stream.objects.filter(path="a").unguarded().update(deadline=timezone.now() + timedelta(seconds=TTL / 2))
    return Stream.objects.get(path="a")


@pytest.fixture
def other(stream: Stream) -> Iterator[Holder]:
    with holder() as one:
        one.hold("a")
        yield one


async def deadline() -> Any:
    info = (await engine_for().read("a", Sentinel.START)).info
    return info.deadline


async def until_renewed() -> None:
    while await deadline() < timezone.now() + timedelta(seconds=TTL - 100):
        pass


@pytest.mark.parametrize("entry_point", ["asgi", "django"])
@pytest.mark.parametrize("query", READS)
async def test_a_read_is_answered_while_the_row_is_held(other: Holder, entry_point: str, query: str) -> None:
    client = AsgiClient(DurableStreams() if entry_point == "asgi" else get_asgi_application())
    if query.endswith("sse"):
        async with client.follow("a") as live:
            await asyncio.wait_for(live.head(), SOON)
            assert b"data:data" in (await asyncio.wait_for(live.chunk(), SOON) or b"")
    else:
        reply = await asyncio.wait_for(client.request("GET", f"a{query}"), SOON)
        assert reply.status == 200
    before = await deadline()
    other.release()
    await asyncio.wait_for(until_renewed(), 20)
    assert await deadline() > before


async def test_many_reads_of_a_locked_stream_share_one_renewal(other: Holder) -> None:
    engine = engine_for()
    client = AsgiClient(DurableStreams())
    for _ in range(50):
        assert (await asyncio.wait_for(client.request("GET", "a"), SOON)).status == 200
    assert engine._writers[0]._backlog.tasks == 1
    other.release()
    await asyncio.wait_for(until_renewed(), 20)
    # It is committed a moment before it is answered.
    await asyncio.wait_for(until(lambda: engine._writers[0]._backlog.tasks == 0), 20)


def test_python_reads_while_the_row_is_held(other: Holder, stream: Stream) -> None:
    assert [*stream.read()] == ["data"]
    if connection.vendor != "sqlite":  # there, a transaction begins with the lock that is held
        with transaction.atomic():
            assert [*stream.read()] == ["data"]
    for page in stream.tail(timeout=0):
        assert list(page) == ["data"]
    other.release()
    assert [*stream.read()] == ["data"]
    assert Stream.objects.get(path="a").deadline > timezone.now() + timedelta(seconds=TTL - 100)


async def test_python_follows_while_the_row_is_held(other: Holder, stream: Stream) -> None:
    async for page in stream.atail(timeout=0):
        assert list(page) == ["data"]
    other.release()
    await asyncio.wait_for(until_renewed(), 20)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="its one lock is for all streams")
def test_a_read_in_a_transaction_does_not_hold_the_row(stream: Stream) -> None:
    with holder() as other, transaction.atomic():
        assert [*stream.read()] == ["data"]
        other.hold("a")  # at once: it would wait for the transaction
        other.release()


async def test_a_stream_that_was_read_in_time_does_not_expire(other: Holder, stream: Stream) -> None:
    """Also where the row is held until its deadline has passed."""
    engine = engine_for()
    info = (await engine.read("a")).info
    engine.renew(info._replace(deadline=timezone.now()))
    other.release()
    await asyncio.wait_for(until_renewed(), 20)
    assert (await engine.write(Append("a", TEXT, b"x"))).tail == 5  # type: ignore[union-attr]


@pytest.mark.parametrize("later", [TTL / 4, TTL * 3 / 4])
async def test_the_last_read_counts_however_long_the_first_waits(
    other: Holder, stream: Stream, monkeypatch: pytest.MonkeyPatch, later: float
) -> None:
    engine = engine_for()
    info = (await engine.read("a")).info
    began = clock.now()
    for seconds in (0, 1, later, later + 1):  # all before the deadline that the readers see
        monkeypatch.setattr(clock, "now", lambda seconds=seconds: began + timedelta(seconds=seconds))
        engine.renew(info)
    assert engine._writers[0]._backlog.tasks == 2
    other.release()
    await asyncio.wait_for(until(lambda: engine._writers[0]._backlog.tasks == 0), 20)
    monkeypatch.undo()
    renewed = await deadline()
    assert renewed >= began + timedelta(seconds=later + 1 + TTL)
