"""Following a stream from Python."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from django.db import connection, transaction

from django_durable_streams.api.tail import Page
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import InvalidOffset, StreamNotFound
from django_durable_streams.store.operations import Append, Delete
from tests.server.waiting import elsewhere, until, watched

JSON = "application/json"


@pytest.fixture
def chat(engines: None) -> Stream:
    return Stream.objects.create(path="chat", content_type=JSON)


async def collect(pages: AsyncIterator[Page]) -> list[Page]:
    return [page async for page in pages]


class TestAsynchronous:
    async def test_what_is_there_comes_first_and_then_what_is_appended(self, chat: Stream) -> None:
        await chat.aappend(1)
        pages = chat.atail()
        first = await anext(pages)
        assert (first.messages, first.up_to_date, first.closed) == ([1], True, False)
        following = asyncio.ensure_future(anext(pages))
        await until(lambda: watched() == 1)
        await chat.aappend(2)
        second = await following
        assert list(second) == [2]
        assert second.next_offset == chat.offset_at(4)
        await chat.aclose()
        third = await anext(pages)
        assert (len(third), third.closed, third.next_offset) == (0, True, second.next_offset)
        assert await collect(pages) == []
        assert watched() == 0

    async def test_now_is_the_end(self, chat: Stream) -> None:
        await chat.aappend("before")
        tailing = asyncio.ensure_future(collect(chat.atail("now")))
        await until(lambda: watched() == 1)
        await chat.aappend("after", close=True)
        (page,) = await tailing
        assert (page.messages, page.closed) == (["after"], True)

    async def test_what_another_process_appends_comes_too(self, chat: Stream) -> None:
        tailing = asyncio.ensure_future(collect(chat.atail("now", timeout=20)))
        await until(lambda: watched() == 1)
        await elsewhere(Append("chat", JSON, b"7\n", close=True))
        (page,) = await tailing
        assert page.messages == [7]

    async def test_it_ends_with_its_timeout(self, chat: Stream) -> None:
        await chat.aappend(1)
        assert [page.messages for page in await collect(chat.atail(timeout=0))] == [[1]]
        began = time.monotonic()
        assert [page.messages for page in await collect(chat.atail(timeout=0.2))] == [[1]]
        assert 0.2 <= time.monotonic() - began < 5
        assert watched() == 0

    async def test_it_ends_with_its_stream(self, chat: Stream) -> None:
        tailing = asyncio.ensure_future(collect(chat.atail()))
        await until(lambda: watched() == 1)
        await elsewhere(Delete("chat"))
        assert await tailing == []
        with pytest.raises(StreamNotFound):
            await collect(chat.atail())
        with pytest.raises(InvalidOffset):
            await collect(chat.atail("tomorrow"))

    async def test_it_ends_with_the_process(self, chat: Stream) -> None:
        tailing = asyncio.ensure_future(collect(chat.atail()))
        await until(lambda: watched() == 1)
        for engine in running_engines():
            engine.end_live_reads()
        assert await tailing == []

    async def test_more_than_a_page_comes_in_pages(self, chat: Stream, settings: object) -> None:
        settings.DURABLE_STREAMS = {"PAGE_BYTES": 100}  # type: ignore[attr-defined]
        for number in range(100):
            await chat.aappend(number)
        await chat.aclose()
        pages = await collect(chat.atail())
        assert len(pages) > 2
        assert [message for page in pages for message in page] == list(range(100))
        assert [page.up_to_date for page in pages] == [*[False] * (len(pages) - 1), True]

    async def test_five_hundred_wait_without_a_thread_or_connection_for_each(self, chat: Stream) -> None:
        await chat.aappend("x")
        tailing = [asyncio.ensure_future(collect(chat.atail("now"))) for _ in range(500)]
        await until(lambda: watched() == 500)
        names = [thread.name for thread in threading.enumerate()]
        assert len(names) < 20
        await chat.aappend("y", close=True)
        for pages in await asyncio.gather(*tailing):
            assert [page.messages for page in pages] == [["y"]]


def in_thread(work: Callable[[], None]) -> threading.Thread:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def waiting() -> bool:
    return watched() > 0


def when_it_waits(work: Callable[[], None]) -> threading.Thread:
    """Do something as soon as somebody waits."""

    def wait_and_work() -> None:
        deadline = time.monotonic() + 20
        while not waiting():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        work()

    return in_thread(wait_and_work)


class TestSynchronous:
    def test_what_is_there_comes_first_and_then_what_is_appended(self, chat: Stream) -> None:
        chat.append(1)
        thread = when_it_waits(lambda: chat.append_many([2, 3]) and chat.close())  # type: ignore[arg-type]
        assert [message for page in chat.tail(timeout=20) for message in page] == [1, 2, 3]
        thread.join()

    def test_it_ends_with_its_timeout_and_leaves_nothing_behind(self, chat: Stream) -> None:
        chat.append(1)
        assert [page.messages for page in chat.tail(timeout=0)] == [[1]]
        assert not running_engines()
        assert [page.messages for page in chat.tail(timeout=0.1)] == [[1]]
        assert watched() == 0

    def test_a_closed_stream_ends_at_once(self, chat: Stream) -> None:
        chat.close()
        (page,) = chat.tail()
        assert (page.messages, page.closed) == ([], True)
        assert [page.closed for page in chat.tail("now")] == [True]

    def test_it_can_be_left_while_it_waits(self, chat: Stream) -> None:
        chat.append(1)
        pages = chat.tail()
        assert next(pages).messages == [1]
        thread = when_it_waits(lambda: chat.append(2) and None)  # type: ignore[arg-type]
        assert next(pages).messages == [2]
        thread.join()
        assert isinstance(pages, Iterator)
        pages.close()  # type: ignore[attr-defined]
        deadline = time.monotonic() + 20
        while watched():  # soon: whoever closes an iterator may not be able to wait
            assert time.monotonic() < deadline

    def test_it_sees_what_its_own_transaction_has_appended(self, chat: Stream) -> None:
        with transaction.atomic():
            chat.append(1)
            assert [page.messages for page in chat.tail(timeout=0)] == [[1]]

    def test_it_ends_with_its_stream(self, chat: Stream) -> None:
        thread = when_it_waits(lambda: chat.delete() and None)
        assert list(chat.tail()) == []
        thread.join()


@pytest.mark.django_db(transaction=True)
class TestReading:
    async def test_reading_asynchronously_is_reading(self, settings: object) -> None:
        settings.DURABLE_STREAMS = {"PAGE_BYTES": 50}  # type: ignore[attr-defined]
        chat = await Stream.objects.acreate(path="chat", content_type=JSON)
        await chat.aappend_many(range(100))
        assert [message async for message in chat.aread()] == list(range(100))
        assert [message async for message in chat.aread("now")] == []
        with pytest.raises(InvalidOffset):
            [message async for message in chat.aread("never")]
