"""How commits of Python callers reach readers and receivers of signals, with or without an engine in the process.

A caller never waits for its wake-up messages: the backend sends them from a thread of its own. A process that ends
right after a commit, like a management command, gives that thread a moment.
"""

from __future__ import annotations

from functools import partial
from multiprocessing.util import Finalize

from ..runtime.after_commit import follow_up
from ..runtime.process_objects import ProcessObjects
from ..store.operations import Commit
from .engine import existing_engine
from .failed_steps import NO_SIGNALS, NO_WAKE_UP
from .numbers import TRANSACTION, numbers_for
from .signal_dispatcher import send_signals
from .wakeup import Wakeup, make_wakeup

EXIT_SECONDS = 0.5
"""How long the end of a process waits for its last wake-up messages. A Redis that answers takes milliseconds."""

_lone_wakeups: ProcessObjects[Wakeup] = ProcessObjects()
"""The backends of a process without an engine, by database."""


def announce(commits: list[Commit], using: str) -> None:
    """Tell all readers and receivers of signals about commits of Python callers, after their transaction."""
    numbers_for(using).count(commits, TRANSACTION)
    engine = existing_engine(using)
    if engine is not None:
        engine.publish(commits)
    else:  # this process has no readers
        follow_up(NO_WAKE_UP, lambda: wakeup_for(using).publish(commits))
    follow_up(NO_SIGNALS, send_signals, commits, using)


def wakeup_for(using: str) -> Wakeup:
    """Return this process's wake-up backend for a database."""
    engine = existing_engine(using)
    return engine.wakeup if engine is not None else _lone_wakeups.get(using, partial(_make_lone, using))


def _make_lone(using: str) -> Wakeup:
    wakeup = make_wakeup(using)
    if wakeup.carries_messages:
        # Also at the end of a child process of `multiprocessing`, which skips the functions of `atexit`.
        Finalize(None, _send_pending, args=(using,), exitpriority=0)
    return wakeup


def _send_pending(using: str) -> None:
    wakeup = _lone_wakeups.existing(using)
    if wakeup is not None:
        wakeup.stop(EXIT_SECONDS)
