"""How commits of Python callers reach readers and receivers of signals, with or without an engine in the process.

A caller does not wait for its wake-up messages: the backend sends them from a thread of its own. A process that ends
right after a commit, like a management command, gives that thread a moment.

A forked process may vanish without an end of Python, by `os._exit` like that of a job of RQ. So it gives the thread a
moment after each commit, unless it is a server.
"""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from multiprocessing.util import Finalize
from typing import Any

from django.core.signals import request_started

from ..runtime.after_commit import follow_up
from ..runtime.process_objects import ProcessObjects
from ..store.operations import Commit
from .engine import existing_engine
from .failed_steps import NO_SIGNALS, NO_WAKE_UP
from .numbers import TRANSACTION, numbers_for
from .signal_dispatcher import send_signals
from .wakeup import Wakeup, make_wakeup

EXIT_SECONDS = 0.5
"""How long a process that ends, or may vanish, waits for its wake-up messages. A Redis that answers takes
milliseconds."""

_lone_wakeups: ProcessObjects[Wakeup] = ProcessObjects()
"""The backends of a process without an engine, by database."""


def announce(commits: list[Commit], using: str) -> None:
    """Tell all readers and receivers of signals about commits of Python callers, after their transaction."""
    numbers_for(using).count(commits, TRANSACTION)
    engine = existing_engine(using)
    if engine is not None:
        engine.publish(commits)
    else:  # this process has no readers
        follow_up(NO_WAKE_UP, publish, commits, using)
    follow_up(NO_SIGNALS, send_signals, commits, using)


def publish(commits: list[Commit], using: str) -> None:
    """Send wake-up messages about commits of Python callers.

    Raises:
        ImproperlyConfigured, RuntimeError: as for `make_wakeup` and `RedisWakeup.publish`.
    """
    wakeup = wakeup_for(using)
    wakeup.publish(commits)
    # A child process of `multiprocessing` runs the functions of `Finalize`, and one with an engine may have readers.
    if _may_vanish and multiprocessing.parent_process() is None and existing_engine(using) is None:
        wakeup.wait_until_sent(EXIT_SECONDS)


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


_may_vanish = False
"""Whether this process was forked, and has served no request yet."""


def _begin_child() -> None:
    global _may_vanish
    _may_vanish = True


def _become_server(**kwargs: Any) -> None:
    global _may_vanish
    _may_vanish = False


os.register_at_fork(after_in_child=_begin_child)
request_started.connect(_become_server)
