"""Somebody holds a whole table, as a migration does: writes wait for a limited time, and get 503 then."""

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.engine import Engine, engine_for, lock_waits
from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.runtime.connection import DedicatedConnection
from django_durable_streams.store.operations import Append, Create, Delete, Operation, Trim
from django_durable_streams.testing import stop_engines
from tests.engine.held import Holder, holder

TEXT = "text/plain"
COUNT = 200
WAIT = 1.0
ENDED_WITHIN = 15.0
REFUSED_WITHIN = 12.0
"""Seconds. With a wait for each operation, one batch would take longer."""

pytestmark = pytest.mark.skipif(connection.vendor == "sqlite", reason="SQLite has no lock of a table")

STREAMS = [f"s{number}" for number in range(COUNT)]
WRITES: dict[str, Callable[[], list[Operation]]] = {
    "one append": lambda: [Append("s0", TEXT, b"x")],
    "appends to one stream": lambda: [Append("s0", TEXT, b"x") for _ in STREAMS],
    "appends": lambda: [Append(path, TEXT, b"x") for path in STREAMS],
    "empty creates": lambda: [Create(f"new-{path}", TEXT) for path in STREAMS],
    "creates": lambda: [Create(f"new-{path}", TEXT, data=b"x") for path in STREAMS],
    "deletes": lambda: [Delete(path) for path in STREAMS],
    "trims": lambda: [Trim(path, 1) for path in STREAMS],
}


@pytest.fixture
def other() -> Iterator[Holder]:
    with holder() as one:
        yield one


@pytest.fixture
def engine(engines: None, monkeypatch: pytest.MonkeyPatch) -> Engine:
    monkeypatch.setattr(lock_waits, "MAX_WAIT", WAIT)
    return engine_for()


async def outcomes_of(engine: Engine, operations: list[Operation]) -> list[Any]:
    return await asyncio.gather(*(engine.write(operation) for operation in operations), return_exceptions=True)


async def contents(engine: Engine) -> set[bytes]:
    views = [await engine.read(path, Sentinel.START) for path in STREAMS[:3]]
    return {view.segment.data for view in views if view.segment is not None}


@pytest.mark.parametrize("kind", WRITES)
async def test_writes_are_refused_in_time_and_not_done_later(engine: Engine, other: Holder, kind: str) -> None:
    await outcomes_of(engine, [Create(path, TEXT, data=b"data") for path in STREAMS])
    await outcomes_of(engine, [Append(path, TEXT, b"1") for path in STREAMS])  # the committer has the rows in its cache
    other.hold_table(Stream._meta.db_table)
    began = time.monotonic()
    outcomes = await outcomes_of(engine, WRITES[kind]())
    assert time.monotonic() - began < REFUSED_WITHIN
    assert {type(outcome) for outcome in outcomes} == {ServiceUnavailable}
    assert {str(outcome) for outcome in outcomes} == {"Another transaction holds this stream. Try again."}
    other.release()
    again = await outcomes_of(engine, [Append(path, TEXT, b"2") for path in STREAMS])
    assert {outcome.tail for outcome in again} == {6}
    assert await contents(engine) == {b"data12"}


@pytest.mark.parametrize("who", ["reader", "housekeeping", "nobody"])
async def test_an_engine_ends_while_its_threads_wait(engine: Engine, other: Holder, who: str) -> None:
    await engine.write(Create("a", TEXT, data=b"data"))
    other.hold_table(Stream._meta.db_table)
    threads = {"reader": engine._reader._connection, "housekeeping": engine._housekeeper._connection}
    reading = asyncio.ensure_future(engine.read("a", Sentinel.START)) if who == "reader" else None
    while who in threads and not is_waiting(threads[who]):
        engine._housekeeper.wake()
        await asyncio.sleep(0.05)
    began = time.monotonic()
    await asyncio.to_thread(stop_engines)
    assert time.monotonic() - began < ENDED_WITHIN
    if reading is not None:
        with pytest.raises(ServiceUnavailable):
            await reading


def is_waiting(one: DedicatedConnection) -> bool:
    since = one.since
    return since is not None and time.monotonic() - since > WAIT / 2


@pytest.mark.parametrize("kind", ["one append", "appends", "creates"])
async def test_what_waits_is_done_once_the_table_is_free(engine: Engine, other: Holder, kind: str) -> None:
    await outcomes_of(engine, [Create(path, TEXT, data=b"data") for path in STREAMS])
    other.hold_table(Chunk._meta.db_table)
    waiting = asyncio.gather(*(engine.write(operation) for operation in WRITES[kind]()))
    await asyncio.sleep(WAIT / 4)
    assert not waiting.done()
    other.release()
    assert {outcome.tail for outcome in await waiting} == ({1} if kind == "creates" else {5})  # type: ignore[union-attr]
