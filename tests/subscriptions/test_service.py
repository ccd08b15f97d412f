"""The threads of the subscriptions: what they do in a process, and how they end."""

import asyncio
import threading
import time
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from django_durable_streams.engine import engine_for
from django_durable_streams.engine.engine import running_engines, stop_engines
from django_durable_streams.models import Subscription
from django_durable_streams.protocol.errors import ServiceUnavailable
from django_durable_streams.runtime import background
from django_durable_streams.subscriptions.service import MAX_TASKS, service_for
from tests.subscriptions.steps import stream, subscribe


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("durable-streams")}


async def test_a_process_that_stops_keeps_no_thread_of_the_delivery(engines: None) -> None:
    background.loop()  # which no engine ends
    before = threads()
    await sync_to_async(subscribe)(kind="pull-wake")
    await sync_to_async(stream)()
    engine = engine_for()
    service = service_for()
    service.start()
    assert "durable-streams-delivery" in threads()
    await asyncio.wait_for(sync_to_async(begun)(), 10)
    looks = service._delivery
    # The delivery goes on with its looks while the engine ends.
    ends = engine.stop

    def stop() -> None:
        ends()
        looks.wake()
        time.sleep(0.1)

    engine.stop = stop  # type: ignore[method-assign]
    await asyncio.to_thread(stop_engines)
    assert running_engines() == []
    assert threads() <= before


async def test_requests_that_wait_keep_no_outcome_of_a_wake_from_the_database(engines: None) -> None:
    """What a receiver has done would be done again, and new wakes would wait behind all requests."""
    service = service_for()
    service.start()
    begins, ends = threading.Event(), threading.Event()

    def block() -> None:
        begins.set()
        ends.wait(20)

    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(service.call(block))]
    try:
        # Calls of others, such as the look at the answers, may stand before it. From now on no place gets free.
        assert await asyncio.to_thread(begins.wait, 10)
        waiting += [asyncio.ensure_future(service.call(ends.is_set)) for _ in range(MAX_TASKS)]
        await asyncio.sleep(0)  # all of them have asked for a place
        with pytest.raises(ServiceUnavailable):
            await service.call(ends.is_set)
        assert await asyncio.wait_for(service._delivery._call(ends.is_set), 5) is False
    finally:
        ends.set()
        await asyncio.gather(*waiting, return_exceptions=True)


def begun() -> None:
    """Wait until a wake has begun."""
    while not Subscription.objects.filter(generation__gt=0).exists():
        time.sleep(0.01)


def test_the_delivery_is_started_by_one_thread_at_a_time(engines: None, monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_for()
    other_has_come = threading.Event()
    inside: list[int] = []
    most: list[int] = []

    def start() -> None:
        inside.append(1)
        most.append(len(inside))
        if len(inside) > 1:
            other_has_come.set()
        other_has_come.wait(0.2)
        inside.pop()

    monkeypatch.setattr(service._delivery, "start", start)
    starting = [threading.Thread(target=service.start) for _ in range(2)]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    assert most == [1, 1]
