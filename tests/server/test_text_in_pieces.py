"""An append is no boundary of text: by SSE a character arrives whole, wherever appends have cut it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.asgi_client import AsgiClient, Exchange
from tests.event_stream import Parsed, parse
from tests.overriding import override_streams
from tests.tokens import token

LOOKS_NEVER = override_streams(POLL_INTERVAL=3600, SSE_DURATION=3600)
LOOKS_OFTEN = override_streams(POLL_INTERVAL=0.05, SSE_DURATION=3600)

EURO = "€".encode()


async def next_events(live: Exchange) -> Parsed:
    chunk = await live.chunk()
    assert chunk is not None
    return parse(chunk)


async def said(client: AsgiClient, offset: str) -> str:
    """All that a closed stream has behind an offset."""
    async with client.follow("a", offset) as live:
        return "".join(parse((await live.reply()).body).data)


@LOOKS_NEVER
async def test_a_cut_character_arrives_with_what_completes_it(client: AsgiClient) -> None:
    await client.create("a", b"ab" + EURO[:2])
    async with client.follow("a") as live:
        first = await next_events(live)
        assert (first.data, first.controls[0]["streamNextOffset"]) == (["ab"], token(2))
        assert first.controls[0]["upToDate"] is True
        await client.append("a", EURO[2:] + b"c" + EURO[:1])
        news = await next_events(live)
        assert (news.data, news.controls[0]["streamNextOffset"]) == (["€c"], token(6))
        await client.append("a", EURO[1:2])  # still nothing to hand out
        await client.append("a", EURO[2:])
        news = await next_events(live)
        assert (news.data, news.controls[0]["streamNextOffset"]) == (["€"], token(9))
        assert [event.kind for event in news.events] == ["data", "control"]


@LOOKS_NEVER
@pytest.mark.parametrize("data", [b"a\xff", b"\x80", b"\xe2\x28", b"\xc0\xaf", b"\xed\xa0\x80"])
async def test_what_can_never_be_a_character_holds_up_nothing(client: AsgiClient, data: bytes) -> None:
    await client.create("a")
    async with client.follow("a") as live:
        await next_events(live)
        await client.append("a", data)
        assert (await next_events(live)).data == [data.decode(errors="replace")]


@LOOKS_NEVER
async def test_what_was_to_become_one_and_does_not_is_replaced(client: AsgiClient) -> None:
    await client.create("a", EURO[:2])
    async with client.follow("a") as live:
        first = await next_events(live)
        assert (first.data, first.controls[0]["streamNextOffset"]) == ([], token(0))
        await client.append("a", b"x")
        assert (await next_events(live)).data == ["\ufffdx"]


@LOOKS_NEVER
@pytest.mark.parametrize("how", ["alone", "with data", "at once"])
async def test_at_the_end_of_a_stream_everything_comes(client: AsgiClient, how: str) -> None:
    await client.create("a", b"a" + EURO[:2])
    if how == "at once":
        await client.close("a")
        assert await said(client, "-1") == "a\ufffd"
        return
    async with client.follow("a") as live:
        assert (await next_events(live)).data == ["a"]
        if how == "alone":
            await client.close("a")
        else:
            await client.append("a", EURO[2:] + b"b" + EURO[:1], stream_closed="true")
        last = await next_events(live)
        assert "".join(last.data) == ("\ufffd" if how == "alone" else "€b\ufffd")
        end = token(3) if how == "alone" else token(6)
        assert (last.controls[-1]["streamNextOffset"], last.controls[-1]["streamClosed"]) == (end, True)
        assert await live.chunk() is None


async def test_reading_on_at_an_offset_of_sse_neither_loses_nor_doubles(client: AsgiClient) -> None:
    await client.create("a", b"ab" + EURO[:2])
    async with client.follow("a") as live:
        offset = (await next_events(live)).controls[0]["streamNextOffset"]
    reply = await client.get(f"a?offset={offset}")
    assert (reply.body, reply.offset) == (EURO[:2], token(4))
    async with client.follow("a", offset) as live:
        again = await next_events(live)
        assert (again.data, again.controls[0]["streamNextOffset"]) == ([], offset)
        assert again.controls[0]["upToDate"] is True
        await client.append("a", EURO[2:])
        assert (await next_events(live)).data == ["€"]
    await client.close("a")
    assert await said(client, offset) == "€"
    async with client.follow("a", offset, "long-poll") as live:
        assert (await live.reply()).body == EURO


@pytest.mark.parametrize("have", [1, 2])
@pytest.mark.parametrize("is_there", [False, True])
async def test_who_begins_within_a_character_gets_it_whole(client: AsgiClient, have: int, is_there: bool) -> None:
    """As somebody does who reads by GET first, which has the bytes as they are."""
    await client.create("a", b"ab" + EURO[:have])
    offset = (await client.get("a")).offset
    assert offset == token(2 + have)
    if is_there:
        await client.append("a", EURO[have:] + b"c", stream_closed="true")
        assert await said(client, offset) == "€c"
        return
    async with client.follow("a", offset) as live:
        assert (await next_events(live)).data == []
        await client.append("a", EURO[have:] + b"c")
        assert (await next_events(live)).data == ["€c"]


async def test_bytes_that_belong_to_no_character_are_no_reason_to_look_back(client: AsgiClient) -> None:
    await client.create("a", b"ab\x80")
    await client.append("a", b"\x80c", stream_closed="true")
    assert await said(client, token(3)) == "\ufffdc"


@override_streams(PAGE_BYTES=4)
async def test_pages_are_no_boundaries_either(client: AsgiClient) -> None:
    await client.create("a", b"abcdefghij" + EURO[:1])
    for piece in (EURO[1:2], EURO[2:], b"klmno" + EURO[:2]):
        await client.append("a", piece)
    await client.append("a", EURO[2:], stream_closed="true")
    async with client.follow("a") as live:
        parsed = parse((await live.reply()).body)
    assert "".join(parsed.data) == "abcdefghij€klmno€"
    assert "\ufffd" not in "".join(parsed.data)
    for control in parsed.controls:
        rest = ""
        async with client.follow("a", control["streamNextOffset"]) as live:
            rest = "".join(parse((await live.reply()).body).data)
        assert "abcdefghij€klmno€".endswith(rest)
        assert "\ufffd" not in rest


@LOOKS_OFTEN
async def test_many_readers_that_have_begun_at_different_places_agree(client: AsgiClient) -> None:
    text = "größer: €, 😀 und ß – " * 3
    data = text.encode()
    await client.create("a")
    got: list[str] = []

    async def follow(live: Exchange, begin: int) -> None:
        received = ""
        while not received.endswith("!"):
            received += "".join((await next_events(live)).data)
        assert received == text[begin:] + "!"
        got.append(received)

    async with asyncio.TaskGroup() as group:
        lives: list[Any] = []
        for first in range(0, len(data), 3):
            live = client.follow("a", token(first))
            whole = data[:first].decode(errors="ignore")
            lives.append(await live.__aenter__())
            group.create_task(follow(live, len(whole)))
            await client.append("a", data[first : first + 3])
        await client.append("a", b"!")
    for live in lives:
        await live.__aexit__(None, None, None)
    assert len(got) == len(lives)
