"""Wakes the processes that run answers: one has to be taken, stopped or closed.

The news travels as a commit of a channel that no stream has, by the wake-up backend of the streams. It may be lost, as
all wake-ups may: runners also look at the rows from time to time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from ...engine.announcements import publish
from ...engine.wakeup.base import DELIVERY_CHANNEL
from ...runtime.after_commit import follow_up
from ...runtime.caller_transaction import on_commit
from ...store.operations import Commit

RUNS_CHANNEL = DELIVERY_CHANNEL - 1
"""The number of a channel that no stream has."""

_NO_WAKE_UP = "Runners of other processes look at the answers by themselves, a moment later. Check WAKEUP."

_local: dict[str, Callable[[], None]] = {}
_lock = threading.Lock()


def set_local_runner(using: str, wake: Callable[[], None] | None) -> None:
    """Set the function that wakes the runner of this process. It may be called in any thread."""
    with _lock:
        if wake is None:
            _local.pop(using, None)
        else:
            _local[using] = wake


def tell_runners(using: str) -> None:
    """Let the runners of all processes look at the runs once the caller's transaction has committed."""
    on_commit(lambda: tell_runners_now(using), using)


def tell_runners_now(using: str) -> None:
    """Let the runners of all processes look at the runs."""
    wake = _local.get(using)
    if wake is not None:
        wake()
    news = Commit(RUNS_CHANNEL, "", "", 0, 0, closed=False)
    follow_up(_NO_WAKE_UP, publish, [news], using)


def _forget() -> None:
    global _lock
    _local.clear()
    _lock = threading.Lock()


# The runner of the parent does not run in a child process.
os.register_at_fork(after_in_child=_forget)
