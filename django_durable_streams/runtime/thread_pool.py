"""A few threads for code of the project that may block and use the ORM, such as templates.

The threads have the project's own database connections, as the threads of its views do. They start when there is work,
and end after some time without it. The pool knows nothing of the work, which must bound its own length.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from threading import Lock
from typing import TypeVar, cast
from weakref import WeakSet

from asgiref.sync import sync_to_async
from django.db import close_old_connections, connections

from . import execution
from .results import Reply, as_failure, call_in

T = TypeVar("T")

IDLE_SECONDS = 10.0
"""A thread without work for so long ends, with its database connections."""


class ThreadPool:
    """Threads that take work from one queue.

    Args:
        name: the beginning of the threads' names.
        size: most threads at a time.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[[], object], Reply]] = SimpleQueue()
        self._lock = Lock()
        self._threads = 0
        self._idle = 0

    def call(self, function: Callable[[], T]) -> Awaitable[T]:
        """Call a function in one of the threads, and return its result. It is not called if nobody waits for it then.

        Inline (see `execution`), the function runs in the thread of the test, on its connection.

        Raises:
            ServiceUnavailable: no thread can start.
            Exception: as the function raises it.
        """
        if execution.is_inline():
            return sync_to_async(function)()
        reply = Reply(loop=asyncio.get_running_loop())
        with self._lock:
            if self._idle <= self._queue.qsize() and self._threads < self._size:
                execution.start_thread(self._run, f"{self._name}-{self._threads}")
                self._threads += 1
                self._idle += 1
            self._queue.put((function, reply))  # inside the lock, so that no idle thread ends meanwhile
        return cast("Awaitable[T]", reply)

    def _run(self) -> None:
        queue = self._queue
        try:
            while True:
                try:
                    function, reply = queue.get(timeout=IDLE_SECONDS)
                except Empty:
                    with self._lock:
                        if queue.empty():
                            self._threads -= 1
                            self._idle -= 1
                            return
                    continue
                with self._lock:
                    self._idle -= 1
                value = None if reply.done() else _outcome(function)  # nobody waits for it any more
                with self._lock:
                    self._idle += 1
                call_in(reply.get_loop(), reply.resolve, value)
                del function, reply, value
        finally:
            connections.close_all()


def _outcome(function: Callable[[], object]) -> object:
    """Return the result of a function, or its error. Around it, Django closes old and broken connections."""
    try:
        close_old_connections()
        try:
            return function()
        finally:
            close_old_connections()
    except BaseException as error:  # the thread must outlive code of the project
        return as_failure(error)


_pools: WeakSet[ThreadPool] = WeakSet()


def _reset_child() -> None:
    for pool in _pools:
        pool._reset()


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_reset_child)
