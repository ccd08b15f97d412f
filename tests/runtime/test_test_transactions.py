"""In a TestCase without StreamsMixin, whatever cannot see its transaction says so at once."""

import time
from collections.abc import Callable, Iterator
from threading import Thread
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections
from django.test import AsyncClient, Client

from django_durable_streams.models import Stream
from django_durable_streams.runtime.test_transactions import InvisibleTransaction
from django_durable_streams.testing import StreamClient, inline_engines

TEXT = "text/plain"
AT_ONCE = 5.0
"""Seconds: what waited took 30."""


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < AT_ONCE


async def atail(stream: Stream) -> None:
    async for _ in stream.atail():
        pass


async def awrite(stream: Stream) -> None:
    async with stream.awriter() as writer:
        await writer.write("x")


def write(stream: Stream) -> None:
    with stream.writer() as writer:
        writer.write("x")


ENGINE: dict[str, Callable[[Stream], Any]] = {
    "a request by the URLs that creates": lambda _: Client().put("/v1/stream/b", b"x", content_type=TEXT),
    "a request by the URLs that appends": lambda _: Client().post("/v1/stream/a", b"x", content_type=TEXT),
    "a request by the URLs that reads": lambda _: Client().get("/v1/stream/a"),
    "an asynchronous request": lambda _: async_to_sync(AsyncClient().get)("/v1/stream/a"),
    "a live read by the URLs": lambda _: async_to_sync(AsyncClient().get)("/v1/stream/a?offset=-1&live=sse"),
    "a request to the ASGI application": lambda _: async_to_sync(StreamClient().read)("a"),
    "a long-poll": lambda _: async_to_sync(StreamClient().long_poll)("a"),
    "a tail": lambda stream: list(stream.tail(timeout=60)),
    "an asynchronous tail": lambda stream: async_to_sync(atail)(stream),
    "a writer": write,
    "an asynchronous writer": lambda stream: async_to_sync(awrite)(stream),
}

THREAD: dict[str, Callable[[Stream], Any]] = {
    "a create": lambda _: Stream.objects.create(path="b", content_type=TEXT),
    "an append": lambda stream: stream.append("x"),
    "appends": lambda stream: stream.append_many(["x", "y"]),
    "a read": lambda stream: list(stream.read()),
    "a delete": lambda stream: stream.delete(),
}


@pytest.mark.django_db
@pytest.mark.parametrize("use", ENGINE.values(), ids=list(ENGINE))
def test_what_the_engine_would_do_is_refused(use: Callable[[Stream], Any]) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    with pytest.raises(InvisibleTransaction, match="StreamsMixin"):
        use(stream)
    assert list(stream.read()) == []


@pytest.mark.django_db
@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("use", THREAD.values(), ids=list(THREAD))
def test_what_another_thread_would_do_is_refused(use: Callable[[Stream], Any], inline: bool) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            use(stream)
        except BaseException as error:
            raised.append(error)
        finally:
            connections.close_all()

    thread = Thread(target=run)
    if inline:
        with inline_engines():
            thread.start()
            thread.join()
    else:
        thread.start()
        thread.join()
    assert [type(error) for error in raised] == [InvisibleTransaction]
    assert "StreamsMixin" in str(raised[0])


@pytest.mark.django_db
@pytest.mark.parametrize("use", [*ENGINE.values()][:6], ids=[*ENGINE][:6])
def test_with_engines_inside_the_transaction_nothing_is(use: Callable[[Stream], Any]) -> None:
    with inline_engines():
        stream = Stream.objects.create(path="a", content_type=TEXT, closed=True)
        use(stream)


@pytest.mark.parametrize("use", [*ENGINE.values(), *THREAD.values()], ids=[*ENGINE, *THREAD])
def test_where_things_are_committed_nothing_is(use: Callable[[Stream], Any], engines: None) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    if use in (ENGINE["a long-poll"], ENGINE["a tail"], ENGINE["an asynchronous tail"]):
        stream.close()
    use(stream)
