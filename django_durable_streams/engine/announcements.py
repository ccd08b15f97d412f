"""How commits of Python callers reach readers and receivers of signals, with or without an engine in the process."""

from __future__ import annotations

from functools import lru_cache

from ..runtime.after_commit import follow_up
from ..store.operations import Commit
from .engine import existing_engine
from .failed_steps import NO_SIGNALS, NO_WAKE_UP
from .numbers import TRANSACTION, numbers_for
from .signal_dispatcher import send_signals
from .wakeup import Wakeup, make_wakeup


def announce(commits: list[Commit], using: str) -> None:
    """Tell all readers and receivers of signals about commits of Python callers, after their transaction."""
    numbers_for(using).count(commits, TRANSACTION)
    engine = existing_engine(using)
    if engine is not None:
        engine.publish(commits)
    else:
        # This process has no readers, and may end right after this, like a management command.
        follow_up(NO_WAKE_UP, lambda: wakeup_for(using).publish_now(commits))
    follow_up(NO_SIGNALS, send_signals, commits, using)


def wakeup_for(using: str) -> Wakeup:
    """Return this process's wake-up backend for a database."""
    engine = existing_engine(using)
    return engine.wakeup if engine is not None else _lone_wakeup(using)


@lru_cache(maxsize=8)
def _lone_wakeup(using: str) -> Wakeup:
    return make_wakeup(using)
