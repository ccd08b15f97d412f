"""Threads for what would make the event loop wait: sessions, users, permissions that use the database, the cache."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any, TypeVar, cast

from django.db import connections, router

from ..conf import config
from ..engine.engine import at_stop
from ..engine.lane import Lane
from ..engine.line import Line
from ..models import Stream

T = TypeVar("T")
R = TypeVar("R")

Together = Callable[[Sequence[Any]], Sequence[object]]
"""Does the same thing for several at once: returns a value or an exception for each."""

JUDGES = 4
"""Threads for the synchronous methods of permissions."""

BATCH_SIZE = 500

_lanes: dict[str, Lane[tuple[Together, Any]]] = {}
_turn = itertools.count()
_lock = Lock()


def look_up(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """Have something looked up in the thread for callers, together with all else that waits for the same."""
    return cast("Awaitable[R]", _lane("lookup").submit((work, item)))


def count(work: Callable[[Sequence[T]], Sequence[R | Exception]], item: T) -> Awaitable[R]:
    """The same in the thread that talks to the cache."""
    return cast("Awaitable[R]", _lane("limits").submit((work, item)))


def call(function: Callable[[], T]) -> Awaitable[T]:
    """Call a function in one of the threads for permissions."""
    return cast("Awaitable[T]", _lane(f"judge-{next(_turn) % JUDGES}").submit((_call_all, function)))


def _call_all(functions: Sequence[Callable[[], object]]) -> Sequence[object]:
    found: list[object] = []
    for function in functions:
        try:
            found.append(function())
        except Exception as error:
            found.append(error)
    return found


def _lane(name: str) -> Lane[tuple[Together, Any]]:
    lane = _lanes.get(name)
    if lane is None:
        with _lock:
            lane = _lanes.get(name)
            if lane is None:
                line = Line(router.db_for_read(Stream))
                lane = Lane(f"durable-streams-access-{name}", line, _work, config().queue_size, BATCH_SIZE)
                _lanes[name] = lane
    return lane


def _work(tasks: Sequence[tuple[Together, Any]]) -> Sequence[object]:
    """Do what waits, grouped by what is to be done."""
    groups: dict[Together, list[int]] = {}
    for index, (work, _) in enumerate(tasks):
        groups.setdefault(work, []).append(index)
    found: list[object] = [None] * len(tasks)
    for work, indices in groups.items():
        try:
            values = work([tasks[index][1] for index in indices])
        except Exception as error:
            values = [error] * len(indices)
        for index, value in zip(indices, values, strict=True):
            found[index] = value
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred:
            connection.close_if_unusable_or_obsolete()
    return found


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
