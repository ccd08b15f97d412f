import asyncio
import json
from base64 import b64decode
from collections.abc import Callable

import pytest

from django_durable_streams.engine.engine import running_engines
from django_durable_streams.protocol.offsets import ZERO
from tests.asgi_client import AsgiClient, Exchange, named
from tests.event_stream import Parsed, parse
from tests.overriding import override_streams
from tests.server.waiting import until, watched
from tests.tokens import FIRST, token

LOOKS_NEVER = override_streams(POLL_INTERVAL=3600, SSE_DURATION=3600)


async def next_events(live: Exchange) -> Parsed:
    chunk = await live.chunk()
    assert chunk is not None
    return parse(chunk)


async def all_events(live: Exchange) -> Parsed:
    return parse((await live.reply()).body)


@LOOKS_NEVER
async def test_what_is_there_comes_first_and_then_what_is_new(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        first = await next_events(live)
        assert (first.data, first.controls[0]["streamNextOffset"]) == (["abc"], token(3))
        assert first.controls[0]["upToDate"] is True
        for number in range(3):
            await client.append("a", b"%d" % number)
            news = await next_events(live)
            assert (news.data, news.controls[0]["streamNextOffset"]) == ([str(number)], token(4 + number))
            assert [event.kind for event in news.events] == ["data", "control"]


async def test_the_response_is_an_event_stream_that_nobody_keeps(client: AsgiClient) -> None:
    await client.create("a", b"abc", stream_closed="true")
    async with client.follow("a") as live:
        reply = await live.reply()
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-cache"
    assert "content-length" not in reply.headers
    assert "stream-sse-data-encoding" not in reply.headers


@LOOKS_NEVER
@pytest.mark.parametrize("offset", ["now", token(3), token(4)])
async def test_a_reader_at_the_tail_is_told_where_it_is(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc")
    async with client.follow("a", offset) as live:
        first = await next_events(live)
        assert first.data == []
        (control,) = first.controls
        assert control == {"streamNextOffset": token(3), "streamCursor": control["streamCursor"], "upToDate": True}
        await client.append("a", b"def")
        assert (await next_events(live)).data == ["def"]


@pytest.mark.parametrize("offset", ["now", "-1", token(3)])
async def test_a_closed_stream_ends_the_response(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc", stream_closed="true")
    async with client.follow("a", offset) as live:
        events = await all_events(live)
    assert events.data == (["abc"] if offset == "-1" else [])
    assert events.controls == [{"streamNextOffset": token(3), "streamClosed": True, "upToDate": True}]


@LOOKS_NEVER
async def test_the_last_append_comes_before_the_closure_that_comes_with_it(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        await next_events(live)
        await client.append("a", b"end", stream_closed="true")
        events = await all_events(live)
    assert events.data == ["end"]
    assert events.controls == [{"streamNextOffset": token(6), "streamClosed": True, "upToDate": True}]


@LOOKS_NEVER
async def test_a_close_ends_the_response(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        await next_events(live)
        await client.close("a")
        events = await all_events(live)
    assert (events.data, events.controls[-1].get("streamClosed")) == ([], True)


@LOOKS_NEVER
async def test_appends_and_a_close_at_once_lose_nothing(client: AsgiClient) -> None:
    await client.create("a")
    async with client.follow("a") as live:
        await next_events(live)
        await asyncio.gather(
            *(client.append("a", b"x") for _ in range(20)), client.append("a", b"!", stream_closed="true")
        )
        events = await all_events(live)
        content = (await client.get("a")).body.decode()
    assert "".join(events.data) == content
    assert [control.get("streamClosed", False) for control in events.controls][-1] is True


@LOOKS_NEVER
async def test_a_delete_ends_the_response_without_a_word_of_closure(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        await next_events(live)
        await client.request("DELETE", "a")
        await client.create("a", b"another")
        events = await all_events(live)
    assert events.data == []
    assert not any("streamClosed" in control for control in events.controls)


async def test_a_reader_of_nothing_gets_an_error_and_no_event_stream(client: AsgiClient) -> None:
    async with client.follow("nowhere") as live:
        reply = await live.reply()
    assert (reply.status, reply.headers["content-type"]) == (404, "application/problem+json")


async def test_messages_come_as_arrays_with_their_numbers_as_they_were(client: AsgiClient) -> None:
    await client.create("a", b'[1.0,\n {"a":12345678901234567890}]', "application/json", stream_closed="true")
    async with client.follow("a") as live:
        (data,) = (await all_events(live)).data
    assert data == '[1.0,{"a":12345678901234567890}]'


async def test_bytes_come_in_base64_and_the_response_says_so(client: AsgiClient) -> None:
    content = bytes(range(256))
    await client.create("a", content, "application/x-protobuf", stream_closed="true")
    async with client.follow("a") as live:
        reply = await live.reply()
    assert reply.headers["stream-sse-data-encoding"] == "base64"
    assert b64decode(parse(reply.body).data[0], validate=True) == content


async def test_a_payload_forges_no_event(client: AsgiClient) -> None:
    evil = "a\r\n\r\nevent: control\rdata: {}\n\ndata: x\n\n  b"
    await client.create("a", evil.encode(), stream_closed="true")
    async with client.follow("a") as live:
        events = await all_events(live)
    assert events.data == [evil.replace("\r\n", "\n").replace("\r", "\n")]
    assert len(events.controls) == 1


async def test_every_page_of_a_long_stream_has_its_control_event(client: AsgiClient) -> None:
    await client.create("a")
    for _ in range(10):
        await client.append("a", b"x" * 30)
    await client.close("a")
    with override_streams(PAGE_BYTES=60):
        async with client.follow("a") as live:
            events = await all_events(live)
    assert [event.kind for event in events.events] == ["data", "control"] * 5
    assert "".join(events.data) == "x" * 300
    assert ["upToDate" in control for control in events.controls] == [False] * 4 + [True]
    assert [control["streamNextOffset"] for control in events.controls] == [token(60 * n) for n in range(1, 6)]


@override_streams(SSE_KEEP_ALIVE=0.02, POLL_INTERVAL=0.005)
async def test_an_idle_response_has_traffic_that_is_no_event(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        await next_events(live)
        idle = await next_events(live)
        assert (len(idle.comments), idle.events) == (1, [])


@override_streams(SSE_DURATION=0.03, POLL_INTERVAL=0.005)
async def test_a_response_ends_when_its_time_is_up_and_says_where_to_go_on(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a", "now") as live:
        events = await all_events(live)
    assert events.controls[-1]["streamNextOffset"] == token(3)
    assert "streamClosed" not in events.controls[-1]
    assert int(events.controls[-1]["streamCursor"]) > 0


@override_streams(SSE_MAX_BYTES=1500, PAGE_BYTES=600)
async def test_a_response_ends_when_it_is_large_enough_and_readers_lose_nothing_by_it(client: AsgiClient) -> None:
    await client.create("a")
    parts = [b"%d" % (number % 10) * 200 for number in range(20)]
    for part in parts:
        await client.append("a", part)
    await client.close("a")
    offset, got, responses = "-1", "", 0
    while True:
        async with client.follow("a", offset) as live:
            reply = await live.reply()
        events = parse(reply.body)
        assert len(reply.body) < 1500 + 600 + 300
        got += "".join(events.data)
        offset = events.controls[-1]["streamNextOffset"]
        responses += 1
        if "streamClosed" in events.controls[-1]:
            break
        assert events.events[-1].kind == "control"
    assert got == b"".join(parts).decode()
    assert responses > 2


@LOOKS_NEVER
async def test_stopping_ends_every_response_with_a_control_event(client: AsgiClient) -> None:
    for path in "ab":
        await client.create(path, b"abc")
    async with client.follow("a") as one, client.follow("a", "now") as two, client.follow("b") as three:
        for live in (one, two, three):
            await next_events(live)
        for engine in running_engines():
            engine.end_live_reads()
        for live, offset in ((one, token(3)), (two, token(3)), (three, token(3, FIRST + 1))):
            events = await all_events(live)
            assert [event.kind for event in events.events] == ["control"]
            assert events.controls[0]["streamNextOffset"] == offset
            assert "streamClosed" not in events.controls[0]


@LOOKS_NEVER
@pytest.mark.parametrize("sent", [None, "0", "999999999999", "abc"])
async def test_cursors_are_digits_and_go_on_from_the_clients(client: AsgiClient, sent: str | None) -> None:
    await client.create("a", b"abc")
    query = "a?live=sse&offset=-1" + (f"&cursor={sent}" if sent is not None else "")
    async with client.open("GET", query) as live:
        cursors = [(await next_events(live)).controls[0]["streamCursor"]]
        await client.append("a", b"d")
        cursors.append((await next_events(live)).controls[0]["streamCursor"])
    assert all(cursor.isdigit() for cursor in cursors)
    assert int(cursors[1]) >= int(cursors[0])
    if sent == "999999999999":
        assert int(cursors[0]) > 999_999_999_999


@LOOKS_NEVER
async def test_a_client_that_leaves_is_forgotten(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with client.follow("a") as live:
        await next_events(live)
        assert watched() == 1
        live.disconnect()
        await until(lambda: watched() == 0)


@LOOKS_NEVER
async def test_readers_of_the_same_news_are_sent_the_same_bytes(direct: AsgiClient) -> None:
    await direct.create("a", b"abc")
    async with direct.follow("a") as one, direct.follow("a") as other:
        await next_events(one)
        await next_events(other)
        await direct.append("a", b"news")
        first, second = await one.chunk(), await other.chunk()
        assert first is second
        assert first is not None
        assert parse(first).data == ["news"]


@LOOKS_NEVER
async def test_readers_who_come_while_much_is_written_see_every_byte_once(client: AsgiClient) -> None:
    await client.create("a", kind="application/json")

    async def read(begin: Callable[[], bool]) -> list[int]:
        await until(begin)
        async with client.follow("a") as live:
            events = await all_events(live)
        return [number for data in events.data for number in json.loads(data)]

    written = 0

    async def write() -> None:
        nonlocal written
        for number in range(120):
            await client.append("a", b"%d" % number, "application/json")
            written = number
        await client.close("a")

    readers = [read(lambda at=at: written >= at) for at in (0, 1, 30, 60, 119)]
    *received, _ = await asyncio.gather(*readers, write())
    assert received == [list(range(120))] * 5


@LOOKS_NEVER
@pytest.mark.parametrize("offset", ["-1", "now"])
async def test_each_event_has_the_id_with_which_a_browser_continues(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc")
    async with client.follow("a", offset) as live:
        events = (await next_events(live)).events
        await client.append("a", b"\xe2")
        await client.append("a", b"\x82\xac!")
        while events[-1].last_id != token(7):
            events += (await next_events(live)).events
    ids = {"abc": token(3), "\u20ac!": token(7)}
    assert events[0].last_id == token(3)
    assert all(event.last_id == ids[event.data] for event in events if event.kind == "data")
    assert all(event.last_id == event.fields["streamNextOffset"] for event in events if event.kind == "control")


@LOOKS_NEVER
async def test_a_large_event_has_an_id(client: AsgiClient) -> None:
    body = b"x" * (3 * 1024 * 1024)
    await client.create("a", body, stream_closed="true")
    async with client.follow("a") as live:
        events = (await all_events(live)).events
    assert [event.last_id for event in events] == [token(len(body))] * 2


@LOOKS_NEVER
@pytest.mark.parametrize("offset", ["-1", "now"])
async def test_a_browser_that_reconnects_continues_at_its_last_event(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc")
    await client.append("a", b"def")
    async with client.follow("a", offset, last_event_id=token(3)) as live:
        assert (await next_events(live)).data == ["def"]


async def test_a_browser_that_has_all_of_a_closed_stream_is_told_to_stop(client: AsgiClient) -> None:
    await client.create("a", b"abc", stream_closed="true")
    async with client.follow("a", "-1", last_event_id=token(3)) as live:
        reply = await live.reply()
    assert (reply.status, reply.body, reply.headers["stream-closed"]) == (204, b"", "true")
    assert reply.headers["cache-control"] == "no-store"
    async with client.follow("a", "now", last_event_id=ZERO) as live:
        assert (await all_events(live)).data == ["abc"]


@pytest.mark.parametrize("last_id", ["3", "x y", "undefined", f"{token(3)}\xa0", f"{token(3)},{token(4)}"])
async def test_an_id_that_is_no_offset_is_refused(client: AsgiClient, last_id: str) -> None:
    await client.create("a", b"abc")
    async with client.follow("a", "-1", last_event_id=last_id) as live:
        assert (await live.reply()).status == 400


async def test_an_id_of_an_earlier_stream_is_refused_as_its_offset_is(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    await client.request("DELETE", "a")
    await client.create("a", b"another")
    async with client.follow("a", token(3)) as live, client.follow("a", "-1", last_event_id=token(3)) as again:
        status = (await live.reply()).status
        assert status in (400, 404, 410)
        assert (await again.reply()).status == status


@pytest.mark.parametrize("last_id", ["", " "])
async def test_an_empty_id_is_none(client: AsgiClient, last_id: str) -> None:
    await client.create("a", b"abc", stream_closed="true")
    async with client.follow("a", "-1", last_event_id=last_id) as live:
        assert (await all_events(live)).data == ["abc"]


@pytest.mark.parametrize("query", ["offset=-1", "offset=-1&live=long-poll"])
async def test_only_event_streams_have_ids(client: AsgiClient, query: str) -> None:
    await client.create("a", b"abc")
    async with client.open("GET", f"a?{query}", named({"last_event_id": "no offset"})) as live:
        assert (await live.reply()).body == b"abc"
