"""Whoever comes back to a path with the offset of a stream that is no more is told so, and never misses anything."""

import pytest

from django_durable_streams.models import Chunk, Stream
from tests.asgi_client import AsgiClient
from tests.server.waiting import until, watched
from tests.tokens import FIRST, token

KINDS = ["", "&live=long-poll", "&live=sse"]
ZERO = token(0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(6, 3), (3, 6), (3, 3), (1, 1)])
async def test_an_offset_of_a_deleted_stream_is_gone(client: AsgiClient, kind: str, lengths: tuple[int, int]) -> None:
    before, after = lengths
    old = (await client.create("a", b"x" * before)).offset
    await client.delete("a")
    new = (await client.create("a", b"y" * after)).offset
    for lost in (old, token(1)):
        reply = await client.get(f"a?offset={lost}{kind}")
        assert (reply.status, reply.json()["type"]) == (410, "urn:durable-streams:error:offset-gone")
        assert "-1" in reply.json()["detail"]
        assert reply.headers["cache-control"] == "no-store"
        assert "etag" not in reply.headers
    assert (await client.get(f"a?offset={new}")).status == 200
    assert (await client.get(f"a?offset={ZERO}")).body == b"y" * after


@pytest.mark.parametrize(
    "offset",
    [
        token(5),
        token(3, FIRST - 1),
        token(3, FIRST + 1),
        token(3, 0),
        token(1, 0),
        f"{FIRST:016d}_{0:016d}",
        "9999999999999999_9999999999999999",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
async def test_an_offset_that_never_was_is_gone(client: AsgiClient, offset: str, kind: str) -> None:
    await client.create("a", b"abc")
    assert (await client.get(f"a?offset={offset}{kind}")).status == 410
    assert (await client.get(f"nowhere?offset={offset}")).status == 404


async def test_an_offset_of_what_the_database_has_lost_is_gone(client: AsgiClient) -> None:
    await client.create("a", b"abc")
    lost = (await client.append("a", b"lost")).headers["stream-next-offset"]
    await Stream.objects.filter(path="a").unguarded().aupdate(tail_position=3)
    await Chunk.objects.filter(end__gt=3).unguarded().adelete()
    for kind in KINDS:
        assert (await client.get(f"a?offset={lost}{kind}")).status == 410
    # One past the end is what some clients ask for who want what comes after it.
    for behind in (token(3), token(4)):
        reply = await client.get(f"a?offset={behind}")
        assert (reply.status, reply.body, reply.offset) == (200, b"", token(3))
    async with client.open("GET", f"a?offset={token(4)}&live=long-poll") as waiting:
        await until(lambda: watched() == 1)
        await client.append("a", b"d")
        assert (await waiting.reply()).body == b"d"


@pytest.mark.parametrize("lengths", [(3, 3), (0, 0), (3, 6)])
async def test_a_stream_that_is_made_anew_has_tags_of_its_own(client: AsgiClient, lengths: tuple[int, int]) -> None:
    before, after = lengths
    await client.create("a", b"x" * before)
    old = (await client.get("a")).headers["etag"]
    await client.delete("a")
    await client.create("a", b"y" * after)
    for sent in (old, f"W/{old}", f'"x", {old}'):
        reply = await client.get("a", if_none_match=sent)
        assert (reply.status, reply.body) == (200, b"y" * after)
    assert (await client.get("a", if_none_match=f'"x", W/{reply.headers["etag"]}')).status == 304


async def test_a_fork_offset_of_another_stream_is_refused(client: AsgiClient) -> None:
    old = (await client.create("a", b"abc")).offset
    await client.delete("a")
    await client.create("a", b"abcdef")
    reply = await client.request("PUT", "b", {"stream-forked-from": "/v1/stream/a", "stream-fork-offset": old})
    assert (reply.status, reply.json()["type"]) == (400, "urn:durable-streams:error:offset-out-of-range")


async def test_a_fork_has_offsets_in_common_with_its_source_in_every_answer(client: AsgiClient) -> None:
    cut = (await client.create("a", b"abc")).offset
    forked = {"stream-forked-from": "/v1/stream/a", "stream-fork-offset": cut}
    made = await client.request("PUT", "b", forked)
    assert (made.status, made.offset) == (201, cut)
    assert (await client.request("PUT", "b", forked)).offset == cut
    assert (await client.request("HEAD", "b")).offset == cut
    assert (await client.get("b")).offset == cut
    assert (await client.get("b?offset=now")).offset == cut
    closed = await client.close("b")
    assert closed.offset == cut
    refused = await client.append("b", b"def")
    assert (refused.status, refused.offset) == (409, cut)
    async with client.follow("b") as live:
        assert cut in (await live.reply()).body.decode()
