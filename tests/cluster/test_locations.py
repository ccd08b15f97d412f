"""The locations of databases of a server: one for all clients, also after a failover, and another one for each copy."""

import asyncio
import subprocess
import time
from contextlib import closing

import pytest
import redis as redis_client
from django.db.utils import ConnectionHandler

from django_durable_streams.store import database_location
from tests.cluster.cluster import Cluster
from tests.cluster.http import Client
from tests.cluster.load import TEXT
from tests.cluster.readers import Follower
from tests.cluster.relay import Relay
from tests.cluster.test_restored import done
from tests.servers import HOST
from tests.services import Database, MariaDB, PostgreSQL, Redis, Standby, name_of
from tests.templates import migrated_database

SECONDS = 120.0
MOVE_SECONDS = 30.0
MAX_STREAMS = 2**32
"""Channels with greater numbers have no stream: those of deliveries and of answers."""

pytestmark = pytest.mark.django_db


def location_of(database: Database, url: str, user: str = "postgres") -> str:
    vendor = "postgresql" if isinstance(database, PostgreSQL) else "mysql"
    login = {"USER": user} if vendor == "postgresql" else {"USER": "streams", "PASSWORD": "streams"}
    settings = {
        "ENGINE": f"django.db.backends.{vendor}",
        "HOST": HOST,
        "PORT": database.port,
        "NAME": name_of(url),
        **login,
    }
    with closing(ConnectionHandler({"default": settings})["default"]) as connection:
        return database_location._LOCATIONS[vendor](connection)


def test_all_clients_agree_and_copies_differ(database: Database) -> None:
    original = migrated_database(database)
    copy = database.new_copy(original)
    assert location_of(database, original) == location_of(database, original)
    assert location_of(database, original) != location_of(database, copy)


def test_a_promoted_standby_has_the_location_of_its_primary() -> None:
    with PostgreSQL() as primary:
        url = migrated_database(primary)
        with Standby(primary) as standby:
            standby.synchronise()
            before = location_of(primary, url)
            primary.kill()
            standby.promote()
            assert location_of(standby, url) == before
            assert str(standby.value("SELECT system_identifier FROM pg_control_system()")) in before


def test_a_role_without_the_right_to_know_the_cluster() -> None:
    with PostgreSQL() as database:
        url = migrated_database(database)
        copy = database.new_copy(url)
        database.execute("CREATE ROLE plain LOGIN")
        for name in map(name_of, (url, copy)):
            with database.connect(name) as connection:
                connection.execute("GRANT SELECT ON durable_streams_databaseidentity TO plain")
                assert location_of(database, f"/{name}", "plain") == location_of(database, f"/{name}")
                connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
        assert location_of(database, url, "plain") != location_of(database, copy, "plain")
        assert location_of(database, url, "plain") != location_of(database, url)


def test_a_copied_schema_of_the_same_database_has_another_location() -> None:
    """As for two tenants, each with a schema, of which one was made from the other."""
    with PostgreSQL() as database:
        url = migrated_database(database)
        before = location_of(database, url)
        with database.connect(name_of(url)) as connection:
            table = "durable_streams_databaseidentity"
            connection.execute("CREATE SCHEMA tenant")
            connection.execute(f"CREATE TABLE tenant.{table} AS SELECT * FROM public.{table}")
            connection.execute(f"ALTER DATABASE {name_of(url)} SET search_path = tenant, public")
        assert location_of(database, url) != before


def test_workers_that_move_to_another_server_hear_each_other_there(redis: Redis) -> None:
    """As MariaDB fails over: another server has the data. The channels change for all workers, in their connections."""
    with MariaDB() as primary, MariaDB() as replica:
        database_url = migrated_database(primary)
        with Relay(primary.port) as relay:
            url = f"mysql://streams:streams@{HOST}:{relay.port}/{name_of(database_url)}"
            with Cluster(2, redis=redis, database_url=url) as cluster:
                asyncio.run(asyncio.wait_for(move(cluster, primary, replica, relay, redis), SECONDS))


def channels(redis: Redis) -> dict[bytes, int]:
    """The channels with subscribers, and the number of these."""
    with redis_client.Redis.from_url(redis.url) as client:
        return {name: count for name, count in client.pubsub_numsub(*client.pubsub_channels()) if count}


async def new_channel(redis: Redis, earlier: set[bytes]) -> bytes:
    """Wait until both workers have subscribed to another channel of the stream, and return it."""
    deadline = time.monotonic() + MOVE_SECONDS
    while True:
        now = {name: count for name, count in channels(redis).items() if name not in earlier}
        for name, count in now.items():
            if count == 2 and 0 < number(name) < MAX_STREAMS:
                return name
        assert time.monotonic() < deadline, now
        await asyncio.sleep(0.05)


def number(channel: bytes) -> int:
    return int(channel.rpartition(b":")[2])


async def move(cluster: Cluster, primary: MariaDB, replica: MariaDB, relay: Relay, redis: Redis) -> None:
    urls = [f"{url}/room" for url in cluster.urls]
    others = set(channels(redis))
    async with Client() as client, asyncio.TaskGroup() as tasks:
        assert (await client.request("PUT", urls[0], TEXT, b"begin\n")).status == 201
        followers = [Follower(client, url, "sse") for url in urls]
        following = [tasks.create_task(follower.follow()) for follower in followers]
        for follower in followers:
            await follower.has(6)
        first = await new_channel(redis, others)
        await asyncio.to_thread(take_over, primary, replica)
        relay.target = replica.port
        assert (await done(client, "POST", urls[0], b"there\n")).status == 204
        second = await new_channel(redis, others | {first})
        assert first not in channels(redis)
        assert number(first) == number(second)
        for follower in followers:
            await follower.has(12)
        for task in following:
            task.cancel()
        assert {follower.data for follower in followers} == {b"begin\nthere\n"}


def take_over(primary: MariaDB, replica: MariaDB) -> None:
    """Give the data of a server to another one, and start that."""
    primary.stop()
    replica.stop()
    for command in (["rm", "-rf", "data"], ["cp", "-a", str(primary.directory / "data"), "data"]):
        subprocess.run(command, cwd=replica.directory, check=True)
    replica.start()
