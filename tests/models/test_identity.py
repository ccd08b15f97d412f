"""A stream that was loaded is that stream, and not the one that somebody has made at its path since."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_durable_streams.api import transactions
from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import StreamGone, StreamNotFound

TEXT = "text/plain"


async def asynchronously(work: Any) -> Any:
    return [item async for item in work] if hasattr(work, "__aiter__") else await work


def run(work: Any) -> Any:
    return asyncio.run(asynchronously(work))


SYNCHRONOUS: dict[str, Callable[[Stream], Any]] = {
    "append": lambda s: s.append("x"),
    "append with a producer": lambda s: s.append("x", producer=("p", 0, 0)),
    "append that closes": lambda s: s.append("x", close=True),
    "append_many": lambda s: s.append_many(["x", "y"]),
    "append_many with a producer": lambda s: s.append_many(["x"], producer=("p", 0, 0)),
    "close": lambda s: s.close(),
    "delete": lambda s: s.delete(),
    "fork": lambda s: s.fork("fork"),
    "set_lifetime": lambda s: s.set_lifetime(ttl=1),
    "read": lambda s: list(s.read()),
    "read from now": lambda s: list(s.read("now")),
    "tail": lambda s: list(s.tail(timeout=0)),
    "tail from now": lambda s: list(s.tail("now", timeout=0)),
}


def again(path: str = "a", **options: Any) -> tuple[Stream, Stream]:
    """A stream as somebody loaded it, and another one that is at its path now."""
    old = Stream.objects.create(path=path, content_type=TEXT, data="old")
    loaded = Stream.objects.get(path=path)
    old.delete()
    return loaded, Stream.objects.create(path=path, content_type=TEXT, data="new", **options)


def replace(old: Stream) -> Stream:
    old.delete()
    return Stream.objects.create(path=old.path, content_type=TEXT, data="new")


def untouched(new: Stream) -> None:
    stored = Stream.objects.get(path=new.path)
    assert (stored.pk, stored.closed, stored.ttl) == (new.pk, False, new.ttl)
    assert list(stored.read()) == ["new"]
    assert not stored.producers.exists()
    assert not stored.forks.exists()


@pytest.mark.django_db
@pytest.mark.parametrize("in_transaction", [False, True])
@pytest.mark.parametrize("method", SYNCHRONOUS)
def test_no_method_acts_on_the_stream_that_is_there_now(method: str, in_transaction: bool) -> None:
    loaded, new = again(ttl=3600)
    with (
        transaction.atomic() if in_transaction else nullcontext(),
        pytest.raises(StreamNotFound, match="its path has a new stream"),
    ):
        SYNCHRONOUS[method](loaded)
    untouched(new)
    SYNCHRONOUS[method](new)


@pytest.mark.django_db
@pytest.mark.parametrize("method", SYNCHRONOUS)
def test_one_that_is_gone_says_so(method: str) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    stream.delete()
    with pytest.raises(StreamNotFound):
        SYNCHRONOUS[method](stream)
    removed = Stream.objects.get(pk=stream.pk)
    assert removed.path is None
    with pytest.raises(StreamNotFound, match="deleted"):
        SYNCHRONOUS[method](removed)


@pytest.mark.django_db
@pytest.mark.parametrize("method", SYNCHRONOUS)
def test_one_that_was_not_loaded_stands_for_none(method: str) -> None:
    Stream.objects.create(path="a", content_type=TEXT, data="new")
    with pytest.raises(ValueError, match="not loaded"):
        SYNCHRONOUS[method](Stream(path="a", content_type=TEXT))


@pytest.mark.django_db
def test_a_path_that_was_changed_in_memory_leads_nowhere() -> None:
    Stream.objects.create(path="a", content_type=TEXT)
    new = Stream.objects.create(path="b", content_type=TEXT, data="new")
    stream = Stream.objects.get(path="a")
    stream.path = "b"
    with pytest.raises(StreamNotFound):
        stream.append("x")
    untouched(new)


@pytest.mark.django_db
def test_a_deleted_source_with_forks_is_gone() -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    stream.fork("b")
    stream.delete()
    with pytest.raises(StreamGone):
        stream.append("x")


@pytest.mark.django_db
def test_a_queryset_deletes_the_streams_that_it_has_found() -> None:
    loaded, new = again()
    streams = Stream.objects.filter(path="a")
    assert list(streams) == [new]
    assert streams.delete()[0] == 1
    with pytest.raises(StreamNotFound):
        loaded.delete()


@pytest.mark.django_db
def test_a_reader_between_two_pages_does_not_go_on_in_another_stream(settings: Any) -> None:
    settings.DURABLE_STREAMS = {"PAGE_BYTES": 1}
    stream = Stream.objects.create(path="a", content_type=TEXT)
    stream.append_many(["1", "2", "3"])
    reading = Stream.objects.get(path="a").read()
    assert next(reading) == "1"
    stream.delete()
    Stream.objects.create(path="a", content_type=TEXT).append_many(["4", "5", "6"])
    with pytest.raises(StreamNotFound):
        next(reading)


ASYNCHRONOUS: dict[str, Callable[[Stream], Any]] = {
    "aappend": lambda s: s.aappend("x"),
    "aappend_many": lambda s: s.aappend_many(["x"]),
    "aclose": lambda s: s.aclose(),
    "adelete": lambda s: s.adelete(),
    "afork": lambda s: s.afork("fork"),
    "aset_lifetime": lambda s: s.aset_lifetime(ttl=1),
    "aread": lambda s: s.aread(),
    "aappend_from": lambda s: s.aappend_from(["x"]),
    "aappend_from as a producer": lambda s: s.aappend_from(["x"], producer="p"),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("engines")
class TestBesideTheCallersTransaction:
    @pytest.mark.parametrize("method", ASYNCHRONOUS)
    async def test_no_asynchronous_method_does(self, method: str) -> None:
        loaded, new = await sync_to_async(again)()
        with pytest.raises(StreamNotFound):
            await asynchronously(ASYNCHRONOUS[method](loaded))
        await sync_to_async(untouched)(new)
        await asynchronously(ASYNCHRONOUS[method](new))

    async def test_no_tail_does(self) -> None:
        loaded, new = await sync_to_async(again)()
        with pytest.raises(StreamNotFound, match="its path has a new stream"):
            await asynchronously(loaded.atail(timeout=0))
        (page,) = [page async for page in new.atail(timeout=0)]
        assert page.messages == ["new"]

    @pytest.mark.parametrize("producer", [None, "job"])
    @pytest.mark.parametrize("on_error", ["leave", "close"])
    async def test_a_writer_whose_stream_was_replaced_ends(self, producer: str | None, on_error: Any) -> None:
        """At its end it would have closed the other one."""
        old = await Stream.objects.acreate(path="a", content_type=TEXT)

        async def work() -> None:
            async with old.awriter(producer=producer, on_error=on_error, error_message="failed") as writer:
                await writer.write("1")
                await writer.flush()
                await sync_to_async(replace)(old)
                await writer.write("2")
                await writer.flush()

        with pytest.raises(StreamNotFound):
            await work()
        await sync_to_async(untouched)(await Stream.objects.aget(path="a"))

    async def test_a_writer_that_only_ends_does_not_close_the_other_one(self) -> None:
        old = await Stream.objects.acreate(path="a", content_type=TEXT)

        async def work() -> None:
            async with old.awriter():
                await sync_to_async(replace)(old)

        with pytest.raises(StreamNotFound):
            await work()
        await sync_to_async(untouched)(await Stream.objects.aget(path="a"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("replaced", [False, True])
def test_what_is_created_is_what_is_returned(monkeypatch: Any, replaced: bool) -> None:
    """Somebody else is faster with a delete, or with a delete and another stream, than the look at what was made."""

    def meanwhile(*args: Any) -> None:
        monkeypatch.undo()
        Stream.objects.get(path="a").delete()
        if replaced:
            Stream.objects.create(path="a", content_type=TEXT, data="new")

    monkeypatch.setattr(transactions, "notify_on_commit", meanwhile)
    made = Stream.objects.create(path="a", content_type=TEXT, data="old")
    with pytest.raises(StreamNotFound):
        made.append("x")
    if replaced:
        untouched(Stream.objects.get(path="a"))
