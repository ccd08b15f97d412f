"""Listing of many streams, beside the database's own query, with the memory that each way takes.

    python -m benchmarks.listing [--target sqlite] [--streams 100000] [--rounds 3]

It needs no server: the request by HTTP goes through the ASGI application in this process. The ways take turns, and the
fastest round of each counts, so that what else the machine does slows all of them alike.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.deletes import fill
from benchmarks.local_database import TARGETS, Meter, Used, local_database, resident_megabytes

PAGE = 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.listing", description=__doc__)
    parser.add_argument("--target", choices=TARGETS, default="sqlite")
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    everybody = "django_durable_streams.permissions.AllowAll"
    with local_database(options.target, permission_classes=everybody):
        fill(options.streams)
        measure(options.streams, options.rounds)


def measure(count: int, rounds: int) -> None:
    from django.core.management import call_command

    def command(*words: str) -> Callable[[], None]:
        def run() -> None:
            with Path(os.devnull).open("w") as sink, redirect_stdout(sink):
                call_command("streams", *words, stdout=sink)

        return run

    ways = {
        "the database's own query": own_query,
        "streams list": command("list"),
        "streams list --json": command("list", "--json"),
        "streams prune --dry-run": command("prune", "--dry-run", "--idle", "0s"),
        "GET __ds/streams": by_http,
    }
    used: dict[str, list[Used]] = {name: [] for name in ways}
    grown = dict.fromkeys(ways, 0.0)
    for number in range(rounds + 1):
        for name, run in ways.items():
            before = resident_megabytes()
            with Meter() as meter:
                run()
            if number:  # the first round is for the caches, and for the memory that stays
                used[name].append(meter.used)
                grown[name] = max(grown[name], resident_megabytes() - before)
    seconds = {name: min(one.seconds for one in measured) for name, measured in used.items()}
    cpu = {name: min(one.cpu_seconds for one in measured) for name, measured in used.items()}
    base = next(iter(ways))
    for name in ways:
        print(
            f"{name:>26}: {seconds[name]:6.2f} s, {seconds[name] / seconds[base]:5.2f} times the query (processor time "
            f"of this process {cpu[name] / cpu[base]:5.2f} times), {count / seconds[name]:9,.0f} streams a second, "
            f"{grown[name]:5.1f} MB more memory",
            flush=True,
        )


def own_query() -> None:
    """Read the columns of a listing page by page, as a client of the database would, and make nothing of them."""
    from django.db import connection

    from django_durable_streams.models import Stream
    from django_durable_streams.store.read.listing import _COLUMNS

    names = ", ".join(connection.ops.quote_name(Stream._meta.get_field(name).column or name) for name in _COLUMNS)
    place = [*_COLUMNS].index("path")
    after = ""
    while True:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SELECT {names} FROM {Stream._meta.db_table} WHERE path > %s ORDER BY path LIMIT {PAGE}", [after]
            )
            rows = cursor.fetchall()
        if not rows:
            return
        after = rows[-1][place]


def by_http() -> None:
    asyncio.run(_by_http())


async def _by_http() -> None:
    from django_durable_streams.server.asgi import DurableStreams

    app = DurableStreams()
    cursor: str | None = ""
    while cursor is not None:
        query = f"limit={PAGE}&cursor={quote(cursor)}"
        body = await _get(app, "/v1/stream/__ds/streams", query)
        # To parse the streams is the work of clients.
        cursor = json.loads(b"{" + body[body.rindex(b'"cursor"') :])["cursor"]


async def _get(app: Any, path: str, query: str) -> bytes:
    body: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
        body.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"localhost")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return b"".join(body)


if __name__ == "__main__":
    main()
