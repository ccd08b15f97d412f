"""Awaitables that are started by hand."""

import asyncio
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from django_durable_streams.server.coroutines import start, start_for_value


class Ended:
    """An awaitable of a server that has its value at once, with an iterator that can do nothing else."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __await__(self) -> Any:
        return self

    def __next__(self) -> Any:
        raise StopIteration(self._value)


class Waiting:
    """An awaitable of a server that waits for a future, with an iterator that has no `send` and no `throw`."""

    def __init__(self, future: asyncio.Future[str]) -> None:
        self._future: Iterator[Any] = iter(future.__await__())

    def __await__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self._future)


async def wait(future: asyncio.Future[str]) -> str:
    try:
        return await future
    except ValueError as error:
        return f"caught {error}"


def test_a_value_that_is_there_needs_no_wait() -> None:
    async def at_once() -> str:
        return "value"

    assert start_for_value(at_once()) == ("value", None)
    assert start_for_value(Ended("value")) == ("value", None)
    assert start_for_value(Ended(None)) == (None, None)


def test_an_error_is_raised() -> None:
    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        start_for_value(fail())
    with pytest.raises(LookupError):
        start(fail())


@pytest.mark.parametrize("kind", [wait, Waiting, lambda future: future])
async def test_the_rest_is_awaited(kind: Any) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    value, rest = start_for_value(kind(future))
    assert value is None
    assert rest is not None
    asyncio.get_running_loop().call_soon(future.set_result, "value")
    assert await rest == "value"


@pytest.mark.parametrize("kind", [wait, Waiting, lambda future: future])
async def test_a_cancellation_ends_the_wait(kind: Any) -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    _, rest = start_for_value(kind(future))

    async def await_rest() -> None:
        assert rest is not None
        await rest

    task = asyncio.create_task(await_rest())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_the_future_reaches_the_coroutine() -> None:
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    _, rest = start_for_value(wait(future))
    assert rest is not None
    asyncio.get_running_loop().call_soon(future.set_exception, ValueError("it"))
    assert await rest == "caught it"


async def test_a_coroutine_may_wait_more_than_once() -> None:
    class Bare:
        def __await__(self) -> Generator[None, None, str]:
            yield
            yield
            return "value"

    value, rest = start_for_value(Bare())
    assert value is None
    assert rest is not None
    assert await rest == "value"
