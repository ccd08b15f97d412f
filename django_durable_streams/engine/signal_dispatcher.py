"""Django signals about commits: sent in this thread, or by a thread of its own.

Receivers belong to the project and may be slow. So commits of the committers and of housekeeping go to a thread that
starts with the first signal. Without receivers, a batch of commits costs five comparisons.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

from django.db import close_old_connections, connections
from django.dispatch import Signal

from ..models import Stream
from ..runtime.queue_thread import QueueThread
from ..signals import stream_appended, stream_closed, stream_created, stream_deleted, stream_expired
from ..store.operations import Commit

logger = logging.getLogger(__name__)

MAX_QUEUED = 10_000
"""Signals that may wait for slow receivers. Further signals are dropped."""

IDLE_SECONDS = 10.0
"""Time without signals after which the database connections of receivers are closed."""

STOP_SECONDS = 5.0
"""How long `stop` waits for receivers to return."""

_ALL = (stream_created, stream_appended, stream_closed, stream_deleted, stream_expired)

_receivers = attrgetter("receivers")

Event = tuple[Signal, dict[str, Any]]


def send_signals(commits: list[Commit], using: str) -> None:
    """Send the signals about commits, in this thread. Errors of receivers are logged."""
    if _has_any_listeners():
        for signal, arguments in _events(commits, using):
            signal.send_robust(Stream, **arguments)


def has_created_listeners() -> bool:
    """Return whether `stream_created` has receivers."""
    return _has_listeners(stream_created)


def _has_any_listeners() -> bool:
    # Called once for each batch of commits. Most projects have no receivers at all.
    return any(map(_receivers, _ALL)) and any(map(_has_listeners, _ALL))


def _has_listeners(signal: Signal) -> bool:
    # An empty list makes `has_listeners`, which takes a lock, unnecessary.
    return bool(signal.receivers) and signal.has_listeners(Stream)


def _events(commits: list[Commit], using: str) -> Iterator[Event]:
    for commit in commits:
        arguments = {
            "path": commit.path,
            "stream_id": commit.stream_id,
            "content_type": commit.content_type,
            "using": using,
        }
        if commit.removed:
            yield (stream_expired if commit.expired else stream_deleted), arguments
            continue
        if commit.created:
            yield stream_created, arguments
        if commit.tail > commit.start:
            offsets = {"offset": commit.offset, "next_offset": commit.next_offset}
            yield stream_appended, {**arguments, **offsets}
        if commit.closes:
            yield stream_closed, arguments


class SignalDispatcher:
    """Sends signals from a thread of its own, which starts with the first signal that has receivers."""

    def __init__(self) -> None:
        self._thread: QueueThread[Event] = QueueThread(
            "durable-streams-signals", self._send, connections.close_all, IDLE_SECONDS
        )
        self._is_full = False

    def send_soon(self, commits: list[Commit], using: str) -> None:
        """Send the signals about commits from the thread. Safe to call from any thread.

        Raises:
            RuntimeError: the thread cannot start.
        """
        if not _has_any_listeners():
            return
        for event in _events(commits, using):
            if event[0].has_listeners(Stream):
                self._put(event)

    def stop(self) -> None:
        """Send the queued signals and end the thread, or leave it after some seconds."""
        self._thread.stop(STOP_SECONDS)

    def _put(self, event: Event) -> None:
        if len(self._thread) >= MAX_QUEUED:
            if not self._is_full:
                self._is_full = True
                logger.warning(
                    "Receivers of signals are too slow. Signals are dropped while %d of them wait. Have receivers "
                    "leave slow work to a task queue.",
                    MAX_QUEUED,
                )
            return
        self._is_full = False
        self._thread.put(event)

    @staticmethod
    def _send(event: Event) -> None:
        signal, arguments = event
        try:
            close_old_connections()
            signal.send_robust(Stream, **arguments)
            close_old_connections()
        except BaseException:  # the thread must outlive errors of receivers, and connections that cannot be closed
            logger.exception("Sending a signal failed for the stream %s. Further signals are sent.", arguments["path"])
