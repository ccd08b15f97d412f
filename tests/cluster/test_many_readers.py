"""A thousand live readers of one worker: no thread and no database connection for each, and nothing left of them."""

import asyncio
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client, Connection
from tests.cluster.load import TEXT
from tests.servers import HOST
from tests.service import descendants
from tests.services import PostgreSQL, Redis, shared

READERS = 1000
ROUNDS = scaled(2, 20)
STREAMS = 50
SPARE_FILES = 200
GONE_SECONDS = 5.0
MEMORY_LEFT = 25 * 1024 * 1024
"""Bytes by which a process may be larger than after the first round, which fills caches and the allocator's pools."""


@pytest.fixture
def many_files() -> None:
    """Each reader is an open file here and in the server, which inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = READERS + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(f"a thousand readers need {wanted} open files, and `ulimit -Hn` allows {hard}")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@pytest.mark.usefixtures("many_files")
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to look into the server")
def test_they_cost_little_and_leave_nothing() -> None:
    database = shared(PostgreSQL)
    with Redis() as redis, Cluster(1, database, redis) as cluster:
        name = cluster.database_url.rpartition("/")[2]
        (server,) = cluster.servers
        process = Process(server.pid, lambda: database_connections(database, name), lambda: channels(redis))
        asyncio.run(asyncio.wait_for(come_and_go(cluster, process), 60 + 30 * ROUNDS))


def database_connections(database: PostgreSQL, name: str) -> int:
    with database.connect("postgres") as connection:
        count = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = %s", [name])
        return int(count.fetchone()[0])


def channels(redis: Redis) -> int:
    from redis import Redis as Connected

    with Connected.from_url(redis.url) as client:
        return len(client.pubsub_channels())


class Process:
    """What a server has open."""

    def __init__(self, pid: int, connections: Callable[[], int], subscriptions: Callable[[], int]) -> None:
        assert not descendants(pid), "a server of one worker has no children"
        self._proc = Path(f"/proc/{pid}")
        self.connections = connections
        self.subscriptions = subscriptions

    def files(self) -> int:
        return len(list((self._proc / "fd").iterdir()))

    def threads(self) -> int:
        return len(list((self._proc / "task").iterdir()))

    def memory(self) -> int:
        return int((self._proc / "statm").read_text().split()[1]) * resource.getpagesize()


async def come_and_go(cluster: Cluster, process: Process) -> None:
    async with Client() as client:
        for number in range(STREAMS):
            answer = await client.request("PUT", f"{cluster.urls[0]}/m{number}", TEXT, b"begin\n")
            assert answer.status == 201
        await visit(cluster, client)  # threads and other things that are made once exist from now on
        await settled(process, SPARE_FILES)
        files, memory = process.files(), process.memory()
        for _ in range(ROUNDS):
            threads, connections = await visit(cluster, client, process)
            assert threads < 30
            assert connections < 10
            await settled(process, files + 5)
        await unsubscribed(process)
        assert process.memory() - memory < MEMORY_LEFT


async def visit(cluster: Cluster, client: Client, process: Process | None = None) -> tuple[int, int]:
    """A thousand readers come, get something, and vanish. Returns the server's threads and database connections."""
    port = cluster.servers[0].port
    readers = []
    try:
        for number in range(READERS):
            reader = await Connection.open(HOST, port)
            readers.append(reader)
            target = f"/v1/stream/m{number % STREAMS}?offset=-1&live=sse"
            await reader.send("GET", target, f"{HOST}:{port}", {}, b"")
        bodies = []
        for reader in readers:
            status, headers = await reader.head()
            assert status == 200
            bodies.append(reader.body("GET", status, headers))
        await asyncio.gather(*(until(body, b"begin") for body in bodies))
        for number in range(STREAMS):
            answer = await client.request("POST", f"{cluster.urls[0]}/m{number}", TEXT, b"news\n")
            assert answer.status == 204
        await asyncio.gather(*(until(body, b"news") for body in bodies))
        return (process.threads(), await asyncio.to_thread(process.connections)) if process else (0, 0)
    finally:
        for reader in readers:
            reader.close()
        await asyncio.sleep(0)


async def until(body: object, expected: bytes) -> None:
    """Read a response until something has come."""
    async with asyncio.timeout(20):
        seen = b""
        while expected not in seen:
            seen += await anext(body)  # type: ignore[call-overload]


async def settled(process: Process, files: int) -> None:
    """Wait until the readers have left no open file, and none of the tasks that each has."""
    deadline = time.monotonic() + GONE_SECONDS
    while process.files() > files:
        assert time.monotonic() < deadline, f"{process.files()} files are open, {files} were before"
        await asyncio.sleep(0.1)


async def unsubscribed(process: Process) -> None:
    """Wait until subscriptions have gone, which linger for readers that come back at once."""
    deadline = time.monotonic() + GONE_SECONDS
    # One keeps the connection of the hub subscribed, one is for the delivery of subscriptions, one for AI answers.
    while (left := await asyncio.to_thread(process.subscriptions)) > 3:
        assert time.monotonic() < deadline, f"{left} subscriptions are left"
        await asyncio.sleep(0.1)
