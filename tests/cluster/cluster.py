"""Several servers of one worker each on one database, so that a test can address, kill and restart each of them."""

import asyncio
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.servers import Server
from tests.services import Database, Redis
from tests.templates import migrated_database, migrated_file

T = TypeVar("T")

STRESS = os.environ.get("STRESS", "") not in ("", "0")


def scaled(short: T, long: T) -> T:
    """How much of something a test does: little in `make test`, much in `make stress`."""
    return long if STRESS else short


class Cluster:
    """Servers on one new database.

    database: whose; None for a SQLite file.
    redis: what wakes readers on other servers; None for nothing.
    options: for the end of the database's URL, such as `?pool=true`.
    database_url: of an existing, migrated database instead.
    """

    def __init__(
        self,
        workers: int,
        database: Database | None = None,
        redis: Redis | None = None,
        *,
        long_poll_timeout: float = 2.0,
        options: str = "",
        database_url: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="durable-streams-cluster-")
        file = Path(self._folder.name) / "db.sqlite3"
        if database_url is None:
            database_url = migrated_database(database) if database is not None else migrated_file(file)
        self.database_url = database_url + options
        variables = {**({"REDIS_URL": redis.url} if redis is not None else {}), **(env or {})}
        self.servers = [
            Server(database_url=self.database_url, migrated=True, long_poll_timeout=long_poll_timeout, env=variables)
            for _ in range(workers)
        ]

    @property
    def urls(self) -> list[str]:
        """Where the streams of each server are."""
        return [f"{server.base_url}/v1/stream" for server in self.servers]

    async def restart(self, number: int) -> None:
        """Kill a server with SIGKILL and start it again. Returns once it answers."""
        server = self.servers[number]
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)

    def logs(self) -> str:
        """What the servers have written last."""
        return "\n".join(f"{server.base_url}:\n{server.log_tail()}" for server in self.servers)

    def __enter__(self) -> Self:
        try:
            with ThreadPoolExecutor(len(self.servers)) as pool:
                list(pool.map(Server.start, self.servers))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            exc.add_note(self.logs())
        self._close()

    def _close(self) -> None:
        for server in self.servers:
            server.kill()
            server.close()
        self._folder.cleanup()
