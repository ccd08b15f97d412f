"""Webhooks: the time from a commit to the request at its receiver, and the same beside receivers that are dead.

    python -m benchmarks.webhooks [--target sqlite] [--appends 60] [--subscriptions 1 10 200] [--no-redis] [--dead 20]

Another process appends with Python, so the server learns of the commit from Redis, or by its poll. The receivers are in
this process. Each append is made when all webhooks of the one before have arrived.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any

from benchmarks.client import Address, Client
from benchmarks.consumers import INTERVALS, LOST_AFTER_SECONDS, Job
from benchmarks.outcome import MeasurementError, percentile
from benchmarks.redis import running_redis
from benchmarks.targets import POSTGRESQL, SQLITE, Ours, OursOnPostgres

WARM_UP_APPENDS = 3
DEAD_SECONDS = 3.0
"""How long the dead receivers are called before the measurement."""

SLOW_SECONDS = 2.0
DONE = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\n{"done":true}'
FAILED = b"HTTP/1.1 500 Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class WithRedis(Ours):
    """The example project with Redis, or without it."""

    redis_url = ""

    def environment(self, directory: Path) -> dict[str, str]:
        environment = super().environment(directory)
        return {**environment, "REDIS_URL": self.redis_url} if self.redis_url else environment


class WithRedisOnPostgres(WithRedis, OursOnPostgres):
    """The same on PostgreSQL."""


class Receivers:
    """Receivers in a thread. `/living` answers at once, and notes when it was called."""

    def __init__(self) -> None:
        self.arrivals: Queue[float] = Queue()
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._blocked = [socket.create_server(("127.0.0.1", 0), backlog=0)]
        blocked_port = self._blocked[0].getsockname()[1]
        # They fill its queue, so that it accepts no connection.
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", blocked_port))
            self._blocked.append(filler)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Receive during the block."""
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=500))
        self.port = server.sockets[0].getsockname()[1]
        thread = Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            server.close()
            for one in self._blocked:
                one.close()

    def dead_urls(self, count: int) -> list[str]:
        """Return URLs of receivers: a quarter never answer, never accept, answer 500, or answer late."""
        here = f"http://127.0.0.1:{self.port}"
        blocked = f"http://127.0.0.1:{self._blocked[0].getsockname()[1]}/"
        kinds = [f"{here}/silent", blocked, f"{here}/failing", f"{here}/slow"]
        return [kinds[number % len(kinds)] for number in range(count)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            match head.split(b" ")[1]:
                case b"/living":
                    self.arrivals.put(time.monotonic())
                    writer.write(DONE)
                case b"/failing":
                    writer.write(FAILED)
                case b"/slow":
                    await asyncio.sleep(SLOW_SECONDS)
                    writer.write(DONE)
                case _:
                    await reader.read()
            await writer.drain()
        except (OSError, EOFError):
            pass
        finally:
            writer.close()


def subscribe(client: Client, name: str, url: str) -> None:
    """Create a subscription to the measured stream."""
    body = f'{{"type":"webhook","pattern":"measured/*","webhook":{{"url":"{url}"}}}}'.encode()
    client.request("PUT", f"__ds/subscriptions/{name}", body, {"Content-Type": "application/json"}, expect=(201,))


def unsubscribe(client: Client, name: str) -> None:
    client.request("DELETE", f"__ds/subscriptions/{name}", expect=(204,))


def measure(receivers: Receivers, appender: Job, subscriptions: int, appends: int) -> tuple[list[float], list[float]]:
    """Return the seconds from each commit to its first and to its last webhook."""
    first, last = [], []
    for number in range(WARM_UP_APPENDS + appends):
        time.sleep(random.uniform(*INTERVALS))
        appender.ask()
        committed = appender.answer()
        try:
            arrivals = [receivers.arrivals.get(timeout=LOST_AFTER_SECONDS) for _ in range(subscriptions)]
        except Empty:
            raise MeasurementError("a webhook did not arrive") from None
        if number >= WARM_UP_APPENDS:
            first.append(min(arrivals) - committed)
            last.append(max(arrivals) - committed)
    return first, last


def report(title: str, samples: list[float]) -> None:
    p50, p99 = (percentile(samples, percent) * 1e3 for percent in (50, 99))
    print(f"{title}: p50 {p50:.1f} ms, p99 {p99:.1f} ms", flush=True)


def run(options: Any, address: Address, receivers: Receivers, environment: Any) -> None:
    living = f"http://127.0.0.1:{receivers.port}/living"
    with Client(address) as client, Job(environment, "append", "measured/1") as appender:
        for count in options.subscriptions:
            names = [f"s{number}" for number in range(count)]
            for name in names:
                subscribe(client, name, living)
            first, last = measure(receivers, appender, count, options.appends)
            report(f"{count} subscriptions, commit to first webhook", first)
            report(f"{count} subscriptions, commit to last webhook", last)
            for name in names:
                unsubscribe(client, name)
        if options.dead:
            compare(options, client, receivers, appender, living)


def compare(options: Any, client: Client, receivers: Receivers, appender: Job, living: str) -> None:
    """Measure a living receiver alone and beside dead ones, in turns."""
    alone: list[float] = []
    beside: list[float] = []
    subscribe(client, "living", living)
    for _ in range(options.rounds):
        alone += measure(receivers, appender, 1, options.appends)[0]
        names = [f"dead-{number}" for number in range(options.dead)]
        for name, url in zip(names, receivers.dead_urls(options.dead), strict=True):
            subscribe(client, name, url)
        measure(receivers, appender, 1, 0)
        time.sleep(DEAD_SECONDS)
        beside += measure(receivers, appender, 1, options.appends)[0]
        for name in names:
            unsubscribe(client, name)
    report("a living receiver alone", alone)
    report(f"a living receiver beside {options.dead} dead ones", beside)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.webhooks", description=__doc__)
    parser.add_argument("--target", choices=(SQLITE, POSTGRESQL), default=SQLITE)
    parser.add_argument("--appends", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison with dead receivers")
    parser.add_argument("--subscriptions", type=int, nargs="*", default=[1, 10, 200])
    parser.add_argument("--no-redis", action="store_true")
    parser.add_argument("--dead", type=int, default=20)
    options = parser.parse_args()
    target = {SQLITE: WithRedis, POSTGRESQL: WithRedisOnPostgres}[options.target](options.target, options.target)
    with ExitStack() as stack:
        target.redis_url = stack.enter_context(nullcontext("") if options.no_redis else running_redis())
        receivers = Receivers()
        stack.enter_context(receivers.running())
        stack.callback(target.stop)
        run(options, target.start(), receivers, target.project)
    return 0


if __name__ == "__main__":
    sys.exit(main())
