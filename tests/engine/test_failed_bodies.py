"""The body of an operation that fails is free at once, and not when the garbage collector runs, which is seldom."""

import asyncio
import gc
import sys
from collections.abc import Callable, Iterator

import pytest
from django.db import connection

from django_durable_streams.engine import Engine, engine_for, lock_waits
from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.store.operations import Append, Create
from tests.engine.held import Holder, holder
from tests.store.lost_commits import lose_commits

TEXT = "text/plain"
SECONDS = 30


@pytest.fixture
def engine(engines: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(lock_waits, "MAX_WAIT", 0.5)
    gc.collect()
    gc.disable()
    yield engine_for()
    gc.enable()


@pytest.fixture
def other() -> Iterator[Holder]:
    with holder() as one:
        yield one


Patch = pytest.MonkeyPatch


def lose_the_commit(other: Holder, patch: Patch) -> str | None:
    lose_commits(patch)
    return None


def hold_the_row(other: Holder, patch: Patch) -> str | None:
    other.hold("a")
    return None


def poison(other: Holder, patch: Patch) -> str | None:
    return "\ud800"


@pytest.mark.skipif(connection.vendor == "sqlite", reason="no connection to a file is lost, and no row is held")
@pytest.mark.parametrize("fail", [lose_the_commit, hold_the_row, poison])
async def test_a_body_is_free_when_its_operation_has_failed(
    engine: Engine, other: Holder, fail: Callable[[Holder, Patch], str | None]
) -> None:
    await engine.write(Create("a", TEXT))
    await engine.write(Append("a", TEXT, b"x"))
    for _ in range(3):
        body = bytes(1_000_000)
        before = sys.getrefcount(body)
        with pytest.MonkeyPatch.context() as patch:
            seq = fail(other, patch)
            assert await status_of(engine, Append("a", TEXT, body, seq=seq)) in (400, 503)
        other.release()
        await engine.write(Append("a", TEXT, b"y"))  # the threads let go of the batch before, soon after its answer
        async with asyncio.timeout(SECONDS):
            while sys.getrefcount(body) != before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def status_of(engine: Engine, operation: Append) -> int:
    try:
        await engine.write(operation)
    except DurableStreamsError as error:
        return error.status
    return 200
