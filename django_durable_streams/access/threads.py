"""Threads for what would make the event loop wait: sessions, users, permissions that use the database, the cache."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any, TypeVar, cast

from django.db import Error, connections

from ..conf import config
from ..engine.backlog import Backlog
from ..engine.engine import at_stop, engine_for
from ..engine.lane import Lane, as_failure
from ..engine.line import Line
from ..engine.pulse import Pulse
from ..protocol.errors import ServiceUnavailable

logger = logging.getLogger("django_durable_streams.access")

T = TypeVar("T")
R = TypeVar("R")

Together = Callable[[Sequence[Any]], Sequence[object]]
"""Does the same thing for several at once: returns a value or an exception for each."""

JUDGES = 4
"""Threads for the synchronous methods of permissions."""

BATCH_SIZE = 500

_lanes: dict[str, _Lane] = {}
_turn = itertools.count()
_lock = Lock()


def look_up(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """Have something looked up in the thread for callers, together with all else that waits for the same."""
    return cast("Awaitable[R]", _lane("lookup").submit((work, item)))


def count(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """The same in the thread that talks to the cache."""
    return cast("Awaitable[R]", _lane("limits", asks_database=False).submit((work, item)))


def call(function: Callable[[], T]) -> Awaitable[T]:
    """Call a function in one of the threads for permissions."""
    return cast("Awaitable[T]", _lane(f"judge-{next(_turn) % JUDGES}").submit((_call_all, function)))


def _call_all(functions: Sequence[Callable[[], object]]) -> Sequence[object]:
    found: list[object] = []
    for function in functions:
        try:
            found.append(function())
        except BaseException as error:  # others wait for this thread
            found.append(as_failure(error))
    return found


class _Lane(Lane[tuple[Together, Any]]):
    """A lane that does what waits grouped by what is to be done.

    Args:
        pulse: whether the database answers. None: what is done here does not ask it.
    """

    def __init__(self, name: str, using: str, pulse: Pulse | None) -> None:
        self._pulse = pulse
        line = pulse.line() if pulse is not None else Line(using)
        backlog = Backlog(config().queue_size, config().queue_bytes)
        super().__init__(f"durable-streams-access-{name}", line, self._do_or_refuse, backlog, BATCH_SIZE)

    def _do_or_refuse(self, tasks: Sequence[tuple[Together, Any]]) -> Sequence[object]:
        if self._pulse is None:
            return self._do_all(tasks)
        if self._pulse.answers:
            with self._line:
                try:
                    self._line.open()
                except Error as error:
                    self._pulse.suspect(error)
                else:
                    return self._do_all(tasks)
        return [self._pulse.refusal()] * len(tasks)

    def _do_all(self, tasks: Sequence[tuple[Together, Any]]) -> Sequence[object]:
        groups: dict[Together, list[int]] = {}
        for index, (work, _) in enumerate(tasks):
            groups.setdefault(work, []).append(index)
        found: list[object] = [None] * len(tasks)
        for work, indices in groups.items():
            values = self._do_once_or_twice(work, [tasks[index][1] for index in indices])
            for index, value in zip(indices, values, strict=True):
                found[index] = value
        if any(connection.errors_occurred for connection in connections.all(initialized_only=True)):
            self._line.close()
        return found

    def _do_once_or_twice(self, work: Together, items: Sequence[Any]) -> Sequence[object]:
        try:
            try:
                return work(items)
            except Error:  # it may only have been the connection
                self._line.close()
                self._line.open()
                return work(items)
        except Error as error:
            refusal = self._pulse.adviser.refusal(error) if self._pulse is not None else None
            if refusal is not None:
                return [refusal] * len(items)
            logger.error("It cannot be found out who is asking: %s", error)
            return [ServiceUnavailable("It cannot be found out who is asking. Try again.")] * len(items)
        except BaseException as error:  # others wait for this thread
            return [as_failure(error)] * len(items)


def _lane(name: str, *, asks_database: bool = True) -> _Lane:
    lane = _lanes.get(name)
    if lane is None:
        engine = engine_for()
        with _lock:
            lane = _lanes.get(name)
            if lane is None:
                lane = _lanes[name] = _Lane(name, engine.using, engine.pulse if asks_database else None)
    return lane


@at_stop
def _stop() -> None:
    lanes = list(_lanes.values())
    _lanes.clear()
    for lane in lanes:
        lane.stop()


def _forget() -> None:
    global _lock
    _lanes.clear()
    _lock = Lock()


# Threads do not survive a fork.
os.register_at_fork(after_in_child=_forget)
