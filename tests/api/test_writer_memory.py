"""Nothing is left of a writer that is over, however it has failed."""

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest

from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import StreamClosed

Remember = Callable[[Any], None]

pytestmark = pytest.mark.usefixtures("engines", "transactional_db")


class Failed(Exception):
    """With arguments of its own, so that it cannot be copied by them."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


@pytest.fixture
def stream() -> Stream:
    return Stream.objects.create(path="a", content_type="text/plain")


async def refuse(batch: list[bytes]) -> None:
    raise Failed(reason="refused")


async def refuse_as_closed(batch: list[bytes]) -> None:
    raise StreamClosed("It is closed.")


def ends_well(stream: Stream, remember: Remember) -> None:
    with stream.writer() as writer:
        remember(writer)
        writer.write("x")


def fails(stream: Stream, remember: Remember) -> None:
    with contextlib.suppress(KeyError), stream.writer() as writer:
        remember(writer)
        writer.write("x")
        raise KeyError("the job's own")


def meets_a_closed_stream(stream: Stream, remember: Remember) -> None:
    with contextlib.suppress(StreamClosed), stream.writer() as writer:
        remember(writer)
        Stream.objects.get(path="a").close()
        writer.write("x")


def cannot_commit(refusal: Callable[[list[bytes]], Coroutine[Any, Any, None]]) -> Callable[[Stream, Remember], None]:
    def run(stream: Stream, remember: Remember) -> None:
        with contextlib.suppress(Failed, StreamClosed), stream.writer() as writer:
            remember(writer)
            writer._writer.core.appender.append = refusal  # type: ignore[method-assign, assignment]
            writer.write("x")
            writer.flush()

    return run


def catches_its_failure(stream: Stream, remember: Remember) -> None:
    with contextlib.suppress(Failed), stream.writer() as writer:
        remember(writer)
        writer._writer.core.appender.append = refuse  # type: ignore[method-assign]
        writer.write("x")
        for _ in range(3):
            try:
                writer.flush()
            except Failed as error:
                caught = error
        assert caught.args == ("refused",)


async def afails(stream: Stream, remember: Remember) -> None:
    with contextlib.suppress(KeyError):
        async with stream.awriter() as writer:
            remember(writer)
            await writer.write("x")
            raise KeyError("the job's own")


async def acannot_commit(stream: Stream, remember: Remember) -> None:
    with contextlib.suppress(Failed):
        async with stream.awriter() as writer:
            remember(writer)
            writer.core.appender.append = refuse  # type: ignore[method-assign]
            await writer.write("x")
            await writer.flush()


def running(work: Callable[[Stream, Remember], Any]) -> Callable[[Stream, Remember], None]:
    def run(stream: Stream, remember: Remember) -> None:
        asyncio.run(work(stream, remember))

    return run


WAYS: dict[str, Callable[[Stream, Remember], None]] = {
    "ends well": ends_well,
    "fails": fails,
    "meets a closed stream": meets_a_closed_stream,
    "cannot commit": cannot_commit(refuse),
    "cannot commit to a closed stream": cannot_commit(refuse_as_closed),
    "catches its failure": catches_its_failure,
    "asynchronous, fails": running(afails),
    "asynchronous, cannot commit": running(acannot_commit),
}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_left_of_a_writer_that_has_ended(way: str, stream: Stream) -> None:
    references: list[weakref.ref[Any]] = []

    def remember(writer: Any) -> None:
        writer = getattr(writer, "_writer", writer)
        references.extend([weakref.ref(writer), weakref.ref(writer.core)])

    WAYS[way](stream, remember)
    assert_gone(references)


async def forget(stream: Stream, remember: Remember) -> None:
    async def generate() -> AsyncIterator[int]:
        async with stream.awriter(on_error="close", error_message="failed") as writer:
            remember(writer)
            writer.core.appender.append = refuse  # type: ignore[method-assign]
            await writer.write("x")
            for _ in range(2):
                with contextlib.suppress(Failed):
                    await writer.flush()
                with contextlib.suppress(Failed):
                    await writer.write("x")
            yield 1

    async for _ in generate():
        break


async def hold_and_forget(stream: Stream, remember: Remember) -> None:
    writer = await stream.awriter(on_error="close", error_message="failed").__aenter__()
    remember(writer)
    writer.core.appender.append = refuse  # type: ignore[method-assign]
    await writer.write("x")
    with contextlib.suppress(Failed):
        await writer.flush()


@pytest.mark.parametrize("way", [forget, hold_and_forget])
def test_one_that_has_failed_and_is_forgotten_ends_its_stream_and_is_gone(
    way: Callable[[Stream, Remember], Any], stream: Stream
) -> None:
    references: list[weakref.ref[Any]] = []
    asyncio.run(way(stream, lambda writer: references.extend([weakref.ref(writer), weakref.ref(writer.core)])))
    assert_gone(references)
    for _ in until(lambda: Stream.objects.get(path="a").closed):
        pass
    assert [*Stream.objects.get(path="a").read()] == ["failed"]


def assert_gone(references: list[weakref.ref[Any]]) -> None:
    assert references
    for _ in until(lambda: all(reference() is None for reference in references)):
        gc.collect()


def until(condition: Callable[[], bool]) -> Iterator[None]:
    """Yield again and again until something is so that another thread brings about."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        yield
        time.sleep(0.001)
