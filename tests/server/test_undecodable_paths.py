"""Paths as they are written in URLs: what is no UTF-8 is refused, and different paths are different streams."""

import json

import pytest

from django_durable_streams.models import Stream
from tests.server.entry_points import ENTRY_POINTS, EntryPoint

TEXT = {"content-type": "text/plain"}

UNDECODABLE = [
    "a%FF",
    "%FF",
    "a%FF/b",
    "a/%ff",
    "a%C3",  # cut
    "a%C3%28",
    "a%C0%AF",  # overlong forms, of a slash
    "a%E0%80%AF",
    "a%F0%80%80%AF",
    "a%C0%80",  # and of NUL
    "a%ED%A0%80",  # a surrogate
    "a%F4%90%80%80",  # past the last code point
    "a%FE%FF",
    "a%FF%25FF",
]
FORBIDDEN = [
    "a%EF%BF%BD",  # the replacement character itself
    "a%00",
    "a%0A",
    "a%0Ab",
    "%0Aa",
    "a%0D%0Ab",
    "a%5Cb",
    "a%7F",
    "a//b",
    "/a",
    "a%2F%2Fb",
    "a/",
    "a%2F",
    ".",
    "..",
    "%2e%2E",
    "a/./b",
    "a/../b",
    "a%2F..%2Fb",
]
# Each with the name of its stream.
DIFFERENT = {
    "a%25FF": "a%FF",
    "a%25ff": "a%ff",
    "a%2525FF": "a%25FF",
    "a%25C0%25AF": "a%C0%AF",
    "a%2500": "a%00",
    "a%C3%BF": "a\xff",
    "a%C2%80": "a\x80",
    "a;b": "a;b",
    "a;b=1": "a;b=1",
    "a%3Fb": "a?b",
    "a%23b": "a#b",
    "a+b": "a+b",
    "a%20b": "a b",
    "a%2526b": "a%26b",
    "a...b": "a...b",
    ".a": ".a",
}
SAME = {"a%2Fb": "a/b", "%61": "a", "a%3Bb": "a;b", "%7e": "~", "%c3%a9": "%C3%A9", "a%2B": "a+"}


@pytest.fixture(params=ENTRY_POINTS)
def point(request: pytest.FixtureRequest, engines: None, transactional_db: None) -> EntryPoint:
    return EntryPoint(request.param)


@pytest.mark.parametrize("method", ["PUT", "POST", "GET", "HEAD", "DELETE"])
async def test_a_path_that_no_stream_can_have_is_refused_the_same_way(point: EntryPoint, method: str) -> None:
    for target in UNDECODABLE + FORBIDDEN:
        reply = await point.request(method, target, TEXT, b"x" if method in ("PUT", "POST") else b"")
        assert reply.status == 400, target
        assert reply.headers["content-type"] == "application/problem+json"
        if method != "HEAD":
            assert json.loads(reply.body)["type"].endswith("invalid-path")
    assert not await Stream.objects.aexists()


async def test_nor_is_there_a_source_of_a_fork_with_such_a_path(point: EntryPoint) -> None:
    await point.request("PUT", "a%25FF", TEXT, b"x")
    for source in UNDECODABLE + FORBIDDEN:
        reply = await point.request("PUT", "fork", {"stream-forked-from": f"/v1/stream/{source}"})
        assert reply.status == 400, source


async def test_different_paths_are_different_streams(point: EntryPoint) -> None:
    for target in DIFFERENT:
        assert (await point.request("PUT", target, TEXT, target.encode())).status == 201
    for target in DIFFERENT:
        assert (await point.request("GET", target)).body == target.encode()
        fork = await point.request("PUT", f"fork-of-{target}", {"stream-forked-from": f"/v1/stream/{target}"})
        assert fork.status == 201
        assert (await point.request("GET", f"fork-of-{target}")).body == target.encode()
    names = {path async for path in Stream.objects.filter(source=None).values_list("path", flat=True)}
    assert names == set(DIFFERENT.values())


@pytest.mark.parametrize("target", SAME)
async def test_one_path_written_in_two_ways_is_one_stream(point: EntryPoint, target: str) -> None:
    assert (await point.request("PUT", SAME[target], TEXT, b"x")).status == 201
    assert (await point.request("GET", target)).body == b"x"
    assert (await point.request("PUT", "fork", {"stream-forked-from": f"/v1/stream/{target}"})).status == 201


@pytest.mark.parametrize(("raw", "status"), [(b"\xc3\xa9", 201), (b"\xff", 400), (b"\xc3", 400), (b"\xe9", 400)])
async def test_bytes_in_the_header_of_a_fork_are_read_as_those_of_a_url(
    point: EntryPoint, raw: bytes, status: int
) -> None:
    for target in ("%C3%A9", "%C3%83%C2%A9", "%C3%BF"):
        await point.request("PUT", target, TEXT, target.encode())
    reply = await point.request("PUT", "fork", [(b"stream-forked-from", b"/v1/stream/" + raw)])
    assert reply.status == status
    if status == 201:
        assert (await point.request("GET", "fork")).body == b"%C3%A9"
