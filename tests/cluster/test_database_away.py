"""A database that is killed or freezes under load: 503 while it is away, then all goes on without a new worker."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import TEXT, Load
from tests.services import Database, MariaDB, PostgreSQL, Redis, name_of

WRITERS = scaled(12, 32)
ROUNDS = scaled(1, 10)
AWAY_SECONDS = 3.0
REFUSED_WITHIN = 2.0
BUSY = 1.0
"""How much later an answer may be seen on a machine that has other things to do."""
BACK_WITHIN = 5.0


@pytest.fixture(params=[PostgreSQL, MariaDB], ids=["postgresql", "mariadb"])
def fragile(request: pytest.FixtureRequest) -> type[Database]:
    """A kind of database server, one of which the test may break."""
    kind: type[Database] = request.param
    return kind


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_requests_are_refused_and_then_all_goes_on(fragile: type[Database], how: str, redis: Redis) -> None:
    with fragile() as database, Cluster(2, database, redis) as cluster:
        begin, end = (database.kill, database.start) if how == "killed" else (database.freeze, database.thaw)
        asyncio.run(asyncio.wait_for(take_away(cluster, begin, end), 60 + 20 * ROUNDS))


def test_threads_that_serve_streams_do_not_need_the_projects_pool(redis: Redis) -> None:
    """Through the URLs, where Django's own part of a request takes connections from psycopg's pool."""
    with (
        PostgreSQL() as database,
        Cluster(2, database, redis, options="?pool=true", env={"EXAMPLE_DOOR": "urls"}) as cluster,
    ):
        asyncio.run(asyncio.wait_for(take_away(cluster, database.kill, database.start), 60 + 20 * ROUNDS))


def test_without_a_free_connection_those_who_have_one_go_on(fragile: type[Database]) -> None:
    """Only who needs another connection is refused, and told why."""
    with fragile() as database, Cluster(1, database) as cluster, contextlib.ExitStack() as others:

        def connect() -> Any:
            name = name_of(cluster.database_url)
            return others.enter_context(contextlib.closing(database.connect(name)))

        def take_all() -> None:
            if isinstance(database, MariaDB):
                database.execute("SET GLOBAL max_connections = 30")
            cursor = connect().cursor()
            cursor.execute("BEGIN")
            cursor.execute("SELECT id FROM durable_streams_stream WHERE path = 'held' FOR UPDATE")
            with contextlib.suppress(Exception):  # each client library has a family of its own
                while True:
                    connect()

        asyncio.run(asyncio.wait_for(fill(cluster, take_all, others.close), 60))


async def fill(cluster: Cluster, take_all: Callable[[], object], free: Callable[[], object]) -> None:
    (url,) = cluster.urls
    async with Client() as client:
        for path in ("held", "a"):
            assert (await client.request("PUT", f"{url}/{path}", TEXT)).status == 201
        await asyncio.to_thread(take_all)
        until = time.monotonic() + AWAY_SECONDS
        while time.monotonic() < until:
            assert (await client.request("POST", f"{url}/a", TEXT, b"line\n")).status == 204
            refused = await client.request("POST", f"{url}/held", TEXT, b"line\n")  # its wait needs a connection
            assert refused.status == 503
            assert "no free connection" in refused.text
            await asyncio.sleep(0.02)
        await asyncio.to_thread(free)
        assert (await client.request("POST", f"{url}/held", TEXT, b"line\n")).status == 204
    assert "The database has no free connection." in cluster.logs()


async def take_away(cluster: Cluster, begin: Callable[[], object], end: Callable[[], object]) -> None:
    pids = [server.pid for server in cluster.servers]
    async with Load(cluster.urls, streams=8, producers=WRITERS, plain=WRITERS) as load, Client() as client:
        for _ in range(ROUNDS):
            await load.progress(2)
            refused = load.statuses[503]
            await asyncio.to_thread(begin)
            went = time.monotonic()
            await all_refused(client, cluster.urls)
            assert await readiness(client, cluster.urls) == {(200, 503)}
            await asyncio.sleep(max(went + AWAY_SECONDS - time.monotonic(), 0))
            assert load.statuses[503] > refused
            await asyncio.to_thread(end)
            came = time.monotonic()
            await load.progress(2)
            assert time.monotonic() - came < BACK_WITHIN
            assert await readiness(client, cluster.urls) == {(200, 200)}
    await load.check()
    assert load.statuses[0] == 0, "a worker did not answer while the database was away"
    assert load.slowest_refusal < REFUSED_WITHIN + BUSY
    assert [server.pid for server in cluster.servers] == pids


REQUESTS = (
    ("PUT", "away", b""),
    ("POST", "load/0", b"line\n"),
    ("GET", "load/0?offset=-1", b""),
    ("GET", "load/0?offset=now&live=long-poll", b""),
    ("GET", "load/0?offset=now&live=sse", b""),
    ("HEAD", "load/0", b""),
    ("DELETE", "load/none", b""),
)


async def all_refused(client: Client, urls: list[str]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for url in urls:
            for request in REQUESTS:
                tasks.create_task(is_refused(client, url, *request))


async def is_refused(client: Client, url: str, method: str, target: str, content: bytes) -> None:
    began = time.monotonic()
    response = await client.request(method, f"{url}/{target}", TEXT if method in ("PUT", "POST") else {}, content)
    assert response.status == 503, f"{method} {target}: {response.status}"
    assert "retry-after" in response.headers
    assert time.monotonic() - began < REFUSED_WITHIN + BUSY, f"{method} {target}"


async def readiness(client: Client, urls: list[str]) -> set[tuple[int, int]]:
    """What the servers' healthz and readyz say, which must not take long whatever happens."""
    began = time.monotonic()
    result = set()
    for url in urls:
        base = url.removesuffix("/v1/stream")
        alive, ready = await client.request("GET", f"{base}/healthz"), await client.request("GET", f"{base}/readyz")
        result.add((alive.status, ready.status))
    assert time.monotonic() - began < (REFUSED_WITHIN + BUSY) * len(urls)
    return result
