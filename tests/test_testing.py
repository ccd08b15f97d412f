"""The kit for users' tests."""

import asyncio
import threading
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Permission, User
from django.db import connection, transaction
from django.test import AsyncClient, Client

from django_durable_streams.engine.engine import running_engines
from django_durable_streams.models import Stream
from django_durable_streams.signals import stream_closed
from django_durable_streams.testing import StreamClient, inline_engines, stop_engines
from django_durable_streams.testing.events import Event, EventParser

TEXT = "text/plain"


@pytest.fixture
def inline(db: None) -> Any:
    with inline_engines():
        yield


class TestInsideATransaction:
    """In a test that never commits, on its one connection."""

    def test_requests_see_what_the_test_has_done_and_it_what_they_have(self, inline: None) -> None:
        stream = Stream.objects.create(path="a", content_type=TEXT, data="one ")
        before = {thread.name for thread in threading.enumerate()}

        async def talk(client: StreamClient) -> None:
            assert (await client.read("a")).body == b"one "
            assert (await client.post("a", b"two", content_type=TEXT)).status == 204
            assert (await client.put("b", b"", content_type=TEXT, stream_ttl="60")).status == 201
            assert (await client.delete("b")).status == 204
            assert (await client.put("large", b"", content_type=TEXT)).status == 201
            for _ in range(5):
                assert (await client.post("large", b"x" * 1024 * 1024, content_type=TEXT)).status == 204

        async_to_sync(talk)(StreamClient())
        assert list(stream.read()) == ["one ", "two"]
        assert connection.in_atomic_block
        assert {
            name for name in {thread.name for thread in threading.enumerate()} - before if "durable" in name
        } == set()

    def test_requests_see_what_python_has_done_since_the_last_one(self, inline: None) -> None:
        streams = [Stream.objects.create(path=path, content_type=TEXT) for path in ("a", "b", "c")]

        async def post(path: str) -> int:
            return (await StreamClient().post(path, b"x", content_type=TEXT)).status

        assert [async_to_sync(post)(stream.path) for stream in streams] == [204, 204, 204]
        streams[0].close()
        streams[1].delete()
        with transaction.atomic():
            streams[2].append("y")
            assert async_to_sync(post)("c") == 204
            transaction.set_rollback(True)
        assert [async_to_sync(post)(path) for path in ("a", "b", "c")] == [409, 404, 204]
        assert list(streams[2].read()) == ["x", "x"]

        async def put(path: str) -> int:
            return (await StreamClient().put(path, content_type=TEXT)).status

        assert async_to_sync(put)("d") == 201
        Stream.objects.get(path="d").delete()
        assert async_to_sync(post)("d") == 404

    def test_live_readers_get_what_comes_by_http_and_from_python(self, inline: None) -> None:
        stream = Stream.objects.create(path="a", content_type="application/json")

        async def follow(client: StreamClient) -> list[Any]:
            result = []
            async with client.events("a") as events:
                await client.post("a", b"1", content_type="application/json")
                result.append(await events.next_data())
                await stream.aappend(2)
                result.append(await events.next_data())
                await stream.aappend_from([3], close=True)
                result += [event async for event in events if event.kind == "data" or "streamClosed" in event.data]
            return [event and event.json() for event in result]

        result = async_to_sync(follow)(StreamClient())
        assert result[:3] == [[1], [2], [3]]
        assert result[3]["streamClosed"] is True
        assert len(result) == 4

    def test_djangos_own_clients_see_it_through_the_urls(self, inline: None) -> None:
        stream = Stream.objects.create(path="a", content_type=TEXT, data="one ")
        assert Client().get("/v1/stream/a").content == b"one "
        assert Client().post("/v1/stream/a", b"two ", content_type=TEXT).status_code == 204

        async def talk() -> None:
            client = AsyncClient()
            assert (await client.post("/v1/stream/a", b"three", content_type=TEXT)).status_code == 204
            response = await client.get("/v1/stream/a", {"offset": "-1", "live": "long-poll"})
            assert response.content == b"one two three"

        async_to_sync(talk)()
        assert list(stream.read()) == ["one ", "two ", "three"]
        assert connection.in_atomic_block

    def test_permissions_see_the_users_of_the_test(self, inline: None, settings: Any) -> None:
        settings.DURABLE_STREAMS = {}
        Stream.objects.create(path="a", content_type=TEXT)
        user = User.objects.create_user("ann")
        user.user_permissions.add(Permission.objects.get(codename="view_stream"))

        async def read(client: StreamClient) -> int:
            return (await client.read("a")).status

        client = StreamClient()
        assert async_to_sync(read)(client) in (401, 403)
        client.force_login(user)
        assert async_to_sync(read)(client) == 200

    def test_signals_of_requests_are_sent(self, inline: None) -> None:
        heard = []

        def receive(path: str, **arguments: Any) -> None:
            heard.append(path)

        stream_closed.connect(receive)
        try:
            Stream.objects.create(path="a")
            async_to_sync(StreamClient().request)("POST", "a", {"stream-closed": "true"})
            stop_engines()  # with the thread that sends them
        finally:
            stream_closed.disconnect(receive)
        assert heard == ["a"]

    def test_nothing_is_left_behind(self, inline: None) -> None:
        async_to_sync(StreamClient().read)("a")
        assert running_engines()
        with inline_engines():
            assert not running_engines()
        assert not running_engines()


class TestTheClient:
    async def test_it_does_not_wait_for_ever(self, engines: None) -> None:
        await Stream.objects.acreate(path="a", content_type=TEXT)
        client = StreamClient(timeout=0.05)
        with pytest.raises(TimeoutError):
            await client.long_poll("a")

    async def test_a_stream_that_cannot_be_followed_is_a_failure(self, engines: None) -> None:
        with pytest.raises(AssertionError, match="stream-not-found"):
            await StreamClient().events("a").__aenter__()

    async def test_engines_end_under_their_readers(self, engines: None) -> None:
        await Stream.objects.acreate(path="a", content_type=TEXT, data="x")
        async with StreamClient().events("a") as events:
            assert (await events.next_data()) == Event("data", "x")
            await events.next()
            await asyncio.to_thread(stop_engines)
            assert await events.next_data() is None


def test_events_are_put_together_from_any_pieces() -> None:
    raw = b'event: data\ndata:one\ndata:  two\n\n:\n\nevent: control\ndata:{"upToDate":true}\n\n'
    parser = EventParser()
    result = []
    for number in range(len(raw)):
        parser.feed(raw[number : number + 1])
        while (event := parser.next()) is not None:
            result.append(event)
    assert result == [Event("data", "one\n two"), Event("control", '{"upToDate":true}')]
    assert result[1].json() == {"upToDate": True}
