"""The threads for code of the project that may block."""

import asyncio
import threading

import pytest

from django_durable_streams.runtime import thread_pool
from django_durable_streams.runtime.thread_pool import ThreadPool


async def test_work_runs_in_as_many_threads_as_there_may_be() -> None:
    pool = ThreadPool("pool-a", 2)
    meets = threading.Barrier(2, timeout=10)
    names = await asyncio.gather(*(pool.call(lambda: (meets.wait(), threading.current_thread().name)[1]) for _ in "ab"))
    assert sorted(names) == ["pool-a-0", "pool-a-1"]
    names = await asyncio.gather(*(pool.call(lambda: threading.current_thread().name) for _ in range(20)))
    assert {*names} <= {"pool-a-0", "pool-a-1"}


async def test_errors_reach_the_caller_and_end_no_thread() -> None:
    pool = ThreadPool("pool-b", 1)
    with pytest.raises(ZeroDivisionError):
        await pool.call(lambda: 1 / 0)
    with pytest.raises(RuntimeError, match="SystemExit"):
        await pool.call(lambda: exit(1))
    assert await pool.call(lambda: threading.current_thread().name) == "pool-b-0"


async def test_idle_threads_end_and_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread_pool, "IDLE_SECONDS", 0.01)
    pool = ThreadPool("pool-c", 1)
    first = await pool.call(threading.current_thread)
    await asyncio.to_thread(first.join, 10)
    assert not first.is_alive()
    assert await pool.call(threading.current_thread) is not first


async def test_a_child_process_begins_with_no_threads() -> None:
    pool = ThreadPool("pool-d", 1)
    first = await pool.call(threading.current_thread)
    pool._reset()  # as after a fork
    assert await pool.call(threading.current_thread) is not first
