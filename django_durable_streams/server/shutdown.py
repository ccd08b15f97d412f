"""Ending live responses when the process is asked to end.

Servers wait for open responses before they tell an application that they are about to stop, and a live response would
never end. So the signal itself is listened to, in front of the server's own handler, from the first live read on.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from types import FrameType
from typing import Any

from ..engine.engine import running_engines

_watching: set[int] = set()

GRACE_SECONDS = 0.5
"""How long live responses have to end where a signal is not handled by anybody else."""

_HYPERCORN_TASK = "raise_shutdown"
"""What a worker of hypercorn waits for. The signal goes to its parent only, which tells it by other means."""


def watch_signals() -> None:
    """See to it that SIGTERM and SIGINT end the live responses of this process. Cheap to call again.

    Handlers can be set from the main thread only; a server that runs its loop in another one is left alone.
    """
    if os.getpid() in _watching or threading.current_thread() is not threading.main_thread():
        return
    _watching.add(os.getpid())
    for number in (signal.SIGTERM, signal.SIGINT):
        previous = signal.getsignal(number)
        if previous is not None:  # None: set by something that is not Python
            signal.signal(number, _Handler(previous))
    for task in asyncio.all_tasks():
        if getattr(task.get_coro(), "__qualname__", "") == _HYPERCORN_TASK:
            task.add_done_callback(lambda _: end_live_reads())


def end_live_reads() -> None:
    """Let all live responses of this process end."""
    for engine in running_engines():
        engine.end_live_reads()


class _Handler:
    """Ends live responses, then does what would have been done without it."""

    def __init__(self, previous: Any) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        end_live_reads()
        if callable(self._previous):
            self._previous(number, frame)
        elif self._previous == signal.SIG_DFL:
            # That ends the process at once, and the responses with it: they need a moment. hypercorn does this to its
            # other workers when the first has ended. A second signal does not wait.
            signal.signal(number, signal.SIG_DFL)
            timer = threading.Timer(GRACE_SECONDS, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
