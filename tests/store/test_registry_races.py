"""The registry while many write at once: each change once, in the order of its path, and nobody waits for its row."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import Error, connection, connections, transaction

from django_durable_streams.engine import engine_for
from django_durable_streams.models import RegistryEntry, Stream
from django_durable_streams.protocol.errors import DurableStreamsError
from django_durable_streams.server.asgi import DurableStreams
from django_durable_streams.store.operations import Create, MoveEntries
from django_durable_streams.store.write import group_commit
from tests.asgi_client import AsgiClient
from tests.overriding import override_streams
from tests.store.registry import REGISTRY, brief, check_replay

USING = "default"
PATHS = ["a", "b", "c", "d"]
SECONDS = 1.5

has_row_locks = pytest.mark.skipif(connection.vendor == "sqlite", reason="one writer at a time")


@pytest.fixture(autouse=True)
def _registry(engines: None) -> Iterator[None]:
    with override_streams(REGISTRY_PATH=REGISTRY, POLL_INTERVAL=0.05):
        yield


def in_thread(work: Callable[[], object]) -> Thread:
    """Begin work over another connection."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = Thread(target=run)
    thread.start()
    return thread


def move() -> None:
    group_commit.apply([MoveEntries(REGISTRY, 3)], USING)


def messages() -> list[dict[str, Any]]:
    while RegistryEntry.objects.exists():
        move()
    return list(Stream.objects.get(path=REGISTRY).read())


def again_and_again(step: Callable[[], object], until: float) -> None:
    """Take a step until the time is over. Errors of the database are those of two that are in each other's way."""
    while time.monotonic() < until:
        try:
            step()
        except (DurableStreamsError, Error):
            pass


def change_in_python(randomly: random.Random) -> None:
    path = randomly.choice(PATHS)
    with transaction.atomic():
        match randomly.randrange(4):
            case 0:
                Stream.objects.create(path=path)
            case 1:
                Stream.objects.ensure(path)[0].close()
            case 2:
                Stream.objects.filter(path=path).delete()
            case _:
                Stream.objects.create(path=path, ttl=None).fork(randomly.choice(PATHS))
        if randomly.random() < 0.2:
            transaction.set_rollback(True)


async def change_by_http(client: AsgiClient, randomly: random.Random, until: float) -> None:
    while time.monotonic() < until:
        path = randomly.choice(PATHS)
        match randomly.randrange(3):
            case 0:
                await client.request("PUT", path)
            case 1:
                await client.close(path)
            case _:
                await client.request("DELETE", path)


async def test_many_writers_and_movers_tell_each_change_once_and_in_order() -> None:
    engine_for()  # which moves entries, too
    client = AsgiClient(DurableStreams())
    seed = random.randrange(10**6)
    until = time.monotonic() + SECONDS
    threads = [
        in_thread(partial(again_and_again, partial(change_in_python, random.Random(seed + number)), until))
        for number in range(2)
    ]
    threads += [in_thread(lambda: again_and_again(move, until)) for _ in range(2)]
    await asyncio.gather(*(change_by_http(client, random.Random(seed - number), until) for number in range(6)))
    for thread in threads:
        await asyncio.to_thread(thread.join)
    lines = await sync_to_async(messages)()
    assert len(lines) > 10
    await sync_to_async(check_replay)(lines)


@has_row_locks
def test_an_open_transaction_is_told_when_it_commits_and_keeps_nothing_back() -> None:
    created, commits = Event(), Event()

    def hold() -> None:
        with transaction.atomic():
            Stream.objects.create(path="held")
            created.set()
            commits.wait(20)

    thread = in_thread(hold)
    assert created.wait(20)
    Stream.objects.create(path="a").delete()
    group_commit.apply([MoveEntries(REGISTRY, 10)], USING)
    assert [brief(message) for message in Stream.objects.get(path=REGISTRY).read()] == ["insert a", "delete a"]
    commits.set()
    thread.join()
    assert [brief(message) for message in messages()] == ["insert a", "delete a", "insert held"]


@has_row_locks
async def test_nothing_waits_for_who_holds_the_row_of_the_registry() -> None:
    client = AsgiClient(DurableStreams())
    engine_for()
    while (await client.get(REGISTRY)).status == 404:
        pass
    holds, ends = Event(), Event()

    def hold() -> None:
        with transaction.atomic():
            list(Stream.objects.filter(path=REGISTRY).select_for_update())
            holds.set()
            ends.wait(20)

    thread = in_thread(hold)
    await asyncio.to_thread(holds.wait, 20)
    try:
        for number in range(20):
            assert (await client.request("PUT", f"s/{number}")).status == 201
            assert (await client.request("DELETE", f"s/{number}")).status == 204
        await sync_to_async(Stream.objects.create)(path="in-python")
        assert (await client.get(REGISTRY)).body == b"[]"
    finally:
        ends.set()
        await asyncio.to_thread(thread.join)
    lines = await sync_to_async(messages)()
    assert len(lines) == 41
    await sync_to_async(check_replay)(lines)


async def test_creates_that_share_a_statement_are_told() -> None:
    engine_for()
    client = AsgiClient(DurableStreams())
    paths = [f"s/{number}" for number in range(300)]
    for _ in range(2):  # the second time all are there
        await asyncio.gather(*(client.request("PUT", path) for path in paths))
    lines = await sync_to_async(messages)()
    assert sorted(line["key"] for line in lines) == sorted(paths)
    await sync_to_async(check_replay)(lines)


def test_creates_in_one_batch_whose_path_another_one_takes_are_told_once() -> None:
    Stream.objects.create(path="s/1")
    group_commit.apply([Create(f"s/{number}", "application/octet-stream") for number in range(3)], USING, wait=False)
    assert sorted(message["key"] for message in messages()) == ["s/0", "s/1", "s/2"]
