"""What a page gets from an event source, from its first request to the end of the stream."""

import json

import pytest

from tests.event_stream import events_of
from tests.overriding import override_streams
from tests.server.pages import renderers
from tests.server.pages.conftest import PageClient
from tests.tokens import token

LOOKS_NEVER = override_streams(POLL_INTERVAL=3600, SSE_DURATION=3600)
JSON = "application/json"


@LOOKS_NEVER
async def test_each_message_is_an_event_with_the_offset_after_it(pages: PageClient) -> None:
    await pages.create("a", b'[{"n":1.0}, "two"]', JSON)
    async with pages.source("plain/a") as source:
        assert await source.until(2) == ['{"n":1.0}', '"two"']
        await pages.append("a", b"3", JSON)
        assert (await source.until(3))[2] == "3"
        assert [(event.kind, event.last_id) for event in source.events().events] == [
            ("message", token(10)),
            ("message", token(16)),
            ("message", token(18)),
        ]


async def test_the_response_is_an_event_stream_that_nobody_keeps(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON, stream_closed="true")
    reply = await pages.page("plain/a")
    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.body.startswith(b"retry:2000\n\n")


async def test_a_client_goes_on_inside_an_append(pages: PageClient) -> None:
    await pages.create("a", json.dumps([f"m{number}" for number in range(10)]).encode(), JSON, stream_closed="true")
    whole = events_of((await pages.page("plain/a")).body).events
    assert [event.kind for event in whole] == ["message"] * 10 + ["end"]
    for cut, event in enumerate(whole[:-1], 1):
        assert await pages.data("plain/a", event.last_id) == [other.data for other in whole[cut:-1]]


@pytest.mark.parametrize("position", range(1, 13))
async def test_every_place_in_an_append_leads_to_whole_messages(pages: PageClient, position: int) -> None:
    await pages.create("a", b'["one","two"]', JSON, stream_closed="true")
    expected = ['"one"', '"two"'] if position < 6 else ['"two"'] if position < 12 else []
    assert await pages.data("plain/a", token(position)) == expected
    assert await pages.data(f"plain/a?offset={token(position)}") == expected


async def test_the_end_is_an_event_and_then_a_204(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON)
    async with pages.source("plain/a") as source:
        await source.until(1)
        await pages.close("a")
        last = (await source.rest()).events[-1]
    assert (last.kind, last.last_id) == ("end", "end")
    assert json.loads(last.data) == {"reason": "closed", "next_offset": token(2)}
    assert (await pages.page("plain/a", "end")).status == 204
    # A client that was cut off before the last event still gets it.
    (event,) = events_of((await pages.page("plain/a", token(2))).body).events
    assert event.kind == "end"


async def test_events_and_the_end_have_the_names_of_the_view(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON, stream_closed="true")
    events = events_of((await pages.page("named/a")).body).events
    assert [event.kind for event in events] == ["news", "over"]
    await pages.create("b", b'[{"type":"x"},{"type":"end"},{"type":"a\\nb"},2]', JSON, stream_closed="true")
    events = events_of((await pages.page("typed/b")).body).events
    assert [(event.kind, event.data) for event in events[:-1]] == [("x", '{"type":"x"}'), ("message", "2")]


async def test_a_template_has_the_message_and_the_stream(pages: PageClient) -> None:
    await pages.create("a", b'{"text":"<i>"}', JSON, stream_closed="true")
    assert await pages.data("template/a") == [f"<p>&lt;i&gt;</p>\n<p>a {token(15)}</p>"]


@pytest.mark.parametrize("view", ["sync", "async", "by-path", "async-by-path"])
async def test_views_of_the_project_return_events(pages: PageClient, view: str) -> None:
    await pages.create("a", b"hello", stream_closed="true")
    assert await pages.data(f"{view}/a") == ["HELLO" if "path" not in view else "hello"]


async def test_what_a_renderer_returns_becomes_data(pages: PageClient) -> None:
    await pages.create("a", b"[1,2,3,4]", JSON, stream_closed="true")
    assert await pages.data("filtered/a") == ["2", "4"]
    assert await pages.data("asynchronous/a") == [f"{number}, 0 users" for number in range(1, 5)]
    assert json.loads((await pages.data("objects/a"))[0]) == {"message": 1, "count": 0}
    (patch, *_) = events_of((await pages.page("patches/a")).body).events
    assert patch.kind == "datastar-patch-elements"
    assert patch.data == "mode append\nselector #log\nelements <b>1</b>\nelements <i></i>"


async def test_a_message_whose_renderer_fails_has_no_event(pages: PageClient, caplog: pytest.LogCaptureFixture) -> None:
    await pages.create("a", b"[1,2,3,4,5,6,7]", JSON, stream_closed="true")
    assert await pages.data("failing/a") == ["1", "2", "4", "5", "7"]
    assert len([record for record in caplog.records if "fails_sometimes" in record.message]) == 1


async def test_events_that_depend_on_the_request_are_made_for_each(pages: PageClient) -> None:
    await pages.create("a", b'["x","y"]', JSON, stream_closed="true")
    assert await pages.data("own/a?name=Ann") == ["x for Ann", "y for Ann"]
    assert await pages.data("own/a?name=Bob") == ["x for Bob", "y for Bob"]
    assert renderers.calls["own"] == 4
    await pages.create("b", b'{"text":"t"}', JSON, stream_closed="true")
    assert await pages.data("own-template/b?name=<") == ["<p>t False &lt;</p>"]


async def test_texts_are_their_appends_and_keep_their_characters(pages: PageClient) -> None:
    await pages.create("a", "a\r\n\n b€".encode()[:-1])
    async with pages.source("plain/a") as source:
        assert await source.until(1) == ["a\n\n b"]
        await pages.append("a", "€!".encode()[2:])
        assert await source.until(2) == ["a\n\n b", "€!"]
        await pages.append("a", b"\xe2", stream_closed="true")
        assert [event.data for event in (await source.rest()).events[:-1]] == ["a\n\n b", "€!", "\ufffd"]
        assert [event.last_id for event in source.events().events[:-1]] == [token(6), token(10), token(11)]


@override_streams(PAGE_BYTES=1)
@pytest.mark.parametrize("is_live", [False, True])
async def test_a_character_may_take_several_pages(pages: PageClient, is_live: bool) -> None:
    await pages.create("a")
    if is_live:
        async with pages.source("plain/a") as source:
            for byte in "€𝄞".encode():
                await pages.append("a", bytes([byte]))
            await pages.append("a", b"!", stream_closed="true")
            data = [event.data for event in (await source.rest()).events[:-1]]
    else:
        for byte in "€𝄞".encode():
            await pages.append("a", bytes([byte]))
        await pages.append("a", b"!", stream_closed="true")
        data = await pages.data("plain/a")
    assert data == ["€", "𝄞", "!"]


async def test_other_data_comes_in_base64(pages: PageClient) -> None:
    await pages.create("a", b"\x00\xff", "application/octet-stream", stream_closed="true")
    assert await pages.data("plain/a") == ["AP8="]


@LOOKS_NEVER
async def test_a_page_may_begin_at_the_end(pages: PageClient) -> None:
    await pages.create("a", b"1", JSON)
    async with pages.source("now/a") as source, pages.source("plain/a?offset=now") as other:
        await source.next_chunk()
        await other.next_chunk()
        await pages.append("a", b"2", JSON)
        assert await source.until(1) == ["2"]
        assert await other.until(1) == ["2"]
