"""Bodies that take long to prepare, in threads, so that the event loop does not wait for them.

A parser holds the interpreter while it runs, in whichever thread that is: 25 ms for the worst 16 MB. Large bodies are
therefore prepared one after the other, in a thread of their own: two at a time would make everybody wait twice as long.
Those below a megabyte take a millisecond or two, and need not wait behind them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..runtime.lifecycle import call_at_stop

LONG_BYTES = 64 * 1024
"""Bytes of JSON from which it takes long."""

LARGE_BYTES = 1024 * 1024
"""Bytes from which bodies are prepared one after the other."""

_executor: ThreadPoolExecutor | None = None


async def prepare(size: int, work: Callable[[], None]) -> None:
    """Do what it takes to prepare a body of a size, in a thread."""
    global _executor
    if size < LARGE_BYTES:
        await asyncio.to_thread(work)
        return
    if _executor is None:
        _executor = ThreadPoolExecutor(1, thread_name_prefix="durable-streams-bodies")
    await asyncio.get_running_loop().run_in_executor(_executor, work)


@call_at_stop
def _stop() -> None:
    global _executor
    executor, _executor = _executor, None
    if executor is not None:
        executor.shutdown()


def _forget() -> None:
    global _executor
    _executor = None


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_forget)
