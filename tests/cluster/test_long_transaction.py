"""Somebody's long transaction on one stream's row keeps up the appends to that stream, and to no other."""

import asyncio
import contextlib
import time

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client, Response
from tests.cluster.load import TEXT, read
from tests.services import Database

STREAMS = 16
"""Enough that every lane of the server has some."""
APPENDS = scaled(20, 500)
WAIT_SECONDS = 20.0
UNDISTURBED = 0.5
"""An append of a stream that nobody holds takes no longer, on a busy machine too."""


def test_other_streams_do_not_wait(database: Database) -> None:
    with Cluster(1, database) as cluster:
        holder = database.connect(cluster.database_url.rpartition("/")[2])
        with contextlib.closing(holder):
            asyncio.run(asyncio.wait_for(append_beside(cluster, holder.cursor()), 60 + APPENDS))


async def append_beside(cluster: Cluster, cursor: object) -> None:
    (url,) = cluster.urls
    async with Client() as client:
        for number in range(STREAMS):
            assert (await client.request("PUT", f"{url}/s{number}", TEXT)).status == 201

        await asyncio.to_thread(hold, cursor, "s0")
        held = [asyncio.create_task(insist(client, f"{url}/s0", writer)) for writer in range(4)]
        slowest = 0.0
        for number in range(APPENDS):
            began = time.monotonic()
            answers = await asyncio.gather(
                *(client.request("POST", f"{url}/s{other}", TEXT, b"%d\n" % number) for other in range(1, STREAMS))
            )
            slowest = max(slowest, time.monotonic() - began)
            assert {answer.status for answer in answers} == {204}
        assert slowest < UNDISTURBED
        assert not any(task.done() for task in held), "the transaction held nothing"
        # What is not locked can be read, the held stream too.
        assert await read(client, url, "s0") == b""

        await asyncio.to_thread(cursor.execute, "ROLLBACK")  # type: ignore[attr-defined]
        async with asyncio.timeout(WAIT_SECONDS):
            assert {answer.status for answer in await asyncio.gather(*held)} == {200}
        assert sorted((await read(client, url, "s0")).splitlines()) == [b"held 0", b"held 1", b"held 2", b"held 3"]


def hold(cursor: object, path: str) -> None:
    """Begin a transaction that locks a stream's row."""
    cursor.execute("BEGIN")  # type: ignore[attr-defined]
    cursor.execute("SELECT id FROM durable_streams_stream WHERE path = %s FOR UPDATE", [path])  # type: ignore[attr-defined]


async def insist(client: Client, url: str, writer: int) -> Response:
    """Append as a producer, until it is done: meanwhile the server may wait or answer 503."""
    headers = {**TEXT, "producer-id": f"p{writer}", "producer-epoch": "0", "producer-seq": "0"}
    while True:
        response = await client.request("POST", url, headers, b"held %d\n" % writer)
        if response.status != 503:
            return response
        assert "retry-after" in response.headers
        await asyncio.sleep(0.1)
