"""What a cache may do with every combination of offset, live mode and cursor while the stream goes on."""

import asyncio
from itertools import product

import pytest

from tests.asgi_client import AsgiClient, Reply
from tests.http_cache import HttpCache
from tests.overriding import override_streams
from tests.server.waiting import until, watched
from tests.tokens import token

ZERO = "0000000000000000_0000000000000000"
PUBLIC = override_streams(CACHE_SCOPE="public", LONG_POLL_TIMEOUT=0.05, POLL_INTERVAL=0.02)
CURSORS = ("", "1", "99999999", "rubbish")
NOW = ("now", "%6eow")


def target(offset: str | None, live: str, cursor: str) -> str:
    parts = {"offset": offset, "live": live, "cursor": cursor}
    query = "&".join(f"{name}={value}" for name, value in parts.items() if value)
    return f"a?{query}" if query else "a"


@pytest.mark.parametrize("shared", [False, True], ids=["browser", "proxy"])
@PUBLIC
async def test_what_is_read_through_a_cache_joins_on_and_misses_nothing(client: AsgiClient, shared: bool) -> None:
    await client.create("a", b"")
    whole = b""
    cache = HttpCache(client, shared)
    for round_ in range(3):
        tail = (await client.request("HEAD", "a")).headers["stream-next-offset"]
        for offset, live, cursor in product((None, "-1", ZERO, tail), ("", "long-poll"), CURSORS):
            if live and offset is None:
                continue
            start = len(whole) if offset == tail and whole else 0
            for _ in range(2):
                reply = await cache.get(target(offset, live, cursor))
                # Old data may come once more, but only as the beginning of what is there.
                assert whole[start:].startswith(reply.body)
                assert reply.body or not whole[start:]
                assert int(reply.headers["stream-next-offset"].rpartition("_")[2]) == start + len(reply.body)
        await client.append("a", b"%d;" % round_)
        whole += b"%d;" % round_
        for live, cursor in product(("", "long-poll"), CURSORS):
            reply = await cache.get(target(tail, live, cursor))
            assert reply.body == b"%d;" % round_, "what was empty is asked for again"
    # The end shows through the cache, too.
    tail = (await client.request("HEAD", "a")).headers["stream-next-offset"]
    for live in ("", "long-poll"):
        await cache.get(target(tail, live, ""))
    await client.close("a")
    for live in ("", "long-poll"):
        assert (await cache.get(target(tail, live, ""))).headers["stream-closed"] == "true"


@pytest.mark.parametrize("shared", [False, True], ids=["browser", "proxy"])
@pytest.mark.parametrize("first", ["image", "empty", None])
@PUBLIC
async def test_no_cache_hands_a_page_a_script_that_was_read_as_something_else(
    client: AsgiClient, shared: bool, first: str | None
) -> None:
    await client.create("a", b"alert(1)", "text/javascript")
    cache = HttpCache(client, shared)
    for live in ("", "long-poll"):
        url = target("-1", live, "")
        assert (await cache.get(url, {"sec-fetch-dest": first} if first else {})).status == 200
        for code in ("script", "worker"):
            assert (await cache.get(url, {"sec-fetch-dest": code})).status == 403


@pytest.mark.parametrize("shared", [False, True], ids=["browser", "proxy"])
@override_streams(CACHE_SCOPE="public", LONG_POLL_TIMEOUT=5, POLL_INTERVAL=0.02)
async def test_from_now_on_is_another_place_each_time(client: AsgiClient, shared: bool) -> None:
    await client.create("a", b"old")
    cache = HttpCache(client, shared)
    for offset, cursor in product(NOW, CURSORS):
        url = target(offset, "long-poll", cursor)
        for message in (b"first", b"second"):
            waiting = asyncio.create_task(cache.get(url))
            await until(lambda: watched() == 1 or waiting.done())  # noqa: B023
            assert not waiting.done(), "it was answered with an old message"
            await client.append("a", message)
            reply = await waiting
            assert (reply.status, reply.body, reply.headers["cache-control"]) == (200, message, "no-store")
            assert "etag" not in reply.headers


@pytest.mark.parametrize("offset", NOW)
@pytest.mark.parametrize("live", ["", "long-poll", "sse"])
@pytest.mark.parametrize("closed", [False, True])
@PUBLIC
async def test_nothing_from_now_on_is_stored(client: AsgiClient, offset: str, live: str, closed: bool) -> None:
    await client.create("a", b"old", **({"stream_closed": "true"} if closed else {}))
    for cursor in CURSORS:
        headers = await headers_of(client, target(offset, live, cursor))
        assert headers["cache-control"] == "no-store"
        assert "etag" not in headers


@pytest.mark.parametrize("offset", ["-1", ZERO, token(3)])
@PUBLIC
async def test_event_streams_are_asked_for_each_time(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"old")
    for cursor in CURSORS:
        assert (await headers_of(client, target(offset, "sse", cursor)))["cache-control"] == "no-cache"


async def headers_of(client: AsgiClient, url: str) -> dict[str, str]:
    async with client.open("GET", url) as exchange:
        await exchange.head()
        return Reply(exchange.status, exchange.header_list, b"").headers
