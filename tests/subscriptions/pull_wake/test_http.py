"""What is sent to another server, and what its answers mean."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from django_durable_streams.protocol.errors import (
    DurableStreamsError,
    NotAuthenticated,
    PermissionDenied,
    ServiceUnavailable,
    StreamGone,
    StreamNotFound,
)
from django_durable_streams.protocol.subscriptions import SubscriptionError
from django_durable_streams.subscriptions.pull_wake.base import ClaimedStream, ClaimedWake
from django_durable_streams.subscriptions.pull_wake.http import HttpClient
from django_durable_streams.subscriptions.pull_wake.remote import RemoteServer
from tests.listening import Listener

WAKE = ClaimedWake("w_1", 1, "claim-token", 30_000, ())


class Scripted:
    """A server that gives answers in their order, and notes the requests: head and body."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = [*answers]
        self.requests: list[tuple[str, bytes]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next((int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length:")), 0)
        self.requests.append((head, await reader.readexactly(length)))
        if self.answers:
            writer.write(self.answers.pop(0))
            await writer.drain()


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def scripted(*answers: bytes) -> AsyncIterator[tuple[Scripted, str]]:
    script = Scripted(*answers)
    async with Listener(script) as listener:
        yield script, f"http://127.0.0.1:{listener.port}/streams"


PROBLEM = b'{"error": {"code": "ALREADY_CLAIMED", "current_holder": "w", "generation": 1}}'


@pytest.mark.parametrize(
    ("status", "body", "error", "code"),
    [
        (409, PROBLEM, SubscriptionError, "ALREADY_CLAIMED"),
        (404, b'{"error": {"code": "SUBSCRIPTION_NOT_FOUND"}}', SubscriptionError, "SUBSCRIPTION_NOT_FOUND"),
        (409, b"no JSON", SubscriptionError, "REFUSED"),
        (405, b"", SubscriptionError, "REFUSED"),
        (301, b"", SubscriptionError, "REFUSED"),
        (401, b'{"title": "x"}', NotAuthenticated, None),
        (403, b"", PermissionDenied, None),
        (404, b"", StreamNotFound, None),
        (410, b"[1]", StreamGone, None),
        *[(status, PROBLEM, ServiceUnavailable, None) for status in (408, 425, 429, 500, 502, 503, 504)],
    ],
)
async def test_refusals_are_errors_of_the_family(status: int, body: bytes, error: Any, code: str | None) -> None:
    async with scripted(answer(status, body)) as (_, url):
        client = HttpClient(url, {})
        with pytest.raises(DurableStreamsError) as raised:
            await client.request("GET", "a")
        await client.close()
    assert type(raised.value) is error
    assert code is None or raised.value.error_code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"\x00" * 50])
async def test_a_connection_that_ends_is_no_answer(sent: bytes) -> None:
    async with scripted(sent) as (_, url):
        client = HttpClient(url, {})
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await client.request("GET", "a")
        await client.close()


async def test_silence_is_no_answer() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with Listener(silent) as listener:
        client = HttpClient(f"http://127.0.0.1:{listener.port}", {})
        with pytest.raises(ServiceUnavailable, match="does not answer"):
            await client.request("GET", "a", seconds=0.05)
        await client.close()


async def test_a_port_where_nothing_listens_is_no_answer() -> None:
    async with scripted() as (_, url):
        pass
    client = HttpClient(url, {})
    with pytest.raises(ServiceUnavailable, match="does not answer"):
        await client.request("GET", "a")
    await client.close()


async def test_the_token_of_the_wake_takes_the_place_of_other_credentials() -> None:
    calls = 0

    def headers() -> dict[str, str]:
        nonlocal calls
        calls += 1
        return {"Authorization": f"Bearer service-{calls}", "X-Team": "mail"}

    claimed = b'{"wake_id": "w", "generation": 1, "token": "t", "lease_ttl_ms": 1000, "streams": [], "more": 1}'
    answers = answer(200, claimed), answer(200, b'{"ok": true, "next_wake": false}'), answer(204), answer(201)
    async with scripted(*answers) as (script, url):
        server = RemoteServer("a ä", url, headers)
        assert (await server.claim("w")).lease == 1.0
        await server.ack(WAKE, {"s/1": "0_1"}, done=True)
        await server.release(WAKE)
        await server.close()
    heads = [head.splitlines() for head, _ in script.requests]
    root = "POST /streams/__ds/subscriptions/a%20%C3%A4/"
    assert [lines[0] for lines in heads] == [f"{root}{action} HTTP/1.1" for action in ("claim", "ack", "release")]
    credentials = [line for lines in heads for line in lines if line.lower().startswith("authorization")]
    assert credentials == [
        "authorization: Bearer service-1",
        "authorization: Bearer claim-token",
        "authorization: Bearer claim-token",
    ]
    assert all("x-team: mail" in lines for lines in heads)
    assert script.requests[1][1] == (
        b'{"wake_id":"w_1","generation":1,"acks":[{"stream":"s/1","offset":"0_1"}],"done":true}'
    )


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"wake_id": 1}', b"<html>"])
async def test_an_answer_that_is_none_of_the_protocol_is_a_refusal(body: bytes) -> None:
    async with scripted(answer(200, body)) as (_, url):
        server = RemoteServer("s", url, {})
        with pytest.raises(DurableStreamsError, match="not one of the protocol") as raised:
            await server.claim("w")
        await server.close()
    assert not isinstance(raised.value, ServiceUnavailable)


async def read(*answers: bytes, tail: str = "9") -> tuple[list[tuple[Any, str | None]], list[str]]:
    async with scripted(*answers) as (script, url):
        server = RemoteServer("s", url, {})
        stream = ClaimedStream("a b", "1", tail)
        messages = [(one.value, one.offset) async for one in server.messages(stream, "1")]
        await server.close()
    return messages, [head.split()[1] for head, _ in script.requests]


def page(body: bytes, next_offset: str, *headers: str, kind: str = "application/json") -> bytes:
    return answer(200, body, f"Stream-Next-Offset: {next_offset}", f"Content-Type: {kind}", *headers)


async def test_pages_are_read_up_to_the_tail_of_the_claim() -> None:
    messages, targets = await read(page(b"[1,2]", "5"), page(b"[3]", "9"), page(b"[4]", "10"))
    assert messages == [(1, None), (2, "5"), (3, "9")]
    assert targets == ["/streams/a%20b?offset=1", "/streams/a%20b?offset=5"]


async def test_pages_are_read_up_to_the_end() -> None:
    assert (await read(page(b"[1]", "5", "Stream-Up-To-Date: true")))[0] == [(1, "5")]
    assert (await read(page(b"[1]", "5", "Stream-Closed: true")))[0] == [(1, "5")]
    assert (await read(page(b"[]", "1")))[0] == []  # a server that tells nothing new


async def test_data_that_is_not_retained_is_passed_over() -> None:
    messages, targets = await read(answer(410), page(b"[3]", "9"))
    assert messages == [(3, "9")]
    assert targets == ["/streams/a%20b?offset=1", "/streams/a%20b?offset=-1"]
    assert await read(answer(410), answer(410)) == ([], ["/streams/a%20b?offset=1", "/streams/a%20b?offset=-1"])
    assert (await read(answer(404)))[0] == []


async def test_text_is_acknowledged_where_a_character_ends() -> None:
    pages = page(b"a\xc3", "3", kind="text/plain"), page(b"\xa4", "5", kind="text/plain")
    end = page(b"b\xc3", "7", "Stream-Up-To-Date: true", kind="text/plain; charset=utf-8")
    assert (await read(*pages, end))[0] == [("aä", "5")]
    closed = page(b"b\xc3", "7", "Stream-Closed: true", kind="text/plain")
    assert (await read(*pages, closed))[0] == [("aä", "5"), ("b\ufffd", "7")]


async def test_a_large_page_is_whole() -> None:
    body = b"[" + b",".join(b'"%d"' % number for number in range(20_000)) + b"]"
    messages, _ = await read(page(body, "9"))
    assert [value for value, _ in messages] == [str(number) for number in range(20_000)]
    assert {offset for _, offset in messages[:-1]} == {None}
    assert messages[-1][1] == "9"


async def test_events_are_followed_from_the_end_of_the_wake_stream() -> None:
    event = b'[{"type": "wake", "subscription_id": "s"}]'
    answers = [
        page(b"[]", "3", "Stream-Cursor: 1"),
        page(event.replace(b'"s"', b'"other"'), "5", "Stream-Cursor: 7"),
        answer(204, b"", "Stream-Next-Offset: 5"),
        page(event, "8"),
        page(event, "9", "Stream-Closed: true"),
    ]
    async with scripted(*answers) as (script, url):
        server = RemoteServer("s", url, {})
        count = len([None async for _ in server.wake_events("wake/s")])
        await server.close()
    assert count == 3  # at the beginning, and for each page with an event of the subscription
    targets = [head.split()[1].removeprefix("/streams/wake/s?") for head, _ in script.requests]
    assert targets == [
        "offset=now",
        "live=long-poll&offset=3&cursor=1",
        "live=long-poll&offset=5&cursor=7",
        "live=long-poll&offset=5&cursor=7",
        "live=long-poll&offset=8&cursor=7",
    ]
