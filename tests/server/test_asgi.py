"""The application as it is mounted: by itself, before another one, inside Channels' routing."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest
from channels.routing import ProtocolTypeRouter, URLRouter
from django.test import override_settings
from django.urls import path, re_path

from django_durable_streams.engine.engine import running_engines
from django_durable_streams.server.asgi import DurableStreams
from tests.asgi_client import AsgiClient


async def elsewhere(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": [(b"x", scope["path"].encode())]})
    await send({"type": "http.response.body", "body": b"elsewhere"})


async def test_what_is_not_below_the_prefix_goes_to_the_fallback(engines: None) -> None:
    application = DurableStreams(prefix="/v1/stream/", fallback=elsewhere)
    for root in ("/", "/v1/", "/v1/streams/", "/V1/stream/"):
        assert (await AsgiClient(application, root=root).get("a")).status == 299
    assert (await AsgiClient(application).get("a")).status == 404


async def test_without_a_fallback_there_is_nothing_else(engines: None) -> None:
    reply = await AsgiClient(DurableStreams(), root="/other/").get("a")
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")


@pytest.mark.parametrize("prefix", ["v1/stream/", "/v1/stream", ""])
def test_a_prefix_has_to_begin_and_end_with_a_slash(prefix: str) -> None:
    with pytest.raises(ValueError, match="slash"):
        DurableStreams(prefix=prefix)


async def test_it_works_inside_channels_routing(engines: None) -> None:
    routes = [path("streams/<path:stream_path>", DurableStreams()), re_path("", elsewhere)]  # type: ignore[arg-type]
    application = ProtocolTypeRouter({"http": URLRouter(routes)})
    client = AsgiClient(application, root="/streams/")
    made = await client.create("a/b", b"abc")
    assert made.headers["location"] == "http://testserver/streams/a/b"
    assert (await client.get("a/b")).body == b"abc"
    fork = {"stream-forked-from": "/streams/a/b"}
    assert (await client.request("PUT", "c", fork)).status == 201
    assert (await client.get("c")).body == b"abc"
    async with client.follow("a/b") as live:
        assert await live.chunk()
    assert (await AsgiClient(application, root="/").get("a")).status == 299


async def test_another_protocol_is_not_served() -> None:
    async def never(*arguments: object) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="websocket"):
        await DurableStreams()({"type": "websocket", "path": "/v1/stream/a"}, never, never)


async def test_the_end_of_the_server_ends_readers_and_threads(engines: None) -> None:
    client = AsgiClient(DurableStreams())
    await client.create("a", b"abc")
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
    lifespan = asyncio.create_task(DurableStreams()({"type": "lifespan"}, messages.get, sent.put))
    messages.put_nowait({"type": "lifespan.startup"})
    assert (await sent.get())["type"] == "lifespan.startup.complete"
    async with client.follow("a") as live:
        await live.chunk()
        (engine,) = running_engines()
        messages.put_nowait({"type": "lifespan.shutdown"})
        assert (await sent.get())["type"] == "lifespan.shutdown.complete"
        await live.reply()
    await lifespan
    assert running_engines() == []
    workers = (*engine._writers, engine._reader)
    assert not any(worker._thread.is_alive() for worker in workers)  # type: ignore[attr-defined]


async def test_a_proxy_in_front_may_tell_host_and_scheme(direct: AsgiClient) -> None:
    headers = {"x-forwarded-proto": "https", "x-forwarded-host": "localhost"}
    plain = await direct.request("PUT", "a", headers)
    assert plain.headers["location"] == "http://testserver/v1/stream/a"
    with override_settings(USE_X_FORWARDED_HOST=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")):
        behind = await direct.request("PUT", "b", headers)
        assert behind.headers["location"] == "https://localhost/v1/stream/b"
        evil = await direct.request("PUT", "c", {**headers, "x-forwarded-host": "evil.example"})
        assert evil.status == 400
