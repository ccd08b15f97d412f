"""Waiting for what happens behind a request, and making it happen as another process would."""

import asyncio
from collections.abc import Callable

from django.db import connections

from django_durable_streams.engine.engine import running_engines
from django_durable_streams.store.operations import Operation
from django_durable_streams.store.write import group_commit


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until a condition holds. The test as a whole has a time limit."""
    while not condition():  # noqa: ASYNC110  there is no event for what is looked at
        await asyncio.sleep(0)


def watched() -> int:
    """How many readers wait in the hubs, their watches being ready."""
    return sum(
        len(watch.listeners)
        for engine in running_engines()
        for hub in engine._hubs.values()
        for watch in hub._watches.values()
        if watch.ready is None
    )


async def announced() -> None:
    """Wait until the hubs have the news of all operations that were answered. They come behind the answers."""
    for engine in running_engines():
        for committer in engine._writers:
            await asyncio.to_thread(committer.wait_for_announcements)


async def elsewhere(*operations: Operation) -> None:
    """Apply operations as another process does: nobody here is told."""

    def work() -> None:
        try:
            group_commit.apply(operations, "default")
        finally:
            connections.close_all()

    await asyncio.to_thread(work)
