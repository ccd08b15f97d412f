import asyncio
from typing import Any

import pytest

from django_durable_streams.engine import hub as hubs
from django_durable_streams.engine.engine import running_engines
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Append, Delete
from tests.asgi_client import AsgiClient, Exchange
from tests.overriding import override_streams
from tests.server.waiting import elsewhere, until, watched
from tests.tokens import token

SHORT = override_streams(LONG_POLL_TIMEOUT=0.02)
LOOKS_OFTEN = override_streams(POLL_INTERVAL=0.01)
LOOKS_NEVER = override_streams(POLL_INTERVAL=3600, LONG_POLL_TIMEOUT=3600)


def poll(client: AsgiClient, offset: str = "now", extra: str = "") -> Exchange:
    return client.open("GET", f"a?offset={offset}&live=long-poll{extra}")


async def test_what_is_there_is_returned_at_once(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    reply = await client.get("a?offset=-1&live=long-poll")
    assert (reply.status, reply.body, reply.offset) == (200, b"abc", token(3))
    assert reply.headers["stream-cursor"].isdigit()
    assert reply.headers["stream-up-to-date"] == "true"


@LOOKS_NEVER
@pytest.mark.parametrize("offset", ["now", token(3), token(4)])
async def test_an_append_wakes_those_who_wait(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc")
    async with poll(client, offset) as one, poll(client, offset) as other:
        await until(lambda: watched() == 2)
        assert not one.has_more()
        await client.append("a", b"def")
        for reply in (await one.reply(), await other.reply()):
            assert (reply.status, reply.body, reply.offset) == (200, b"def", token(6))
            assert "stream-closed" not in reply.headers


@override_streams(POLL_INTERVAL=3600, LONG_POLL_TIMEOUT=3600, CORS_ORIGINS=["https://a.example"])
async def test_those_who_are_woken_together_get_each_what_is_theirs(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    first = (await client.get("a?offset=-1&live=long-poll")).headers["stream-cursor"]
    plain, ahead = poll(client), poll(client, extra=f"&cursor={int(first) + 1000}")
    page = client.open("GET", "a?offset=now&live=long-poll", {"origin": "https://a.example"})
    behind = poll(client, "now", "&cursor=1")
    async with plain, ahead, page, behind:
        await until(lambda: watched() == 4)
        await client.append("a", b"def")
        replies = [await each.reply() for each in (plain, ahead, page, behind)]
    assert {reply.body for reply in replies} == {b"def"}
    cursors = [int(reply.headers["stream-cursor"]) for reply in replies]
    assert cursors[1] > int(first) + 1000 > max(cursors[0], cursors[2], cursors[3])
    origins = [reply.headers.get("access-control-allow-origin") for reply in replies]
    assert origins == [None, None, "https://a.example", None]


@LOOKS_NEVER
async def test_what_is_shared_is_not_changed_by_what_stands_before_the_server(direct: AsgiClient) -> None:
    """Plain ASGI middleware adds its headers to the list in the message."""
    application = DurableStreams()

    async def middleware(scope: Any, receive: Any, send: Any) -> None:
        async def add(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-added", b"1"))
            await send(message)

        await application(scope, receive, add)

    client = AsgiClient(middleware)
    await client.create("a", b"abc")
    async with poll(client) as one, poll(client) as other:
        await until(lambda: watched() == 2)
        await client.append("a", b"def")
        for reply in (await one.reply(), await other.reply()):
            assert [name for name, _ in reply.header_list].count(b"x-added") == 1


@LOOKS_NEVER
async def test_a_close_wakes_those_who_wait(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        await until(lambda: watched() == 1)
        await client.close("a")
        reply = await waiting.reply()
    assert (reply.status, reply.body, reply.offset) == (204, b"", token(3))
    assert (reply.headers["stream-closed"], reply.headers["stream-up-to-date"]) == ("true", "true")


@LOOKS_NEVER
async def test_a_close_with_a_last_append_delivers_it(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        await until(lambda: watched() == 1)
        await client.append("a", b"end", stream_closed="true")
        reply = await waiting.reply()
    assert (reply.status, reply.body, reply.headers["stream-closed"]) == (200, b"end", "true")


@LOOKS_NEVER
async def test_a_delete_ends_the_wait(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        await until(lambda: watched() == 1)
        await client.request("DELETE", "a")
        assert (await waiting.reply()).status == 404


@LOOKS_NEVER
async def test_a_stream_made_again_does_not_wake_those_who_wait_with_its_own_data(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        await until(lambda: watched() == 1)
        await client.request("DELETE", "a")
        await client.create("a", b"abcdefghi")
        assert (await waiting.reply()).status == 404


@SHORT
async def test_a_wait_in_vain_ends_with_204(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        reply = await waiting.reply()
    assert (reply.status, reply.body, reply.offset) == (204, b"", token(3))
    assert reply.headers["stream-up-to-date"] == "true"
    assert reply.headers["stream-cursor"].isdigit()
    assert reply.headers["cache-control"] == "no-store"
    assert "etag" not in reply.headers


@LOOKS_NEVER
@pytest.mark.parametrize("offset", ["now", token(3)])
async def test_nobody_waits_for_a_closed_stream(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc", stream_closed="true")
    async with poll(client, offset) as waiting:
        reply = await waiting.reply()
    assert (reply.status, reply.headers["stream-closed"], reply.offset) == (204, "true", token(3))


@SHORT
async def test_cursors_never_go_back(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    cursor = -1
    for number in range(6):
        offset = "-1" if number % 2 else "now"
        async with poll(client, offset, f"&cursor={cursor}" if number else "") as waiting:
            next_cursor = int((await waiting.reply()).headers["stream-cursor"])
        assert next_cursor > cursor
        cursor = next_cursor


@LOOKS_NEVER
async def test_a_client_that_leaves_is_forgotten(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    waiting = poll(client)
    await waiting.__aenter__()
    await until(lambda: watched() == 1)
    waiting.disconnect()
    await until(lambda: watched() == 0)
    if not isinstance(waiting._task, asyncio.Task):
        raise AssertionError
    await asyncio.gather(waiting._task, return_exceptions=True)


@LOOKS_OFTEN
async def test_what_another_process_appends_is_found(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        await until(lambda: watched() == 1)
        await elsewhere(Append("a", "text/plain", b"def"))
        assert (await waiting.reply()).body == b"def"


@LOOKS_OFTEN
async def test_what_another_process_closes_or_deletes_is_found(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        await until(lambda: watched() == 1)
        await elsewhere(Append("a", None, b"", close=True))
        assert (await waiting.reply()).headers["stream-closed"] == "true"
    await client.request("DELETE", "a")
    await client.create("a", b"abc")
    async with poll(client) as waiting:
        await until(lambda: watched() == 1)
        await elsewhere(Delete("a"))
        assert (await waiting.reply()).status == 404


@LOOKS_NEVER
async def test_a_reader_who_is_ahead_of_the_hub_waits_for_what_is_new_to_him(client: AsgiClient) -> None:
    """The hub learns late of what he has read already; that is no reason to answer him with nothing."""
    await client.create("a", b"abc")
    async with poll(client, "now") as first:
        await until(lambda: watched() == 1)
        await elsewhere(Append("a", "text/plain", b"def"))
        async with poll(client, "now") as ahead:
            await until(lambda: watched() == 2)
            (engine,) = running_engines()
            (hub,) = engine._hubs.values()
            hub.poll_all()
            assert (await first.reply()).body == b"def"
            await client.append("a", b"ghi")
            reply = await ahead.reply()
            assert (reply.status, reply.body) == (200, b"ghi")


async def test_a_stream_that_nobody_waits_for_is_forgotten(client: AsgiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "LINGER_SECONDS", 0.0)
    with override_streams(POLL_INTERVAL=0.01, LONG_POLL_TIMEOUT=0.02):
        await client.create("a", b"abc")
        async with poll(client) as waiting:
            await until(lambda: watched() == 1)
            await waiting.reply()
        (engine,) = running_engines()
        (hub,) = engine._hubs.values()
        await until(lambda: not hub._watches)
        assert hub._ticker is not None
        await hub._ticker


@override_streams(LONG_POLL_TIMEOUT=0.001, POLL_INTERVAL=3600)
async def test_polling_a_quiet_stream_with_many_cursors_costs_no_memory(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for number in range(60):
        async with poll(client, "now", f"&cursor={10**9 + 1000 * number}") as waiting:
            assert (await waiting.reply()).status == 204
    (engine,) = running_engines()
    (hub,) = engine._hubs.values()
    (watch,) = hub._watches.values()
    assert sum(len(view.answers or ()) for view in watch._snapshots.values()) <= 32
