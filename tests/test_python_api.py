"""Streams in Python: the wire's rules, in the caller's transaction."""

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.db import transaction

from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import (
    EmptyAppend,
    InvalidHeader,
    InvalidJSON,
    InvalidPath,
    ProducerSequenceGap,
    SequenceConflict,
    StreamClosed,
    StreamExists,
    StreamGone,
    StreamNotFound,
)
from django_durable_streams.store import calls

JSON = "application/json"


@pytest.fixture
def chat() -> Stream:
    return Stream.objects.create(path="chat/1", content_type=JSON, ttl=3600)


@pytest.fixture
def told(monkeypatch) -> list:
    """What readers are told of."""
    commits: list = []
    monkeypatch.setattr(calls, "_listeners", [lambda found, using: commits.extend(found)])
    return commits


@pytest.mark.django_db
class TestAppending:
    def test_what_is_appended_is_read(self, chat):
        chat.append({"role": "user"})
        chat.append([1, 2])
        chat.append("text")
        assert list(chat.read()) == [{"role": "user"}, [1, 2], "text"]

    def test_text_and_bytes(self):
        text = Stream.objects.create(path="t", content_type="text/plain", data="one")
        text.append(" two")
        assert list(text.read()) == ["one", " two"]
        binary = Stream.objects.create(path="b")
        binary.append(b"\x00\xff")
        assert list(binary.read()) == [b"\x00\xff"]

    def test_reading_goes_on_from_an_offset(self, chat):
        chat.append(1)
        offset = chat.next_offset
        chat.append(2)
        assert list(chat.read(offset)) == [2]
        assert list(chat.read("now")) == []

    def test_many_messages_from_an_iterator(self, chat, settings):
        settings.DURABLE_STREAMS = {"PAGE_BYTES": 1000}
        assert chat.append_many({"n": number} for number in range(1000)) == 1000
        assert [message["n"] for message in chat.read()] == list(range(1000))

    @pytest.mark.parametrize("value", [object(), {1: object()}, float("nan")])
    def test_what_json_cannot_say_is_refused_or_said_as_null(self, chat, value):
        if value != value:
            chat.append(value)
            assert list(chat.read()) == [None]
            return
        with pytest.raises(InvalidJSON):
            chat.append(value)

    def test_other_types_are_refused(self):
        stream = Stream.objects.create(path="b")
        with pytest.raises(TypeError, match="bytes or str"):
            stream.append({"a": 1})
        with pytest.raises(EmptyAppend):
            stream.append(b"")

    def test_the_wires_rules_hold(self, chat):
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
    def test_an_existing_path_is_refused(self, chat):
        with pytest.raises(StreamExists):
            Stream.objects.create(path="chat/1", content_type=JSON, ttl=3600)

    def test_ensure_finds_or_creates(self, chat):
        assert Stream.objects.ensure("chat/1", content_type=JSON, ttl=3600) == (chat, False)
        assert Stream.objects.ensure("chat/2", content_type=JSON)[1]
        with pytest.raises(StreamExists):
            Stream.objects.ensure("chat/1", content_type="text/plain")

    def test_bad_input_is_refused(self):
        with pytest.raises(InvalidPath):
            Stream.objects.create(path="a/../b")
        with pytest.raises(InvalidHeader):
            Stream.objects.create(path="a", ttl=0)

    def test_deleting(self, chat):
        chat.delete()
        with pytest.raises(StreamNotFound):
            chat.append(1)
        assert Stream.objects.ensure("chat/1")[1]

    def test_deleting_a_queryset_goes_by_the_rules(self, chat):
        fork = chat.fork("chat/1-b")
        assert Stream.objects.filter(path="chat/1").delete()[0] == 1
        with pytest.raises(StreamGone):
            chat.append(1)
        assert list(fork.read()) == []

    def test_forking(self, chat):
        chat.append_many([1, 2, 3])
        fork = chat.fork("fork", offset="0000000000000000_0000000000000000", sub_offset=2, data=9)
        assert list(fork.read()) == [1, 2, 9]
        assert fork.source == chat
        assert fork.ttl == 3600
        with pytest.raises(StreamExists):
            chat.fork("fork")


@pytest.mark.django_db(transaction=True)
class TestTransactions:
    def test_readers_are_told_on_commit(self, told):
        with transaction.atomic():
            stream = Stream.objects.create(path="outbox", content_type="text/plain")
            stream.append("x")
            assert told == []
        assert [(commit.path, commit.data) for commit in told] == [("outbox", b""), ("outbox", b"x")]

    def test_nothing_is_left_of_what_is_rolled_back(self, told):
        stream = Stream.objects.create(path="outbox", content_type="text/plain")
        told.clear()
        with transaction.atomic():
            stream.append("lost")
            transaction.set_rollback(True)
        assert told == []
        assert list(stream.read()) == []

    def test_a_refused_append_leaves_the_transaction_usable(self):
        stream = Stream.objects.create(path="outbox", content_type="text/plain", closed=True)
        with transaction.atomic():
            with pytest.raises(StreamClosed):
                stream.append("x")
            Stream.objects.create(path="another")
        assert Stream.objects.filter(path="another").exists()


@pytest.mark.django_db(transaction=True)
def test_every_method_has_an_asynchronous_twin():
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
def test_migrations_are_complete():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)
