"""Who waits long enough is woken, the first who came first, and nothing is left of those who did not need it."""

import asyncio
import gc
import weakref

from django_durable_streams.runtime.timeouts import Timeouts, shared_timeouts


class Sleeper:
    """Notes when it is woken."""

    def __init__(self, name: str, woken: list[str]) -> None:
        self._name = name
        self._woken = woken
        self.is_up = asyncio.Event()

    def wake(self) -> None:
        self._woken.append(self._name)
        self.is_up.set()


async def test_sleepers_are_woken_in_the_order_in_which_they_came() -> None:
    woken: list[str] = []
    timeouts = Timeouts(asyncio.get_running_loop())
    sleepers = [Sleeper(name, woken) for name in "abc"]
    for sleeper in sleepers:
        timeouts.add(sleeper, 0.01)
    await sleepers[-1].is_up.wait()
    assert woken == ["a", "b", "c"]
    assert not timeouts._queues


async def test_each_waits_as_long_as_it_said() -> None:
    loop = asyncio.get_running_loop()
    woken: list[str] = []
    timeouts = Timeouts(loop)
    long, short = Sleeper("long", woken), Sleeper("short", woken)
    began = loop.time()
    timeouts.add(long, 0.05)
    timeouts.add(short, 0.01)
    await long.is_up.wait()
    assert woken == ["short", "long"]
    assert loop.time() - began >= 0.049


async def test_one_timer_goes_on_to_the_next_who_is_due() -> None:
    loop = asyncio.get_running_loop()
    woken: list[str] = []
    timeouts = Timeouts(loop)
    first, gone, last = Sleeper("first", woken), Sleeper("gone", woken), Sleeper("last", woken)
    timeouts.add(first, 0.01)
    await first.is_up.wait()
    timeouts.add(first, 0.02)
    timeouts.add(gone, 0.02)
    await asyncio.sleep(0)
    began = loop.time()
    timeouts.add(last, 0.02)
    timeouts.remove(gone, 0.02)
    await last.is_up.wait()
    assert loop.time() - began >= 0.019
    assert woken == ["first", "first", "last"]


async def test_nothing_is_left_of_those_who_do_not_wait_any_more() -> None:
    woken: list[str] = []
    timeouts = Timeouts(asyncio.get_running_loop())
    sleepers = [Sleeper(str(number), woken) for number in range(3)]
    for sleeper in sleepers:
        timeouts.add(sleeper, 3600)
    (queue,) = timeouts._queues.values()
    for sleeper in sleepers:
        timeouts.remove(sleeper, 3600)
        timeouts.remove(sleeper, 3600)
    assert queue.timer.cancelled()
    assert not timeouts._queues
    assert woken == []


async def test_groups_of_an_event_loop_share_their_timeouts() -> None:
    timeouts = shared_timeouts()
    assert timeouts is shared_timeouts()


def test_shared_timeouts_do_not_keep_an_event_loop_that_has_ended() -> None:
    async def use() -> weakref.ref[asyncio.AbstractEventLoop]:
        shared_timeouts().add(Sleeper("a", []), 60)
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(use())
    gc.collect()
    assert loop() is None
