"""Sending the signals of `signals` for what was committed, where it disturbs nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

from django.db import close_old_connections, connections
from django.dispatch import Signal

from ..models import Stream
from ..signals import stream_appended, stream_closed, stream_created, stream_deleted, stream_expired
from ..store.operations import Commit

logger = logging.getLogger(__name__)

MAX_QUEUED = 10_000
"""Signals that may wait for slow receivers. More are dropped."""

IDLE_SECONDS = 10.0
"""After this time without signals, the connections that receivers have opened are closed."""

STOP_SECONDS = 5.0
"""How long `stop` waits for receivers."""

_ALL = (stream_created, stream_appended, stream_closed, stream_deleted, stream_expired)

Event = tuple[Signal, dict[str, Any]]


def send_signals(commits: list[Commit], using: str) -> None:
    """Send the signals for some commits, in this thread. Errors of receivers are logged."""
    if _somebody_listens():
        for signal, arguments in _events(commits, using):
            signal.send_robust(Stream, **arguments)


def hears_of_new_streams() -> bool:
    """Whether somebody is told of streams that are made."""
    return _has_listeners(stream_created)


def _somebody_listens() -> bool:
    # Asked once for each batch of commits.
    return any(map(_has_listeners, _ALL))


def _has_listeners(signal: Signal) -> bool:
    # The list spares `has_listeners`, with its lock, where it is empty.
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
            between = {"offset": commit.offset, "next_offset": commit.next_offset}
            yield stream_appended, {**arguments, **between}
        if commit.closes:
            yield stream_closed, arguments


class SignalDispatcher:
    """Sends signals from a thread of its own, which starts with the first that somebody listens to."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Event | None] = SimpleQueue()
        self._thread: Thread | None = None
        self._lock = Lock()
        self._is_full = False

    def tell(self, commits: list[Commit], using: str) -> None:
        """Send the signals for some commits soon. Safe to call from any thread."""
        if not _somebody_listens():
            return
        for event in _events(commits, using):
            if event[0].has_listeners(Stream):
                self._put(event)

    def stop(self) -> None:
        """End the thread after what is queued, if that does not take too long."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                self._queue.put(None)
        if thread is not None:
            thread.join(STOP_SECONDS)

    def _put(self, event: Event) -> None:
        if self._queue.qsize() >= MAX_QUEUED:
            if not self._is_full:
                self._is_full = True
                logger.warning(
                    "Receivers of signals are too slow; signals are dropped until %d wait no more.", MAX_QUEUED
                )
            return
        self._is_full = False
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = Thread(target=self._run, name="durable-streams-signals", daemon=True)
                    thread.start()  # may fail, as at the end of Python; the next signal tries again
                    self._thread = thread
        self._queue.put(event)

    def _run(self) -> None:
        try:
            while True:
                try:
                    event = self._queue.get(timeout=IDLE_SECONDS)
                except Empty:
                    connections.close_all()
                    continue
                if event is None:
                    return
                self._send(*event)
        finally:
            connections.close_all()

    @staticmethod
    def _send(signal: Signal, arguments: dict[str, Any]) -> None:
        try:
            close_old_connections()
            signal.send_robust(Stream, **arguments)
            close_old_connections()
        except BaseException:  # the thread must outlive what receivers raise, and connections that cannot be closed
            logger.exception("Receivers of a signal have failed for %s.", arguments["path"])
