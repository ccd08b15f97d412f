"""Damaged chunks: readers of their stream get an error, and other streams are not affected."""

import asyncio
from typing import Any

import pytest
from django.db import connections

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Append, Create
from django_durable_streams.store.write import group_commit
from tests.asgi_client import AsgiClient

KINDS = ["text/plain", "application/octet-stream", "application/json"]
PARTS = {kind: [b'{"a":1}\n', b"2\n"] if kind.endswith("json") else [b"abc", b"defg"] for kind in KINDS}


@pytest.fixture
def client(engines: None) -> AsgiClient:
    return AsgiClient(DurableStreams())


async def begun(kind: str, **damage: Any) -> None:
    """Two streams of one chunk each, of which one has something wrong in it."""

    def work() -> None:
        try:
            for path in ("damaged", "fine"):
                group_commit.apply([Create(path, kind)], "default")
                group_commit.apply([Append(path, kind, part) for part in PARTS[kind]], "default")
            Chunk.objects.filter(stream__path="damaged").unguarded().update(**damage)
        finally:
            connections.close_all()

    await asyncio.to_thread(work)


def content_of(kind: str) -> bytes:
    data = b"".join(PARTS[kind])
    return b"[%b]" % data[:-1].replace(b"\n", b",") if kind.endswith("json") else data


def read(path: str) -> list[Any]:
    try:
        return [*Stream.objects.get(path=path).read()]
    finally:
        connections.close_all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "ends", [b"\1\2\3", b"\1\0\0\0", b"\0\0\0\0\7\0\0\0", b"\xff\xff\xff\xff", b"\5\0\0\0\3\0\0\0\7\0\0\0"]
)
async def test_data_is_read_whole_where_only_the_ends_of_its_appends_are_wrong(
    client: AsgiClient, kind: str, ends: bytes
) -> None:
    await begun(kind, ends=ends)
    paths = ["damaged", "fine", "damaged"]
    for reply in await asyncio.gather(*(client.get(path) for path in paths)):
        assert (reply.status, reply.body) == (200, content_of(kind))
    async with client.follow("damaged", "-1") as live:
        assert b"upToDate" in (await live.chunk() or b"")
    messages = await asyncio.to_thread(read, "damaged")
    assert messages == ([{"a": 1}, 2] if kind.endswith("json") else messages[:1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [b"", b"x", b"1234567890\n"])
async def test_data_that_is_not_what_was_appended_is_never_shown(client: AsgiClient, kind: str, data: bytes) -> None:
    await begun(kind, data=data)
    broken, fine, *others = await asyncio.gather(
        client.get("damaged"), client.get("fine"), client.get("damaged?offset=-1&live=long-poll")
    )
    assert (fine.status, fine.body) == (200, content_of(kind))
    assert [reply.status for reply in (broken, *others)] == [503, 503]
    assert b"damaged" in broken.body
    assert (await client.append("damaged", PARTS[kind][0], kind)).status == 204
    with pytest.raises(ServiceUnavailable):
        await asyncio.to_thread(read, "damaged")
