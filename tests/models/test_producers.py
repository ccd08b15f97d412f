"""Producers that Python code names are its own: no client can be one of them, see them, or hold them up."""

from __future__ import annotations

from typing import Any

import pytest

from django_durable_streams.models import Producer, Stream
from django_durable_streams.protocol import headers
from django_durable_streams.protocol.arguments import MAX_NAME_LENGTH
from django_durable_streams.protocol.errors import InvalidHeader, ProducerFenced
from django_durable_streams.protocol.producers import SERVER_MARK, server_producer
from django_durable_streams.server.asgi import DurableStreams
from tests.asgi_client import AsgiClient

TEXT = "text/plain"


@pytest.fixture
def client(engines: None) -> AsgiClient:
    return AsgiClient(DurableStreams())


async def post(client: AsgiClient, name: str, epoch: int, seq: int, body: str) -> Any:
    claim = {"producer_id": name, "producer_epoch": str(epoch), "producer_seq": str(seq)}
    return await client.append("a", body.encode(), TEXT, **claim)


@pytest.mark.parametrize("character", [chr(code) for code in [*range(32), 127]], ids=repr)
def test_no_header_can_have_the_mark(character: str) -> None:
    assert ord(SERVER_MARK) < 32
    with pytest.raises(InvalidHeader):
        headers.opaque("Producer-Id", character + "llm")


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["a", "é" * MAX_NAME_LENGTH, "\U0001f600" * MAX_NAME_LENGTH, "with space ", "A"])
def test_names_of_every_length_fit(name: str) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    assert not stream.append("1", producer=(name, 2**53 - 1, 0)).duplicate
    assert stream.append("1", producer=(name, 2**53 - 1, 0)).duplicate
    stream.append("2", producer=(name, 2**53 - 1, 1), close=True)
    assert stream.append("2", producer=(name, 2**53 - 1, 1), close=True).duplicate
    producer = Producer.objects.get()
    assert (producer.name, producer.is_of_server) == (name, True)
    assert str(producer).startswith(name)


@pytest.mark.django_db(transaction=True)
class TestBesideClients:
    async def test_a_client_of_the_same_name_is_another_producer(self, client: AsgiClient) -> None:
        stream = await Stream.objects.acreate(path="a", content_type=TEXT)
        assert (await post(client, "llm", 7, 0, "mine ")).status == 200
        assert not (await stream.aappend("ours ", producer=("llm", 0, 0))).duplicate
        assert (await post(client, "llm", 7, 1, "more")).status == 200
        assert "".join([part async for part in stream.aread()]) == "mine ours more"
        states = [
            (producer.name, producer.epoch, producer.seq, producer.is_of_server)
            async for producer in Producer.objects.all()
        ]
        assert sorted(states) == [("llm", 0, 0, True), ("llm", 7, 1, False)]

    async def test_a_job_skips_none_of_its_messages_for_a_client(self, client: AsgiClient) -> None:
        stream = await Stream.objects.acreate(path="a", content_type=TEXT)
        for seq in range(3):
            await post(client, "llm", 0, seq, "x")
        assert await stream.aappend_from(["1", "2", "3", "4"], producer="llm") == 4
        assert "".join([part async for part in stream.aread()]) == "xxx1234"

    async def test_a_client_cannot_fence_a_job(self, client: AsgiClient) -> None:
        stream = await Stream.objects.acreate(path="a", content_type=TEXT)
        async with stream.awriter(producer="llm") as writer:
            await writer.write("1")
            await writer.flush()
            assert (await post(client, "llm", 2**53 - 1, 0, "x")).status == 200
            await writer.write("2")
        assert "".join([part async for part in stream.aread()]) == "1x2"

    async def test_a_client_is_not_told_of_a_jobs_epoch(self, client: AsgiClient) -> None:
        stream = await Stream.objects.acreate(path="a", content_type=TEXT)
        await stream.aappend("1", producer=("llm", 5, 0))
        reply = await post(client, "llm", 0, 0, "x")
        assert (reply.status, reply.headers["producer-epoch"], reply.headers["producer-seq"]) == (200, "0", "0")

    async def test_jobs_fence_each_other_as_ever(self) -> None:
        stream = await Stream.objects.acreate(path="a", content_type=TEXT)

        async def work() -> None:
            async with stream.awriter(producer="llm") as first:
                await first.write("1")
                await first.flush()
                async with stream.awriter(producer="llm", close=False) as second:
                    assert second.written == 1
                    await second.write("2")
                await first.write("3")
                await first.flush()

        with pytest.raises(ProducerFenced):
            await work()
        assert "".join([part async for part in stream.aread()]) == "12"

    async def test_one_that_was_closed_by_a_job_is_not_a_clients_duplicate(self, client: AsgiClient) -> None:
        stream = await Stream.objects.acreate(path="a", content_type=TEXT)
        await stream.aappend("1", producer=("llm", 0, 0), close=True)
        assert (await post(client, "llm", 0, 0, "1")).status == 409


@pytest.mark.django_db
def test_the_admin_shows_the_name(admin_client: Any) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    stream.append("1", producer=("llm & co", 0, 0))
    Producer.objects.unguarded().bulk_create([Producer(stream=stream, producer_id="llm & co", epoch=1, seq=2)])
    for page in ("change", "producers"):
        text = admin_client.get(f"/admin/durable_streams/stream/{stream.pk}/{page}/").content.decode()
        assert text.count("<code>llm &amp; co</code>") == 2
        assert text.count("of the server</small>") == 1
        assert SERVER_MARK not in text


@pytest.mark.django_db
def test_the_admin_shows_who_has_closed_a_stream(admin_client: Any) -> None:
    stream = Stream.objects.create(path="a", content_type=TEXT)
    stream.append("1", producer=("llm", 0, 0), close=True)
    text = admin_client.get(f"/admin/durable_streams/stream/{stream.pk}/change/").content.decode()
    assert "0:0:llm" in text
    assert SERVER_MARK not in text


@pytest.mark.django_db
def test_the_admin_goes_from_page_to_page_of_producers(admin_client: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("django_durable_streams.admin.detail_views.PRODUCERS_PER_PAGE", 2)
    stream = Stream.objects.create(path="a", content_type=TEXT)
    names = [server_producer("a"), server_producer("b"), server_producer("c"), "a", "b"]
    Producer.objects.unguarded().bulk_create(
        Producer(stream=stream, producer_id=name, epoch=0, seq=seq) for seq, name in enumerate(names)
    )
    url, seen = f"/admin/durable_streams/stream/{stream.pk}/producers/", []
    while True:
        response = admin_client.get(url)
        seen += [producer.producer_id for producer in response.context["producers"]]
        if response.context["next_after"] is None:
            break
        query = response.content.decode().partition("?after=")[2].partition('"')[0]
        url = f"/admin/durable_streams/stream/{stream.pk}/producers/?after={query}"
    assert seen == names
