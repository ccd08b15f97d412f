"""Two deployments that share a Redis and name everything alike: neither's readers ever get the other's data."""

import asyncio

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.conftest import run
from tests.cluster.http import Client
from tests.cluster.load import TEXT, read
from tests.cluster.readers import Follower
from tests.cluster.test_locations import location_of
from tests.services import PostgreSQL, Redis, name_of

APPENDS = 20


@pytest.mark.parametrize("mode", ["sse", "long-poll"])
def test_the_same_names_on_another_host(redis: Redis, mode: str) -> None:
    with (
        PostgreSQL() as own,
        PostgreSQL() as other,
        Cluster(2, own, redis) as ours,
        Cluster(1, other, redis) as theirs,
    ):
        assert ours.database_url.rpartition("/")[2] == theirs.database_url.rpartition("/")[2]
        run(share_redis(ours, theirs, mode), 60)


async def share_redis(ours: Cluster, theirs: Cluster, mode: str) -> None:
    here, there = (f"{url}/room" for url in ours.urls)
    elsewhere = f"{theirs.urls[0]}/other"
    async with Client() as client, asyncio.TaskGroup() as tasks:
        for url in (here, elsewhere):  # the first stream of each database
            assert (await client.request("PUT", url, TEXT)).status == 201
        follower = Follower(client, there, mode)  # type: ignore[arg-type]
        following = tasks.create_task(follower.follow())
        size = 0
        for number in range(APPENDS):
            assert (await client.request("POST", elsewhere, TEXT, b"secret\n")).status == 204
            line = b"ours %d\n" % number
            assert (await client.request("POST", here, TEXT, line)).status == 204
            size += len(line)
            await follower.has(size)
        following.cancel()
        assert follower.data == await read(client, ours.urls[0], "room") == await read(client, ours.urls[1], "room")
        assert b"secret" not in follower.data


@pytest.mark.django_db
def test_a_copy_of_a_server_is_believed_only_with_the_same_secret_key(redis: Redis) -> None:
    """Both servers are copies of the files of one, so the location does not tell their databases apart."""
    with (
        PostgreSQL() as own,
        PostgreSQL() as other,
        Cluster(1, own, redis) as ours,
        Cluster(1, other, redis, env={"SECRET_KEY": "another"}) as copy,
    ):
        assert location_of(own, ours.database_url) == location_of(other, copy.database_url)
        take_identity(own, other, name_of(ours.database_url))
        run(share_redis_as_a_copy(ours, copy), 60)


def take_identity(own: PostgreSQL, other: PostgreSQL, name: str) -> None:
    with own.connect(name) as connection:
        (value,) = connection.execute("SELECT value FROM durable_streams_databaseidentity").fetchone()
    with other.connect(name) as connection:
        connection.execute("UPDATE durable_streams_databaseidentity SET value = %s", [value])


async def share_redis_as_a_copy(ours: Cluster, copy: Cluster) -> None:
    async with Client() as client, asyncio.TaskGroup() as tasks:
        urls = [f"{cluster.urls[0]}/room" for cluster in (ours, copy)]
        for url in urls:
            assert (await client.request("PUT", url, TEXT)).status == 201
        followers = [Follower(client, url, "sse") for url in urls]
        following = [tasks.create_task(follower.follow()) for follower in followers]
        for number in range(APPENDS):
            for name, url in zip(("a", "b"), urls, strict=True):
                assert (await client.request("POST", url, TEXT, f"{name} {number}\n".encode())).status == 204
        for follower in followers:
            await follower.has(len(await read(client, follower.url.removesuffix("/room"), "room")))
        for task in following:
            task.cancel()
        assert [follower.data.count(letter) for follower in followers for letter in (b"a ", b"b ")] == [20, 0, 0, 20]
