"""Somebody's long transaction on one stream's row keeps up the appends to that stream, and to no other."""

import asyncio
import contextlib
import sqlite3
import time
from typing import Any

from tests.cluster.cluster import Cluster, scaled
from tests.cluster.http import Client, Response
from tests.cluster.load import TEXT, read
from tests.services import Database, PostgreSQL, shared

STREAMS = 16
"""Enough for every committer of the server."""
APPENDS = scaled(20, 500)
HELD = 30
FREE_WITHIN = 3.0
WAIT_SECONDS = 20.0
UNDISTURBED = 0.5
"""An append of a stream that nobody holds takes no longer, on a busy machine too."""


def test_other_streams_do_not_wait(database: Database) -> None:
    with Cluster(1, database) as cluster:
        holder = database.connect(cluster.database_url.rpartition("/")[2])
        with contextlib.closing(holder):
            asyncio.run(asyncio.wait_for(append_beside(cluster, holder.cursor()), 60 + APPENDS))


def test_many_held_streams_go_on_as_soon_as_they_are_free(database: Database) -> None:
    with Cluster(1, database) as cluster:
        holder = database.connect(cluster.database_url.rpartition("/")[2])
        with contextlib.closing(holder):
            asyncio.run(asyncio.wait_for(append_to_held(cluster, holder.cursor()), 60))


def test_a_row_of_the_project_that_refers_to_a_stream_keeps_up_nothing() -> None:
    """As far as the database can tell the two locks apart: PostgreSQL."""
    database = shared(PostgreSQL)
    with Cluster(1, database) as cluster:
        holder = database.connect(cluster.database_url.rpartition("/")[2])
        with contextlib.closing(holder):
            asyncio.run(asyncio.wait_for(append_beside_a_reference(cluster, holder.cursor()), 60))


def test_whoever_holds_all_of_sqlite_keeps_up_appends_and_no_reads() -> None:
    with Cluster(2) as cluster:
        holder = sqlite3.connect(cluster.database_url.removeprefix("sqlite:///"), isolation_level=None)
        with contextlib.closing(holder):
            asyncio.run(asyncio.wait_for(append_to_a_held_file(cluster, holder), 60))


async def append_to_held(cluster: Cluster, cursor: Any) -> None:
    (url,) = cluster.urls
    async with Client() as client:
        for number in range(HELD):
            assert (await client.request("PUT", f"{url}/s{number}", TEXT)).status == 201
        await asyncio.to_thread(hold, cursor, "s%")
        waiting = [asyncio.create_task(insist(client, f"{url}/s{number}", number)) for number in range(HELD)]
        # It has been through all of them at least once, and waits for each in turn.
        done, _ = await asyncio.wait(waiting, timeout=4)
        assert not done
        await asyncio.to_thread(cursor.execute, "ROLLBACK")
        began = time.monotonic()
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
        assert time.monotonic() - began < FREE_WITHIN


async def append_beside_a_reference(cluster: Cluster, cursor: Any) -> None:
    (url,) = cluster.urls
    async with Client() as client:
        assert (await client.request("PUT", f"{url}/s0", TEXT)).status == 201
        cursor.execute("CREATE TABLE project (stream_id bigint REFERENCES durable_streams_stream (id))")
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO project SELECT id FROM durable_streams_stream")
        for _ in range(10):
            began = time.monotonic()
            assert (await client.request("POST", f"{url}/s0", TEXT, b"line\n")).status == 204
            assert time.monotonic() - began < UNDISTURBED
        cursor.execute("ROLLBACK")


async def append_to_a_held_file(cluster: Cluster, holder: sqlite3.Connection) -> None:
    here, there = cluster.urls
    async with Client() as client:
        for number in range(HELD):
            assert (await client.request("PUT", f"{here}/s{number}", TEXT)).status == 201
        holder.execute("BEGIN IMMEDIATE")
        waiting = [asyncio.create_task(insist(client, f"{here}/s{number}", number)) for number in range(HELD)]
        waiting += [asyncio.create_task(insist(client, f"{there}/s{number}", -number)) for number in range(1, HELD)]
        done, _ = await asyncio.wait(waiting, timeout=4)
        assert not done
        for url in cluster.urls:
            began = time.monotonic()
            assert await read(client, url, "s0") == b""
            assert time.monotonic() - began < UNDISTURBED
        holder.execute("ROLLBACK")
        began = time.monotonic()
        assert {answer.status for answer in await asyncio.gather(*waiting)} == {200}
        assert time.monotonic() - began < FREE_WITHIN


async def append_beside(cluster: Cluster, cursor: Any) -> None:
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

        await asyncio.to_thread(cursor.execute, "ROLLBACK")
        async with asyncio.timeout(WAIT_SECONDS):
            assert {answer.status for answer in await asyncio.gather(*held)} == {200}
        assert sorted((await read(client, url, "s0")).splitlines()) == [b"held 0", b"held 1", b"held 2", b"held 3"]


def hold(cursor: Any, paths: str) -> None:
    """Begin a transaction that locks the rows of streams whose paths are like this."""
    cursor.execute("BEGIN")
    cursor.execute("SELECT id FROM durable_streams_stream WHERE path LIKE %s FOR UPDATE", [paths])


async def insist(client: Client, url: str, writer: int) -> Response:
    """Append as a producer, until it is done: meanwhile the server may wait or answer 503."""
    headers = {**TEXT, "producer-id": f"p{writer}", "producer-epoch": "0", "producer-seq": "0"}
    while True:
        response = await client.request("POST", url, headers, b"held %d\n" % writer)
        if response.status != 503:
            return response
        assert "retry-after" in response.headers
        await asyncio.sleep(0.1)
