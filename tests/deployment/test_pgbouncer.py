"""PgBouncer between the servers and PostgreSQL, as docs/deployment/databases.md has it."""

import asyncio
from collections.abc import Sequence

from tests.cluster.cluster import Cluster
from tests.cluster.load import Load
from tests.deployment.proxies import PAGES, replaced
from tests.docs.pages import blocks
from tests.servers import HOST
from tests.services import Database, PostgreSQL, Redis, name_of, shared
from tests.templates import migrated_database

WRITERS = 6
SECONDS = 60.0


class PgBouncer(PostgreSQL):
    """PgBouncer in front of a database. Clients connect to it as they connect to PostgreSQL."""

    requirement = "pgbouncer"

    def __init__(self, database: Database, name: str) -> None:
        super().__init__()
        self._database = database
        self.system_database = name

    def _set_up(self) -> None:
        (block,) = [block for block in blocks(PAGES / "databases.md", "ini") if "[pgbouncer]" in block.text]
        name = self.system_database
        replacements = [
            (
                "mysite = host=127.0.0.1 port=5432 dbname=mysite",
                f"{name} = port={self._database.port} dbname={name} host={HOST}",
            ),
            ("listen_port = 6432", f"listen_port = {self.port}\nunix_socket_dir ="),
            ("auth_type = scram-sha-256", "auth_type = any"),
            ("auth_file = /etc/pgbouncer/userlist.txt", ""),
        ]
        text = replaced(block.text, replacements).replace(f"dbname={name}", f"dbname={name} user=postgres")
        (self.directory / "pgbouncer.ini").write_text(text)

    def _command(self) -> Sequence[str]:
        return [str(self.program), "pgbouncer.ini"]


def test_appends_go_through_a_pooler_by_transaction() -> None:
    database = shared(PostgreSQL)
    name = name_of(migrated_database(database))
    with (
        PgBouncer(database, name) as pooler,
        Cluster(2, redis=shared(Redis), database_url=f"{pooler.url}/{name}") as cluster,
    ):
        asyncio.run(asyncio.wait_for(append(cluster), SECONDS))


async def append(cluster: Cluster) -> None:
    async with Load(cluster.urls, streams=3, producers=WRITERS, plain=WRITERS) as load:
        await load.progress(10)
    await load.check()
    assert load.statuses.keys() <= {200, 204}, load.statuses
