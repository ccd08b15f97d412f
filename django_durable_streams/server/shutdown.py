"""Ending live responses when the process is asked to end.

Servers wait for open responses before they tell an application that they are about to stop, and a live response would
never end. So the signal itself is listened to, in front of the server's own handler, from the first live read on.
"""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

from ..engine.engine import running_engines

_watching: set[int] = set()


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


class _Handler:
    """Ends live responses, then does what would have been done without it."""

    def __init__(self, previous: Any) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        for engine in running_engines():
            engine.end_live_reads()
        if callable(self._previous):
            self._previous(number, frame)
        elif self._previous == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
