"""Workers that are replaced one after the other under load: clients notice nothing but a repeated request."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client
from tests.cluster.load import Load, read
from tests.cluster.readers import Follower, Mode
from tests.servers import APPLICATION, EXAMPLE, GRACE_SECONDS, HOST, STOP_SECONDS, Server, example_environment
from tests.service import descendants
from tests.services import Nginx, PostgreSQL, Redis, shared
from tests.templates import migrated_database, migrated_file

WRITERS = scaled(6, 24)
ROUNDS = scaled(1, 5)
SECONDS = 60.0 + 30.0 * ROUNDS
LIVE: tuple[Mode, ...] = ("sse", "long-poll")
RETRIED = {0, 502, 503, 504}
"""What the official client repeats: lost connections, and all errors of servers."""

SITE = """
upstream streams {
    server 127.0.0.1:FIRST max_fails=0;
    server 127.0.0.1:SECOND max_fails=0;
    keepalive 64;
}
server {
    listen {port};
    location / {
        proxy_pass http://streams;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_read_timeout 75s;
    }
}
"""


def test_behind_nginx(redis: Redis) -> None:
    """Each server ends on SIGTERM, with its open event streams, while nginx sends new requests to the other one."""
    with Cluster(2, shared(PostgreSQL), redis, long_poll_timeout=20) as cluster:
        first, second = (str(server.port) for server in cluster.servers)
        with Nginx(SITE.replace("FIRST", first).replace("SECOND", second)) as nginx:
            asyncio.run(asyncio.wait_for(restart_each(cluster, f"{nginx.url}/v1/stream"), SECONDS))


def test_workers_with_a_shared_socket() -> None:
    """On SIGHUP uvicorn replaces its workers. Their socket stays open, so connections wait for the new ones."""
    url = migrated_database(shared(PostgreSQL))
    # How long a new worker may take to start. After that uvicorn would keep the old ones.
    env = {"UVICORN_TIMEOUT_WORKER_HEALTHCHECK": "60"}
    with Server(workers=2, database_url=url, migrated=True, long_poll_timeout=20, env=env) as server:
        asyncio.run(asyncio.wait_for(replace_workers(server), SECONDS))


def test_a_socket_that_systemd_holds(tmp_path: Path) -> None:
    """The one worker ends, and another one is started with the same socket. Nobody is refused meanwhile."""
    env = example_environment({"DATABASE_URL": migrated_file(tmp_path / "db.sqlite3"), "LONG_POLL_TIMEOUT": "20"})
    with socket.create_server((HOST, 0), backlog=1024) as listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}/v1/stream"
        process = start_with(listener, env)
        try:
            asyncio.run(asyncio.wait_for(restart_with(listener, env, process, url), SECONDS))
        finally:
            process.kill()
            process.wait()


def start_with(listener: socket.socket, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    number = str(listener.fileno())
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLE), "--fd", number, "--log-level", "warning"]
    command += ["--timeout-graceful-shutdown", str(GRACE_SECONDS), APPLICATION]
    return subprocess.Popen(command, env=env, pass_fds=[listener.fileno()], cwd=EXAMPLE)


async def restart_with(
    listener: socket.socket, env: Mapping[str, str], process: subprocess.Popen[bytes], url: str
) -> None:
    new = process
    try:
        async with busy(url) as load:
            process.terminate()
            await asyncio.to_thread(process.wait, STOP_SECONDS)
            new = start_with(listener, env)
            await load.progress(3)
    finally:
        new.terminate()
        await asyncio.to_thread(new.wait, STOP_SECONDS)


@asynccontextmanager
async def busy(url: str) -> AsyncIterator[Load]:
    """Writers and readers through a URL, who are all right and complete in the end."""
    async with Client() as client, asyncio.TaskGroup() as tasks:
        async with Load([url], streams=3, producers=WRITERS, plain=WRITERS, behind_proxy=True) as load:
            followers = [Follower(client, f"{url}/{stream}", mode) for stream in load.streams for mode in LIVE]
            following = [tasks.create_task(follower.follow()) for follower in followers]
            await load.progress(2)
            yield load
            await load.progress(2)
        await load.check()
        for follower in followers:
            content = await read(client, url, follower.url.removeprefix(f"{url}/"))
            await follower.has(len(content))
            assert follower.data == content
            assert follower.connections > 1
        for task in following:
            task.cancel()
    unexpected = load.statuses.keys() - RETRIED - {200, 204}
    assert not unexpected
    print({status: count for status, count in load.statuses.items() if status in RETRIED})


async def restart_each(cluster: Cluster, url: str) -> None:
    async with busy(url) as load:
        for server in cluster.servers * ROUNDS:
            status = await asyncio.to_thread(server.stop)
            assert status != -signal.SIGKILL, server.log_tail()  # event streams and all else ended in time
            await load.progress(2)  # by the other one alone
            await asyncio.to_thread(server.start)
            await load.progress(2)
    assert not load.statuses[0], "nginx did not answer"


async def replace_workers(server: Server) -> None:
    async with busy(f"{server.base_url}/v1/stream") as load:
        for _ in range(ROUNDS):
            old = set(descendants(server.pid))
            os.kill(server.pid, signal.SIGHUP)
            while len(old - set(descendants(server.pid))) < 2:  # one more is a helper of Python's
                await load.progress()
            await load.progress(2)
    assert server.process is not None
    assert server.process.poll() is None
