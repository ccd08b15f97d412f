"""How the service executes its work: in threads of its own, or inline.

In production each thread has a database connection of its own. A test inside a transaction cannot have such threads:
other connections do not see its data, and a SQLite database in memory has one connection only. `inline` therefore
switches the process over: batches then run by `sync_to_async`, on the connection of the code that waits for them.

Objects read the mode when they are made, and connections when they are opened, so a request pays nothing for it. Switch
only while no engine runs. This module knows no stream, and nothing of the objects that read it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

from ..protocol.errors import ServiceUnavailable
from .log_once import LogOnce

logger = logging.getLogger(__name__)

LOG_AGAIN_SECONDS = 60.0
"""Time between two messages about threads that cannot start."""

_failures = LogOnce(LOG_AGAIN_SECONDS)
_is_inline = False


def is_inline() -> bool:
    """Whether work runs inline: without threads, without dedicated connections and without a row cache."""
    return _is_inline


@contextmanager
def inline() -> Iterator[None]:
    """Execute all work inline inside the block. No engine may run where the block begins or ends."""
    global _is_inline
    previous, _is_inline = _is_inline, True
    try:
        yield
    finally:
        _is_inline = previous


def start_thread(run: Callable[[], object], name: str) -> Thread:
    """Start a daemon thread of the service and return it. Inline, the thread does nothing and has ended already.

    Raises:
        ServiceUnavailable: there are too many threads, or Python is ending.
    """
    thread = _IdleThread(name=name) if _is_inline else Thread(target=run, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        if _failures.is_due():
            logger.error("A thread cannot start, so requests get 503. Let the process have more threads. (%s)", name)
        raise ServiceUnavailable("The server cannot start a thread. Try again.") from error
    return thread


class _IdleThread(Thread):
    """Stands for a thread that the inline mode does without."""

    def start(self) -> None:
        """Start nothing."""

    def join(self, timeout: float | None = None) -> None:
        """Return at once."""
