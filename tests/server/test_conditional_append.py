"""`If-Match` on POST, at every entry point."""

import asyncio

import pytest

from tests.server.entry_points import ENTRY_POINTS, EntryPoint
from tests.tokens import token

TEXT = {"content-type": "text/plain"}


@pytest.fixture(params=ENTRY_POINTS)
def entry(request: pytest.FixtureRequest, engines: None, counted_generations: None) -> EntryPoint:
    return EntryPoint(request.param)


@pytest.mark.parametrize("quoted", ['"{}"', "{}", '  "{}" '])
async def test_an_append_is_made_only_at_the_named_tail(entry: EntryPoint, quoted: str) -> None:
    await entry.request("PUT", "a", TEXT, b"abc")
    done = await entry.request("POST", "a", {**TEXT, "if-match": quoted.format(token(3))}, b"d")
    assert (done.status, done.offset) == (204, token(4))
    refused = await entry.request("POST", "a", {**TEXT, "if-match": quoted.format(token(3))}, b"e")
    assert (refused.status, refused.offset) == (412, token(4))
    assert refused.json()["type"] == "urn:durable-streams:error:tail-mismatch"
    assert refused.headers["cache-control"] == "no-store"
    assert (await entry.request("GET", "a")).body == b"abcd"


@pytest.mark.parametrize("value", ["*", "", '""', '"', "-1", '"now"', 'W/"{}"', '"{}"; "{}"', "{} {}", "7", '"{}'])
async def test_what_is_no_offset_is_refused(entry: EntryPoint, value: str) -> None:
    await entry.request("PUT", "a", TEXT, b"abc")
    at_tail = value.replace("{}", token(3))
    reply = await entry.request("POST", "a", {**TEXT, "if-match": at_tail}, b"d")
    assert (reply.status, reply.json()["type"]) == (400, "urn:durable-streams:error:invalid-header")
    assert (await entry.request("GET", "a")).body == b"abc"


async def test_two_conditions_are_refused(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", TEXT, b"abc")
    lines = [(b"content-type", b"text/plain"), *((b"if-match", token(at).encode()) for at in (3, 4))]
    assert (await entry.request("POST", "a", lines, b"d")).status == 400


async def test_of_many_at_once_exactly_one_wins(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", TEXT)
    conditional = {**TEXT, "if-match": token(0)}
    replies = await asyncio.gather(*(entry.request("POST", "a", conditional, b"%d" % number) for number in range(8)))
    assert sorted(reply.status for reply in replies) == [204, *[412] * 7]
    assert {reply.offset for reply in replies} == {token(1)}


async def test_it_is_possible_to_close_only_at_the_named_tail(entry: EntryPoint) -> None:
    await entry.request("PUT", "a", TEXT, b"abc")
    close = {"stream-closed": "true"}
    assert (await entry.request("POST", "a", {**close, "if-match": token(2)})).status == 412
    assert "stream-closed" not in (await entry.request("HEAD", "a")).headers
    assert (await entry.request("POST", "a", {**close, "if-match": token(3)})).status == 204
    assert "stream-closed" in (await entry.request("HEAD", "a")).headers


async def test_there_is_nothing_to_compare_without_a_stream(entry: EntryPoint) -> None:
    assert (await entry.request("POST", "a", {**TEXT, "if-match": token(0)}, b"d")).status == 404
