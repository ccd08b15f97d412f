"""Group commit on a real database that refuses one operation of a batch, or ends connections."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connection

from django_durable_streams.engine import Engine, engine_for
from django_durable_streams.models import Chunk
from django_durable_streams.protocol.offsets import Sentinel
from django_durable_streams.protocol.producers import ProducerClaim
from django_durable_streams.store.operations import Append, Create, Operation

TEXT = "text/plain"

on_postgresql = pytest.mark.skipif(connection.vendor != "postgresql", reason="needs a trigger that ends connections")


@pytest.fixture
def engine(engines: None) -> Engine:
    return engine_for()


async def outcomes_of(engine: Engine, *operations: Operation) -> list[Any]:
    return await asyncio.gather(*(engine.write(operation) for operation in operations), return_exceptions=True)


async def content_of(engine: Engine, path: str) -> bytes:
    view = await engine.read(path, Sentinel.START)
    return view.segment.data if view.segment is not None else b""


@pytest.mark.parametrize("poison", ["\ud800", pytest.param("\x00", marks=on_postgresql)])
async def test_an_operation_that_cannot_be_stored_fails_alone(engine: Engine, poison: str) -> None:
    await outcomes_of(engine, Create("a", TEXT), Create("b", TEXT))
    bad = [Append("a", TEXT, b"x", seq=poison), Append("b", TEXT, b"x", producer=ProducerClaim(poison, 0, 0))]
    first, *refused, last, other = await outcomes_of(
        engine, Append("a", TEXT, b"1"), *bad, Append("a", TEXT, b"2"), Append("b", TEXT, b"3")
    )
    assert [outcome.status for outcome in refused] == [400, 400]
    assert [first.tail, last.tail, other.tail] == [1, 2, 1]
    assert (await content_of(engine, "a"), await content_of(engine, "b")) == (b"12", b"3")


@contextmanager
def failing_commits(length: int, failure: str) -> Iterator[None]:
    """Have the commits of chunks with this length fail. A sequence counts them, for it keeps what is rolled back."""
    table = Chunk._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute("CREATE SEQUENCE deaths")
        cursor.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"PERFORM nextval('deaths'); {failure}; RETURN NULL; END $$"
        )
        cursor.execute(
            f"CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON {table} DEFERRABLE INITIALLY DEFERRED "
            f"FOR EACH ROW WHEN (length(NEW.data) = {length}) EXECUTE FUNCTION fail()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP TRIGGER fail ON {table}")
        cursor.execute("DROP FUNCTION fail")
        cursor.execute("DROP SEQUENCE deaths")


@pytest.fixture
def deadly(transactional_db: None) -> Iterator[None]:
    """A database in which the commit of a chunk of three bytes ends the connection."""
    with failing_commits(3, "PERFORM pg_terminate_backend(pg_backend_pid())"):
        yield


@on_postgresql
async def test_a_commit_during_which_the_connection_is_lost_is_not_tried_again(deadly: None, engine: Engine) -> None:
    await engine.write(Create("a", TEXT))
    (lost,) = await outcomes_of(engine, Append("a", TEXT, b"die"))
    assert lost.status == 503
    assert "confirm" in str(lost)
    assert (await engine.write(Append("a", TEXT, b"alive"))).tail == 5  # type: ignore[union-attr]
    assert await content_of(engine, "a") == b"alive"
    assert await asyncio.to_thread(deaths) == 1


@pytest.fixture
def doubtful(transactional_db: None) -> Iterator[None]:
    """A database in which the commit of a chunk fails with the SQLSTATE that it has, over a connection that stays."""
    with failing_commits(5, "RAISE 'lost' USING ERRCODE = convert_from(NEW.data, 'UTF8')"):
        yield


@on_postgresql
@pytest.mark.parametrize("state", [b"08006", b"08007", b"08P01", b"40003"])
@pytest.mark.parametrize("before", [b"", b"cached"], ids=["general", "cached"])
async def test_a_commit_of_which_a_proxy_knows_nothing_is_not_tried_again(
    doubtful: None, engine: Engine, state: bytes, before: bytes
) -> None:
    """A proxy that has lost its server may keep the connection to its client."""
    await engine.write(Create("a", TEXT))
    if before:
        await engine.write(Append("a", TEXT, before))
    (lost,) = await outcomes_of(engine, Append("a", TEXT, state))
    assert lost.status == 503
    assert "confirm" in str(lost)
    assert await asyncio.to_thread(deaths) == 1
    await engine.write(Append("a", TEXT, b"ok"))
    assert await content_of(engine, "a") == before + b"ok"


def deaths() -> int:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM deaths")
            return int(cursor.fetchone()[0])
    finally:
        connection.close()


@on_postgresql
async def test_lost_connections_are_replaced(engine: Engine) -> None:
    for sequence in range(3):
        await engine.write(Create(f"s{sequence}", TEXT))
        await asyncio.to_thread(end_all_others)
        for size in (1, 2):
            assert (await engine.write(Append(f"s{sequence}", TEXT, b"x"))).tail == size  # type: ignore[union-attr]
            await asyncio.to_thread(end_all_others)


def end_all_others() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'idle'"
            )
    finally:
        connection.close()
