"""Appends of asynchronous code outside a transaction, which share commits."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import connection, transaction

from django_durable_streams.api import shared_appends
from django_durable_streams.engine import engine_for
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import ServiceUnavailable, StreamClosed, TailMismatch
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.runtime.batch_worker import WorkerEnded
from django_durable_streams.store.operations import Operation

JSON = "application/json"

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def shared(engines: None, monkeypatch: pytest.MonkeyPatch) -> list[Operation]:
    """Get the operations that the committer was given."""
    seen: list[Operation] = []
    engine = engine_for()
    real = engine.write

    def write(operation: Operation) -> Any:
        seen.append(operation)
        return real(operation)

    monkeypatch.setattr(engine, "write", write)
    return seen


async def made() -> Stream:
    return await Stream.objects.acreate(path="a", content_type=JSON)


async def messages(stream: Stream) -> list[Any]:
    return [message async for message in stream.aread()]


async def test_they_go_through_the_committer_with_their_rules(shared: list[Operation]) -> None:
    stream = await made()
    results = await asyncio.gather(*(stream.aappend(number) for number in range(20)))
    assert len(shared) == 20
    assert sorted(await messages(stream)) == [*range(20)]
    assert max(result.tail for result in results) == 50
    stale = stream.next_offset
    last = await stream.aappend("more", producer=("p", 0, 0))
    assert stream.tail_position == last.tail
    assert (await stream.aappend("more", producer=ProducerClaim("p", 0, 0))).duplicate
    with pytest.raises(TailMismatch):
        await stream.aappend("x", if_tail=stale)
    await stream.aappend("end", close=True)
    assert stream.closed
    with pytest.raises(StreamClosed):
        await stream.aappend("too late")
    assert (await messages(stream))[20:] == ["more", "end"]


async def test_one_in_a_transaction_is_rolled_back_with_it(shared: list[Operation]) -> None:
    stream = await made()
    block = transaction.atomic()
    await sync_to_async(block.__enter__)()
    await stream.aappend(1)
    await sync_to_async(transaction.set_rollback)(True)
    await sync_to_async(block.__exit__)(None, None, None)
    assert shared == []
    assert await messages(stream) == []
    await stream.aappend(2)
    assert len(shared) == 1
    assert await messages(stream) == [2]


async def test_an_engine_that_has_ended_does_not_lose_one(
    shared: list[Operation], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await made()

    async def refuse(operation: Operation) -> Any:
        raise WorkerEnded("The server is about to end.")

    monkeypatch.setattr(engine_for(), "write", refuse)
    await stream.aappend(1)
    assert await messages(stream) == [1]

    async def fail(operation: Operation) -> Any:
        raise ServiceUnavailable("The database did not confirm this.")

    monkeypatch.setattr(engine_for(), "write", fail)
    with pytest.raises(ServiceUnavailable):
        await stream.aappend(2)
    assert await messages(stream) == [1]


async def test_a_method_of_the_project_is_called(shared: list[Operation], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = await made()
    real = Stream.append
    monkeypatch.setattr(Stream, "append", lambda self, value, **options: real(self, [value, "checked"], **options))
    await stream.aappend("x")
    assert shared == []
    assert await messages(stream) == [["x", "checked"]]


def test_in_a_test_without_an_engine_none_is_started() -> None:
    async def use() -> None:
        stream = await made()
        await stream.aappend(1)
        assert await messages(stream) == [1]

    async_to_sync(use)()
    assert running_engines() == []


@pytest.mark.skipif(connection.vendor != "sqlite", reason="elsewhere a reader never blocks a writer")
async def test_without_wal_the_appends_inside_a_loop_over_a_query_do_not_wait_for_it(
    shared: list[Operation], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = await made()
    await stream.aappend(1)
    assert len(shared) == 1
    for mode in ("wal", "delete", "memory"):
        own = SimpleNamespace(vendor="sqlite", connection=SimpleNamespace(execute=lambda sql, mode=mode: [(mode,)]))
        assert shared_appends._may_block_writers(own) is (mode != "wal")  # type: ignore[arg-type]
    monkeypatch.setattr(shared_appends, "_may_block_writers", lambda connection: True)
    await stream.aappend(2)
    assert len(shared) == 1
    assert await messages(stream) == [1, 2]
