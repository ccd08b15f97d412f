"""Streams in Python: the wire's rules, in the caller's transaction."""

import asyncio
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import connections, transaction

from django_durable_streams.api import transactions
from django_durable_streams.engine import engine_for
from django_durable_streams.models import Stream
from django_durable_streams.protocol import content
from django_durable_streams.protocol.errors import (
    EmptyAppend,
    InvalidHeader,
    InvalidPath,
    ProducerFenced,
    ProducerSequenceGap,
    SequenceConflict,
    StreamClosed,
    StreamExists,
    StreamGone,
    StreamNotFound,
)
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.write import group_commit

JSON = "application/json"


@pytest.fixture
def chat() -> Stream:
    return Stream.objects.create(path="chat/1", content_type=JSON, ttl=3600)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What readers are told of."""
    commits: list[Any] = []
    monkeypatch.setattr(transactions, "_listeners", [lambda result, using: commits.extend(result)])
    return commits


@pytest.mark.django_db
class TestAppending:
    def test_what_is_appended_is_read(self, chat: Stream) -> None:
        chat.append({"role": "user"})
        chat.append([1, 2])
        chat.append("text")
        assert list(chat.read()) == [{"role": "user"}, [1, 2], "text"]

    def test_text_and_bytes(self) -> None:
        text = Stream.objects.create(path="t", content_type="text/plain", data="one")
        text.append(" two")
        assert list(text.read()) == ["one", " two"]
        binary = Stream.objects.create(path="b")
        binary.append(b"\x00\xff")
        assert list(binary.read()) == [b"\x00\xff"]

    def test_reading_goes_on_from_an_offset(self, chat: Stream) -> None:
        chat.append(1)
        offset = chat.next_offset
        chat.append(2)
        assert list(chat.read(offset)) == [2]
        assert list(chat.read("now")) == []

    def test_many_messages_from_an_iterator(self, chat: Stream, settings: Any) -> None:
        settings.DURABLE_STREAMS = {"PAGE_BYTES": 1000}
        assert chat.append_many({"n": number} for number in range(1000)) == 1000
        assert [message["n"] for message in chat.read()] == list(range(1000))

    def test_other_types_are_refused(self) -> None:
        stream = Stream.objects.create(path="b")
        with pytest.raises(TypeError, match="bytes or str"):
            stream.append({"a": 1})
        with pytest.raises(EmptyAppend):
            stream.append(b"")

    def test_the_wires_rules_hold(self, chat: Stream) -> None:
        chat.append(1, seq="b")
        with pytest.raises(SequenceConflict):
            chat.append(2, seq="a")
        assert not chat.append(3, producer=("p", 0, 0)).duplicate
        assert chat.append(3, producer=("p", 0, 0)).duplicate
        with pytest.raises(ProducerSequenceGap):
            chat.append(4, producer=("p", 0, 2))
        chat.close()
        assert chat.closed
        with pytest.raises(StreamClosed):
            chat.append(5)
        assert list(chat.read()) == [1, 3]


@pytest.mark.django_db
class TestCreating:
    def test_an_existing_path_is_refused(self, chat: Stream) -> None:
        with pytest.raises(StreamExists):
            Stream.objects.create(path="chat/1", content_type=JSON, ttl=3600)

    def test_ensure_finds_or_creates(self, chat: Stream) -> None:
        assert Stream.objects.ensure("chat/1", content_type=JSON, ttl=3600) == (chat, False)
        assert Stream.objects.ensure("chat/2", content_type=JSON)[1]
        with pytest.raises(StreamExists):
            Stream.objects.ensure("chat/1", content_type="text/plain")

    def test_bad_input_is_refused(self) -> None:
        with pytest.raises(InvalidPath):
            Stream.objects.create(path="a/../b")
        with pytest.raises(InvalidHeader):
            Stream.objects.create(path="a", ttl=0)

    def test_deleting(self, chat: Stream) -> None:
        chat.delete()
        with pytest.raises(StreamNotFound):
            chat.append(1)
        assert Stream.objects.ensure("chat/1")[1]

    def test_deleting_a_queryset_goes_by_the_rules(self, chat: Stream) -> None:
        fork = chat.fork("chat/1-b")
        assert Stream.objects.filter(path="chat/1").delete()[0] == 1
        with pytest.raises(StreamGone):
            chat.append(1)
        assert list(fork.read()) == []

    def test_forking(self, chat: Stream) -> None:
        chat.append_many([1, 2, 3])
        fork = chat.fork("fork", offset="0000000000000000_0000000000000000", sub_offset=2, data=9)
        assert list(fork.read()) == [1, 2, 9]
        assert fork.source == chat
        assert fork.ttl == 3600
        with pytest.raises(StreamExists):
            chat.fork("fork")


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_readers_are_told_on_commit(self, told: list[Any]) -> None:
        with transaction.atomic():
            stream = Stream.objects.create(path="outbox", content_type="text/plain")
            stream.append("x")
            assert told == []
        assert [(commit.path, commit.data()) for commit in told] == [("outbox", b""), ("outbox", b"x")]

    def test_nothing_is_left_of_what_is_rolled_back(self, told: list[Any]) -> None:
        stream = Stream.objects.create(path="outbox", content_type="text/plain")
        told.clear()
        with transaction.atomic():
            stream.append("lost")
            transaction.set_rollback(True)
        assert told == []
        assert list(stream.read()) == []

    def test_a_refused_append_leaves_the_transaction_usable(self) -> None:
        stream = Stream.objects.create(path="outbox", content_type="text/plain", closed=True)
        with transaction.atomic():
            with pytest.raises(StreamClosed):
                stream.append("x")
            Stream.objects.create(path="another")
        assert Stream.objects.filter(path="another").exists()


@pytest.mark.django_db(transaction=True)
def test_every_method_has_an_asynchronous_twin() -> None:
    async def use() -> None:
        stream = await Stream.objects.acreate(path="a", content_type=JSON)
        await stream.aappend(1)
        assert await stream.aappend_many([2, 3]) == 2
        fork = await stream.afork("b")
        await fork.aclose()
        assert (await Stream.objects.aensure("a", content_type=JSON)) == (stream, False)
        await stream.adelete()
        with pytest.raises(StreamGone):
            await stream.aappend(4)

    async_to_sync(use)()


@pytest.mark.django_db
def test_migrations_are_complete() -> None:
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


class TestDatabases:
    """Streams are written to where the router sends them, whatever they were loaded from."""

    def test_what_a_replica_has_shown_is_written_to_the_primary(self, settings: Any) -> None:
        settings.DATABASE_ROUTERS = ["tests.api.test_stream_methods.PrimaryReplica"]
        stream = Stream(path="a")
        stream._state.db = "replica"
        assert stream._alias() == "default"
        assert Stream.objects.all()._write_alias() == "default"
        assert Stream.objects.using("replica")._write_alias() == "replica"

    def test_without_a_router_a_stream_stays_where_it_is_from(self) -> None:
        stream = Stream(path="a")
        stream._state.db = "other"
        assert stream._alias() == "other"


class PrimaryReplica:
    """A router for one primary and one replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


MESSAGES = 200_000
MESSAGE = "x" * 80
"""In JSON, with quotes and line feed, 83 bytes: 16.6 MB in all."""


@pytest.mark.django_db(transaction=True)
@pytest.mark.slow
def test_however_many_messages_are_appended_memory_stays_bounded(settings: Any) -> None:
    settings.DURABLE_STREAMS = {"PAGE_BYTES": 256 * 1024}
    stream = Stream.objects.create(path="many", content_type=JSON)
    tracemalloc.start()
    try:
        assert stream.append_many(MESSAGE for _ in range(MESSAGES)) == MESSAGES
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert stream.tail_position == MESSAGES * 83
    assert peak < 4 * 1024 * 1024
    assert sum(1 for _ in stream.read()) == MESSAGES


@pytest.mark.django_db
class TestManyMessages:
    def test_messages_stay_apart(self) -> None:
        text = Stream.objects.create(path="t", content_type="text/plain")
        assert text.append_many(["one", "two", "three"], batch_bytes=5) == 3
        assert list(text.read()) == ["one", "two", "three"]

    @pytest.mark.parametrize("content_type", [JSON, "text/plain"])
    def test_a_producers_can_be_repeated(self, content_type: str) -> None:
        stream = Stream.objects.create(path="p", content_type=content_type)
        values = [f"{number}" for number in range(100)]
        assert stream.append_many(values[:60], producer=("import", 0, 0), batch_bytes=50) == 60
        assert stream.append_many(values, producer=("import", 0, 0), batch_bytes=70) == 100
        assert list(stream.read()) == values
        with pytest.raises(ProducerSequenceGap):
            stream.append_many(values, producer=("import", 0, 101))
        stream.append("x", producer=("import", 1, 0))
        with pytest.raises(ProducerFenced):
            stream.append_many(values, producer=("import", 0, 100))

    def test_many_small_ones_are_written_some_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = []

        def apply(operations: Any, using: Any, **options: Any) -> Any:
            sizes.append(len(operations))
            return real_apply(operations, using, **options)

        real_apply = group_commit.apply
        stream = Stream.objects.create(path="p", content_type="text/plain")
        monkeypatch.setattr(group_commit, "apply", apply)
        assert stream.append_many("x" for _ in range(25_000)) == 25_000
        assert sizes == [10_000, 10_000, 5_000]

    def test_none_is_none(self, chat: Stream) -> None:
        assert chat.append_many([]) == 0
        assert list(chat.read()) == []

    def test_all_or_nothing(self, chat: Stream) -> None:
        def values() -> Iterator[int]:
            yield from range(1000)
            raise RuntimeError("the source has ended early")

        with pytest.raises(RuntimeError):
            chat.append_many(values(), batch_bytes=100)
        assert list(chat.read()) == []
        with pytest.raises(EmptyAppend):
            Stream.objects.create(path="t", content_type="text/plain").append_many(["one", ""])

    def test_half_of_a_surrogate_pair_is_read_as_it_was_written(self, chat: Stream) -> None:
        body = rb'["\ud83d", "whole"]'
        transactions.apply(Append("chat/1", JSON, content.pack(JSON, body)), "default")
        assert list(chat.read()) == ["\ud83d", "whole"]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("engines")
class TestBesideTheCommitter:
    """A process that serves streams and appends from its own code too."""

    @pytest.mark.parametrize("in_transaction", [False, True])
    def test_appends_succeed_while_the_committer_is_busy(self, in_transaction: bool) -> None:
        async def load(engine: Any, stopping: Any) -> None:
            while not stopping.is_set():
                await asyncio.gather(*(engine.write(Append(f"load/{n}", JSON, b"1\n")) for n in range(32)))

        async def scenario() -> None:
            stream = await Stream.objects.acreate(path="mine", content_type=JSON)
            engine = engine_for()
            for n in range(32):
                await engine.write(Create(f"load/{n}", JSON))
            stopping = asyncio.Event()
            busy = [asyncio.ensure_future(load(engine, stopping)) for _ in range(2)]

            def append(number: int) -> None:
                if not in_transaction:
                    stream.append(number)
                    return
                with transaction.atomic():
                    stream.append(number)

            slowest = 0.0
            with ThreadPoolExecutor(1) as thread:
                for number in range(100):
                    began = time.monotonic()
                    await asyncio.wrap_future(thread.submit(append, number))
                    slowest = max(slowest, time.monotonic() - began)
                await asyncio.wrap_future(thread.submit(connections.close_all))
            stopping.set()
            await asyncio.gather(*busy)
            assert [message async for message in stream.aread()] == list(range(100))
            assert slowest < 5

        asyncio.run(scenario())
