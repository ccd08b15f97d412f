"""How a thread gives results to an event loop, and waits for the event loop's turn."""

import asyncio
from threading import Event

from django_durable_streams.runtime.results import call_in, wait_for_turn


async def test_the_turn_comes_behind_all_earlier_calls() -> None:
    loop = asyncio.get_running_loop()
    calls: list[int] = []

    def call_and_wait() -> list[int]:
        for number in range(100):
            call_in(loop, calls.append, number)
        assert wait_for_turn(loop, 30)
        return list(calls)

    assert await asyncio.to_thread(call_and_wait) == list(range(100))


async def test_the_wait_ends_while_the_event_loop_is_busy() -> None:
    loop = asyncio.get_running_loop()
    has_ended = Event()

    def wait() -> bool:
        has_come = wait_for_turn(loop, 0.001)
        has_ended.set()
        return has_come

    waiting = loop.run_in_executor(None, wait)
    assert has_ended.wait(30)  # the event loop makes no other call meanwhile
    assert not await waiting
    assert await asyncio.to_thread(wait_for_turn, loop, 30)  # the late turn of the first wait does no harm


def test_a_closed_event_loop_has_no_turn() -> None:
    loop = asyncio.new_event_loop()
    loop.close()
    assert not wait_for_turn(loop, 0.001)
