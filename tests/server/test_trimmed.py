"""Reads of trimmed data, at every entry point: 410 with the offset to go on from, and never a silent gap."""

from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import OffsetTrimmed
from django_durable_streams.store.operations import Append, Trim
from tests.asgi_client import AsgiClient, Reply
from tests.event_stream import parse
from tests.overriding import override_streams
from tests.server.entry_points import ENTRY_POINTS, EntryPoint
from tests.server.waiting import elsewhere, until, watched
from tests.tokens import token

TEXT = {"content-type": "text/plain"}
ZERO = "0000000000000000_0000000000000000"


@pytest.fixture(params=ENTRY_POINTS)
def entry(request: pytest.FixtureRequest, engines: None, counted_generations: None) -> EntryPoint:
    return EntryPoint(request.param)


@sync_to_async
def trim(position: int, path: str = "a") -> str:
    stream = Stream.objects.get(path=path)
    return stream.trim(stream.offset_at(position))


def check_refusal(reply: Reply, first: str) -> None:
    assert (reply.status, reply.json()["type"]) == (410, "urn:durable-streams:error:offset-trimmed")
    assert reply.headers["stream-first-offset"] == first
    assert reply.headers["cache-control"] == "no-store"
    assert first in reply.json()["detail"]


async def test_reads_before_the_trim_are_refused_and_all_others_go_on(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", TEXT, b"abc")
    await entry.request("POST", "a", TEXT, b"def")
    tag = (await entry.request("GET", f"a?offset={token(1)}")).headers["etag"]
    assert "stream-first-offset" not in (await entry.request("HEAD", "a")).headers
    assert await trim(4) == token(4)
    for offset in (ZERO, token(1), token(3)):
        for live in ("", "&live=long-poll", "&live=sse")[: 2 if entry.name == "wsgi" else 3]:
            check_refusal(await entry.request("GET", f"a?offset={offset}{live}"), token(4))
    refused = await entry.request("GET", f"a?offset={token(1)}", {"if-none-match": tag})
    check_refusal(refused, token(4))
    for target in ("a", "a?offset=-1", f"a?offset={token(4)}"):
        reply = await entry.request("GET", target)
        assert (reply.status, reply.body, reply.offset) == (200, b"ef", token(6))
    assert (await entry.request("HEAD", "a")).headers["stream-first-offset"] == token(4)


async def test_a_trim_to_the_tail_leaves_an_empty_stream_that_goes_on(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", TEXT, b"abc")
    assert await trim(3) == token(3)
    reply = await entry.request("GET", "a")
    assert (reply.status, reply.body, reply.offset) == (200, b"", token(3))
    assert (await entry.request("POST", "a", {**TEXT, "if-match": token(3)}, b"d")).status == 204
    assert (await entry.request("GET", f"a?offset={token(3)}")).body == b"d"


async def test_a_fork_of_trimmed_data_is_refused(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", TEXT, b"abcdef")
    fork = {"stream-forked-from": "/v1/stream/a"}
    assert (await entry.request("PUT", "early", {**fork, "stream-fork-offset": token(2)})).status == 201
    await trim(3)
    refused = await entry.request("PUT", "late", {**fork, "stream-fork-offset": token(1)})
    assert (refused.status, token(3) in refused.json()["detail"]) == (400, True)
    again = await entry.request("PUT", "early", {**fork, "stream-fork-offset": token(2)})
    assert again.status == 200
    assert (await entry.request("GET", f"early?offset={ZERO}")).body == b"ab"
    assert (await entry.request("PUT", "late", {**fork, "stream-fork-offset": token(3)})).status == 201
    check_refusal(await entry.request("GET", f"late?offset={ZERO}"), token(3))


@override_streams(CACHE_SCOPE="public", PERMISSION_CLASSES="django_durable_streams.permissions.AllowAll")
async def test_caches_ask_again_for_data_of_a_trimmed_stream(client: AsgiClient) -> None:
    await client.create("a", b"abcdef")
    assert "public" in (await client.get("a")).headers["cache-control"]
    await trim(3)
    assert "public" not in (await client.get("a")).headers["cache-control"]


APPENDED_AND_TRIMMED = (Append("a", "text/plain", b"def"), Append("a", "text/plain", b"ghi"), Trim("a", 9))


async def test_a_waiting_long_poll_that_falls_behind_is_refused(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a", token(3), "long-poll") as live:
        await until(lambda: watched() == 1)
        await elsewhere(*APPENDED_AND_TRIMMED)
        check_refusal(await live.reply(), token(9))


async def test_an_event_stream_that_falls_behind_ends_and_its_client_learns_why(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        events = parse(await live.chunk() or b"")
        await until(lambda: watched() == 1)
        await elsewhere(*APPENDED_AND_TRIMMED)
        rest = parse((await live.reply()).body)
    assert (events.data, rest.data) == (["abc"], [])
    check_refusal(await client.get(f"a?offset={events.controls[-1]['streamNextOffset']}"), token(9))


async def test_a_current_event_stream_does_not_notice_a_trim(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        events = parse(await live.chunk() or b"")
        await until(lambda: watched() == 1)
        await trim(3)
        await client.append("a", b"def", stream_closed="true")
        rest = parse((await live.reply()).body)
    assert "".join([*events.data, *rest.data]) == "abcdef"


async def test_tail_in_python_is_refused_with_the_offset_to_go_on_from(engines: None) -> None:
    def prepare() -> Any:
        stream = Stream.objects.create(path="a", content_type="text/plain", data="abc")
        stream.append("def")
        stream.trim(stream.offset_at(4))
        return stream

    stream = await sync_to_async(prepare)()
    with pytest.raises(OffsetTrimmed) as refused:
        await anext(stream.atail(ZERO, timeout=0))
    pages = [page.messages async for page in stream.atail(refused.value.first_offset, timeout=0)]
    assert pages == [["ef"]]
    with pytest.raises(OffsetTrimmed):
        await sync_to_async(lambda: list(stream.tail(ZERO, timeout=0)))()
    assert [page.messages for page in await sync_to_async(lambda: list(stream.tail(timeout=0)))()] == [["ef"]]


async def test_a_read_that_is_overtaken_by_a_trim_between_two_pages_is_refused(engines: None) -> None:
    def read() -> Any:
        stream = Stream.objects.create(path="a", content_type="text/plain")
        for text in ("abc", "def", "ghi"):
            stream.append(text)
        with override_streams(PAGE_BYTES=3):
            messages = stream.read()
            first = next(messages)
            stream.trim("now")
            with pytest.raises(OffsetTrimmed) as refused:
                next(messages)
        assert refused.value.first_offset == stream.next_offset
        return first

    assert await sync_to_async(read)() == "abc"
