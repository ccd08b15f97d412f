from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from tests.asgi_client import AsgiClient, Reply
from tests.overriding import override_streams
from tests.tokens import token


async def test_a_read_without_an_offset_begins_at_the_start(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for target in ("a", "a?offset=-1", f"a?offset={token(0)}"):
        reply = await client.get(target)
        assert (reply.status, reply.body, reply.offset) == (200, b"abc", token(3))
        assert reply.headers["stream-up-to-date"] == "true"
        assert "stream-closed" not in reply.headers


async def test_a_read_at_the_tail_or_one_past_it_is_empty(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    for position in (3, 4):
        reply = await client.get(f"a?offset={token(position)}")
        assert (reply.status, reply.body, reply.offset) == (200, b"", token(3))
        assert reply.headers["stream-up-to-date"] == "true"


async def test_an_offset_inside_an_append_reads_that_append_whole(client: AsgiClient) -> None:
    kind = "application/octet-stream"
    await client.create("a", b"abc", kind)
    await client.append("a", b"def", kind)
    assert (await client.get(f"a?offset={token(4)}")).body == b"def"


async def test_an_offset_inside_an_append_of_text_reads_on_from_there(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    await client.append("a", b"def")
    await client.append("a", b"ghi")
    reply = await client.get(f"a?offset={token(4)}")
    assert (reply.body, reply.offset) == (b"efghi", token(9))


async def test_an_empty_json_stream_reads_as_an_empty_array(client: AsgiClient) -> None:
    await client.create("a", kind="application/json")
    assert (await client.get("a")).body == b"[]"
    assert (await client.get("a?offset=now")).body == b"[]"


@pytest.mark.parametrize("closed", [False, True])
async def test_now_is_the_tail_and_is_never_cached(client: AsgiClient, closed: bool) -> None:
    await client.create("a", b"abc")
    if closed:
        await client.close("a")
    reply = await client.get("a?offset=now")
    assert (reply.status, reply.body, reply.offset) == (200, b"", token(3))
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["stream-up-to-date"] == "true"
    assert ("stream-closed" in reply.headers) == closed


@pytest.mark.parametrize(
    "query",
    [
        "offset=",
        "offset=abc",
        "offset=-2",
        f"offset={token(0)}&offset={token(0)}",
        "offset=-1&offset=now",
        "offset=0%20",
        "offset=-1%0A",
        "offset=a,b",
        "offset=..%2F..",
        "offset=%00",
        "offset=%FF",
        "offset=é",
        "offset=€",
        "live=yes",
        "live=sse",
        "live=long-poll",
        "live=sse&live=sse&offset=-1",
        "live=&offset=-1",
        "cursor=1&cursor=2",
        "&".join(f"a{number}=1" for number in range(200)),
    ],
)
async def test_a_query_that_means_nothing_is_refused(client: AsgiClient, query: str) -> None:
    await client.create("a", b"abc")
    reply = await client.request("GET", f"a?{query}".encode())
    assert reply.status == 400
    assert reply.headers["content-type"] == "application/problem+json"


async def test_parameters_of_others_are_ignored(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    assert (await client.get("a?x=1&x=2&offset=-1")).body == b"abc"


async def test_head_tells_everything_but_the_content(client: AsgiClient) -> None:
    await client.create("a", b"abc", stream_ttl="60")
    await client.close("a")
    reply = await client.request("HEAD", "a")
    assert (reply.status, reply.body, reply.offset) == (200, b"", token(3))
    assert reply.headers["stream-closed"] == "true"
    assert reply.headers["stream-ttl"] == "60"
    assert reply.headers["cache-control"] == "no-store"


async def test_an_error_to_head_has_no_body(client: AsgiClient) -> None:
    reply = await client.request("HEAD", "nowhere")
    assert reply.status == 404
    assert reply.body == b""


async def test_pages_of_a_long_stream_lead_to_its_end(client: AsgiClient) -> None:
    parts = [b"%03d" % number * 5 for number in range(40)]
    await client.create("a")
    for part in parts:
        await client.append("a", part)
    await client.close("a")
    with override_streams(PAGE_BYTES=50):
        offset, got = "-1", b""
        while True:
            reply = await client.get(f"a?offset={offset}")
            assert len(reply.body) == 45 or "stream-closed" in reply.headers
            got += reply.body
            offset = reply.offset
            assert ("stream-closed" in reply.headers) == ("stream-up-to-date" in reply.headers)
            if "stream-closed" in reply.headers:
                break
    assert got == b"".join(parts)


async def test_one_read_returns_no_more_than_a_page(client: AsgiClient) -> None:
    await client.create("a")
    for _ in range(5):
        await client.append("a", b"x" * 1000)
    with override_streams(PAGE_BYTES=2500):
        reply = await client.get("a")
        assert len(reply.body) == 2000
        assert "stream-up-to-date" not in reply.headers


async def tag_of(client: AsgiClient, path: str) -> str:
    return (await client.get(path)).headers["etag"]


async def conditional(client: AsgiClient, path: str, if_none_match: str) -> Reply:
    return await client.get(path, if_none_match=if_none_match)


@pytest.mark.parametrize("shape", ["{}", "W/{}", '"x", {}', '"x",W/{} , "y"', "*", ' "x" ,{}'])
async def test_a_known_tag_is_answered_with_304_and_the_protocols_headers(client: AsgiClient, shape: str) -> None:
    await client.create("a", b"abc")
    tag = await tag_of(client, "a")
    reply = await conditional(client, "a", shape.replace("{}", tag))
    assert (reply.status, reply.body, reply.headers["etag"], reply.offset) == (304, b"", tag, token(3))
    assert reply.headers["stream-up-to-date"] == "true"


@pytest.mark.parametrize("shape", ["{}", "W/{}", '"x", {}', "*"])
@pytest.mark.parametrize("is_closed", [False, True])
async def test_a_long_poll_with_a_known_tag_is_answered_with_304_and_a_cursor(
    client: AsgiClient, shape: str, is_closed: bool
) -> None:
    await client.create("a", b"abc")
    if is_closed:
        await client.close("a")
    first = await client.get("a?offset=-1&live=long-poll&cursor=5")
    tag = first.headers["etag"]
    assert tag == await tag_of(client, "a")
    reply = await conditional(client, "a?offset=-1&live=long-poll&cursor=5", shape.replace("{}", tag))
    assert (reply.status, reply.body, reply.headers["etag"], reply.offset) == (304, b"", tag, token(3))
    assert reply.headers["cache-control"] == first.headers["cache-control"]
    assert reply.headers["stream-up-to-date"] == "true"
    assert ("stream-cursor" in reply.headers, "stream-closed" in reply.headers) == (not is_closed, is_closed)
    await client.create("b", b"abc")
    assert (await conditional(client, "b?offset=-1&live=long-poll", tag)).body == b"abc"


@override_streams(LONG_POLL_TIMEOUT=0.02)
@pytest.mark.parametrize("offset", ["now", token(3)])
async def test_a_long_poll_without_data_has_no_tag_to_match(client: AsgiClient, offset: str) -> None:
    await client.create("a", b"abc")
    tag = (await client.get(f"a?offset={token(3)}")).headers["etag"]
    for value in (tag, "*"):
        assert (await conditional(client, f"a?offset={offset}&live=long-poll", value)).status == 204


@pytest.mark.parametrize("value", ['"x"', 'W/"x", "y"', "", "abc"])
async def test_an_unknown_tag_gets_the_content(client: AsgiClient, value: str) -> None:
    await client.create("a", b"abc")
    assert (await conditional(client, "a", value)).body == b"abc"


async def test_a_tag_changes_with_an_append_and_with_closure(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    tags = [await tag_of(client, "a")]
    await client.append("a", b"def")
    tags.append(await tag_of(client, "a"))
    await client.close("a")
    tags.append(await tag_of(client, "a"))
    assert len(set(tags)) == 3
    reply = await conditional(client, "a", ", ".join(tags[:2]))
    assert (reply.status, reply.headers["stream-closed"]) == (200, "true")
    assert (await conditional(client, "a", tags[2])).headers["stream-closed"] == "true"


async def test_a_stream_made_again_with_the_same_length_has_another_tag(client: AsgiClient) -> None:
    await client.create("a", b"old")
    tag = await tag_of(client, "a")
    await client.request("DELETE", "a")
    await client.create("a", b"new")
    assert await tag_of(client, "a") != tag
    assert (await conditional(client, "a", tag)).body == b"new"


async def test_what_is_empty_today_is_asked_for_again_tomorrow(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    with override_streams(CACHE_SCOPE="public"):
        assert "max-age" in (await client.get("a")).headers["cache-control"]
        assert (await client.get(f"a?offset={token(3)}")).headers["cache-control"] == "no-cache"


async def test_the_cache_scope_is_a_setting(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    assert (await client.get("a")).headers["cache-control"] == "private, no-cache"
    with override_streams(CACHE_SCOPE="public"):
        assert (await client.get("a")).headers["cache-control"].startswith("public, max-age=60")


async def test_a_read_shows_what_another_process_has_just_written(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    assert (await client.get("a")).body == b"abc"
    other = AsgiClient(client.application)
    await other.append("a", b"def")
    assert (await client.get("a")).body == b"abcdef"


class Clock:
    """Stands in for `clock.now`."""

    def __init__(self) -> None:
        self.moment = timezone.now()

    def __call__(self) -> datetime:
        return self.moment

    def pass_by(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake_clock = Clock()
    monkeypatch.setattr("django_durable_streams.clock.now", fake_clock)
    return fake_clock


async def test_reads_and_appends_renew_a_ttl_and_head_does_not(client: AsgiClient, clock: Clock) -> None:
    await client.create("a", b"abc", stream_ttl="10")
    for _ in range(3):
        clock.pass_by(9)
        assert (await client.get("a")).status == 200
        clock.pass_by(9)
        assert (await client.append("a", b"x")).status == 204
    clock.pass_by(9)
    assert (await client.request("HEAD", "a")).status == 200
    clock.pass_by(1.9)
    assert (await client.get("a")).status == 404


async def test_a_ttl_is_kept_to_a_fraction_of_a_second(client: AsgiClient, clock: Clock) -> None:
    await client.create("a", b"abc", stream_ttl="2")
    clock.pass_by(1.5)
    assert (await client.get("a")).status == 200
    # Nobody waits for the TTL to start anew; what comes later on the stream waits behind it.
    assert (await client.request("PUT", "a", {"content-type": "text/plain", "stream-ttl": "2"})).status == 200
    clock.pass_by(1.99)
    assert (await client.get("a")).status == 200
    clock.pass_by(2.9)
    assert (await client.get("a")).status == 404


async def test_a_ttl_of_zero_ends_a_stream_at_once(client: AsgiClient, clock: Clock) -> None:
    for data in (b"one", b"two"):
        await client.create("a", data, stream_ttl="0")
        assert (await client.request("HEAD", "a")).headers["stream-ttl"] == "0"
        assert (await client.get("a")).body == data
        clock.pass_by(0.9)
        for method in ("GET", "HEAD", "DELETE"):
            assert (await client.request(method, "a")).status == 404


async def test_reading_moves_no_absolute_expiry(client: AsgiClient, clock: Clock) -> None:
    moment = (clock() + timedelta(seconds=10)).isoformat()
    await client.create("a", b"abc", stream_expires_at=moment)
    clock.pass_by(9)
    assert (await client.get("a")).status == 200
    clock.pass_by(1)
    for method in ("GET", "HEAD", "DELETE"):
        assert (await client.request(method, "a")).status == 404
    assert (await client.append("a", b"x")).status == 404
    await client.create("a", b"new")
    assert (await client.get("a")).body == b"new"
