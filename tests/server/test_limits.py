import asyncio
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.test import override_settings

from django_durable_streams.server.asgi import DurableStreams
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams

SMALL = override_streams(MAX_APPEND_BYTES=1000)
PLAIN = {"content-type": "text/plain"}


@SMALL
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_body_may_be_as_large_as_the_limit_and_no_larger(client: AsgiClient, method: str) -> None:
    client.http_version = "2"  # where nobody has to hang up
    if method == "POST":
        await client.create("a")
    reply = await client.request(method, "a", PLAIN, b"x" * 1001)
    assert reply.status == 413
    assert reply.headers["content-type"] == "application/problem+json"
    assert "1000" in reply.json()["detail"]
    head = await client.request("HEAD", "a")
    assert head.headers.get("stream-next-offset", "0")[-1] == "0"
    assert (await client.request(method, "a", PLAIN, b"x" * 1000)).status in (201, 204)


@override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=100)
async def test_djangos_own_limit_is_not_met(client: AsgiClient) -> None:
    await client.create("a")
    assert (await client.append("a", b"x" * 3_000_000)).status == 204


@SMALL
async def test_a_length_over_the_limit_is_refused_before_anything_is_read(engines: None) -> None:
    client = AsgiClient(DurableStreams(), http_version="2")
    for length in ("1001", "9" * 30):
        exchange = client.open("POST", "a", {**PLAIN, "content-length": length}, [b"x"] * 2000)
        async with exchange:
            assert (await exchange.reply()).status == 413
        assert exchange.receives == 0


@SMALL
async def test_a_chunked_body_is_read_no_further_than_the_limit(engines: None) -> None:
    client = AsgiClient(DurableStreams(), http_version="2")
    async with client.open("POST", "a", PLAIN, [b"x" * 100] * 1000) as exchange:
        assert (await exchange.reply()).status == 413
    assert exchange.receives == 11


@SMALL
async def test_a_client_that_is_still_sending_is_let_finish_a_little_and_then_cut_off(direct: AsgiClient) -> None:
    async with direct.open("POST", "a", PLAIN, [b"x" * 100] * 1000) as exchange:
        reply = await exchange.reply()
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    assert exchange.receives <= 22


async def test_a_body_that_breaks_off_changes_nothing(direct: AsgiClient) -> None:
    await direct.create("a")

    exchange = direct.open("POST", "a", PLAIN, [])
    messages = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> object:
        return next(messages)

    sent: list[Any] = []

    async def send(message: object) -> None:
        sent.append(message)

    await DurableStreams()(exchange._scope, receive, send)  # type: ignore[arg-type]
    assert [message.get("status") for message in sent] == [400, None]  # for a client that still reads
    assert (await direct.get("a")).body == b""


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "CONNECT", "PROPFIND", "get", "X" * 500])
async def test_other_methods_are_not_allowed(client: AsgiClient, method: str) -> None:
    await client.create("a", b"abc")
    reply = await client.request(method, "a")
    if method == "get" and reply.status == 200:
        return  # Django's request is written in capitals
    assert reply.status == 405
    assert {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"} == set(reply.headers["allow"].split(", "))
    assert reply.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("host", ["evil.example", "", "testserver@evil.example", "testserver/evil", "\xff", "[::1"])
@pytest.mark.parametrize("middleware", [True, False])
@pytest.mark.parametrize("entry_point", ["asgi", "django"])
async def test_a_host_that_is_not_ours_is_refused_and_nothing_is_made(
    engines: None, settings: Any, entry_point: str, middleware: bool, host: str
) -> None:
    with override_settings(MIDDLEWARE=settings.MIDDLEWARE if middleware else []):
        client = AsgiClient(DurableStreams() if entry_point == "asgi" else get_asgi_application())
    assert (await client.request("PUT", "a", {"host": host})).status == 400
    assert (await client.request("HEAD", "a")).status == 404


DOUBLED = ["stream-ttl", "stream-closed", "stream-seq", "producer-id", "content-type", "stream-expires-at"]


@pytest.mark.parametrize("name", DOUBLED)
async def test_a_header_that_came_twice_is_refused(client: AsgiClient, name: str) -> None:
    values = (b"text/plain", b"text/html") if name == "content-type" else (b"60", b"61")
    assert (await client.request("PUT", "a", [(name.encode(), value) for value in values])).status == 400
    assert (await client.request("HEAD", "a")).status == 404


async def test_if_none_match_may_come_in_several_lines(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    tag = (await client.get("a")).headers["etag"].encode()
    reply = await client.request("GET", "a", [(b"if-none-match", tag), (b"if-none-match", b'"other"')])
    assert reply.status == 304


async def test_everything_is_marked_not_to_be_sniffed(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for method, target in (("GET", "a"), ("HEAD", "a"), ("GET", "b"), ("PUT", ""), ("PATCH", "a"), ("OPTIONS", "a")):
        assert (await client.request(method, target)).headers["x-content-type-options"] == "nosniff"


async def test_a_queue_that_is_full_says_when_to_come_back(client: AsgiClient) -> None:
    with override_streams(QUEUE_SIZE=1):
        replies = await asyncio.gather(*(client.request("GET", "a") for _ in range(20)))
    refused = [reply for reply in replies if reply.status == 503]
    assert refused
    assert {reply.headers["retry-after"] for reply in refused} == {"1"}
