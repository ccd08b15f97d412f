"""Prepares long bodies in threads, so that the event loop does not wait for them.

A parser holds the interpreter while it runs, in every thread: up to 25 ms for 16 MB. So large bodies are prepared one
at a time, in one thread. Two at a time would delay all other requests twice as long. Bodies below LARGE_BYTES take a
millisecond or two, and do not wait behind large ones. Does not know what the work is.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from ..runtime.lifecycle import call_at_stop

LONG_BYTES = 64 * 1024
"""Bytes of JSON from which a body is prepared in a thread."""

LARGE_BYTES = 1024 * 1024
"""Bytes from which bodies are prepared one at a time."""

_executor: ThreadPoolExecutor | None = None


async def prepare(size: int, work: Callable[[], None]) -> None:
    """Prepare a body in a thread.

    Args:
        size: bytes of the body.
        work: prepares it.
    """
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


def _drop_executor() -> None:
    global _executor
    _executor = None


# A child process has no thread of its parent.
os.register_at_fork(after_in_child=_drop_executor)
