"""The engine: the lanes of one database in this process, and the hubs of its event loops."""

from __future__ import annotations

import asyncio
import atexit
import gc
import logging
import os
import time
from collections.abc import Awaitable
from functools import lru_cache
from threading import Lock
from typing import cast
from zlib import crc32

from django.db import connections, router

from ..conf import config
from ..models import Stream
from ..protocol.offsets import Offset, Sentinel
from ..runtime import test_transactions
from ..runtime.after_commit import follow_up
from ..runtime.backlog import Backlog
from ..runtime.lifecycle import run_stop_functions
from ..runtime.monitor import monitor_for
from ..runtime.results import ResultCallback, call_in
from ..runtime.write_lock import write_lock
from ..store.operations import Commit, Operation, Result
from ..store.read.segment_cache import SegmentCache
from ..store.stream_info import StreamInfo
from .checkpoints import Checkpointer
from .committer import Committer
from .compaction_tracker import CompactionTracker
from .housekeeping import Housekeeper
from .hub import Hub
from .live_reader_limit import LiveReaderLimit
from .readiness import check_setup
from .signal_dispatcher import SignalDispatcher, hears_of_new_streams, send_signals
from .snapshot_reader import FollowRequest, ReadRequest, Snapshot, SnapshotReader, StatusQuery
from .startup import check_threads
from .ttl_renewals import TtlRenewals
from .wakeup import Wakeup, make_wakeup

logger = logging.getLogger(__name__)


Task = Operation | ReadRequest

NO_WAKE_UP = "Readers of other processes find the news by themselves, within POLL_INTERVAL: see WAKEUP."
NO_SIGNALS = "Receivers of signals were not called."
WARNING_SECONDS = 60.0
"""Time between two warnings that the database has lost commits: it will be so of many streams at a time."""


class Engine:
    """Asynchronous access to the streams of one database.

    Args:
        using: alias of the database.
    """

    def __init__(self, using: str) -> None:
        check_threads()
        # Before anything runs: this raises where the settings are wrong.
        self.wakeup = make_wakeup(using)
        settings = config()
        if settings.gc_threshold:
            _tune_garbage_collector(settings.gc_threshold)
        self.using = using
        self.cache = SegmentCache(settings.cache_bytes)
        # SQLite has one writer at a time.
        is_one = connections[using].vendor == "sqlite"
        committers = 1 if is_one else max(settings.writer_threads, 1)
        self.monitor = monitor_for(using)
        growth = CompactionTracker(flushes=is_one)
        self._writers = [
            Committer(
                f"durable-streams-write-{number}",
                self.monitor,
                Backlog(settings.queue_size, settings.queue_bytes),
                self._committed,
                write_lock(using),
                growth.is_busy,
                hears_of_new_streams,
            )
            for number in range(committers)
        ]
        # What its connection remembers is gone when another one has written; and it works on this process's own time.
        write = self._writers[0].write if is_one else None
        self._checkpointer = Checkpointer(self.monitor.new_connection(), write) if write is not None else None
        self._housekeeper = Housekeeper(self.monitor, self._expired, write_lock(using), growth, write)
        self._reader = SnapshotReader(
            "durable-streams-read",
            self.monitor,
            Backlog(settings.queue_size, settings.queue_bytes),
            self.cache,
            lambda: config().page_bytes,
            self._housekeeper.crowded,
        )
        self._renewals = TtlRenewals(lambda touch, callback: self._writer(touch).put(touch, callback))
        self.places = LiveReaderLimit()
        self._signals = SignalDispatcher()
        self._next_warning = 0.0
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}

    def post(self, task: Task, callback: ResultCallback) -> None:
        """Apply an operation, or look at a stream, for somebody who is given what becomes of it: a value or an error.

        Raises:
            ServiceUnavailable: too much is waiting already.
        """
        if isinstance(task, ReadRequest):
            self._reader.post(task, callback)
        else:
            self._writer(task).post(task, callback)

    def write(self, operation: Operation) -> Awaitable[Result]:
        """Apply an operation; the result comes once that is committed.

        Raises:
            DurableStreamsError: the operation was refused, or could not be done.
        """
        return cast("Awaitable[Result]", self._writer(operation).submit(operation))

    def _writer(self, operation: Operation) -> Committer:
        committers = self._writers
        # A stream always has the same lane, so that its requests keep their order.
        return committers[0] if len(committers) == 1 else committers[crc32(operation.path.encode()) % len(committers)]

    def look(self, path: str, offset: Offset | Sentinel | None = None) -> Awaitable[Snapshot]:
        """See a stream as it is now and, where an offset is given, the page from there.

        Raises:
            OffsetGone, StreamNotFound, StreamGone, ServiceUnavailable.
        """
        return cast("Awaitable[Snapshot]", self._reader.submit(ReadRequest(path, offset)))

    def follow(self, info: StreamInfo, position: int) -> Awaitable[Snapshot]:
        """The same for a position of a stream that is known already."""
        return cast("Awaitable[Snapshot]", self._reader.submit(FollowRequest(info.id, info.offset(position))))

    def survey(self, stream_ids: tuple[int, ...]) -> Awaitable[dict[int, StreamInfo]]:
        """See which of some streams are still there, in one query."""
        return cast("Awaitable[dict[int, StreamInfo]]", self._reader.submit(StatusQuery(stream_ids)))

    def renew(self, info: StreamInfo) -> None:
        """Start a stream's TTL anew where a read has to. Nobody waits for it. Safe to call from any thread."""
        self._renewals.renew(info)

    def hub(self, *, lasting: bool = True) -> Hub:
        """Return the hub of the running event loop. One that does not last beyond a request is not connected."""
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            # Under WSGI every request has a loop of its own; those that ended are dropped here.
            for ended in [known for known in list(self._hubs) if known.is_closed()]:
                self._hubs.pop(ended, None)
            hub = self._hubs[loop] = Hub(self)
            if lasting:
                hub.subscriber = self.wakeup.subscriber(hub)
        return hub

    def _committed(self, commits: list[Commit]) -> None:
        follow_up("Chunks are merged later.", self._count, commits)
        self._expired(commits)

    def _count(self, commits: list[Commit]) -> None:
        self._housekeeper.count(commits)
        if self._checkpointer is not None:
            self._checkpointer.count(commits)
        if any(commit.removed for commit in commits):
            self._housekeeper.wake()

    def _expired(self, commits: list[Commit]) -> None:
        self.publish(commits)
        follow_up(NO_SIGNALS, self._signals.tell, commits, self.using)

    def publish(self, commits: list[Commit]) -> None:
        """Tell all readers what was committed, of this process and of others. Safe to call from any thread."""
        follow_up("Readers of this process find the news by themselves, within POLL_INTERVAL.", self.feed, commits)
        follow_up(NO_WAKE_UP, self.wakeup.publish, commits)

    def feed(self, commits: list[Commit]) -> None:
        """Tell the readers of this process what was committed. Safe to call from any thread."""
        for commit in commits:
            if commit.removed:
                self.cache.forget(commit.stream_id)
        for hub in list(self._hubs.values()):
            news = [commit for commit in commits if hub.watches(commit.stream_id)]
            if news:
                call_in(hub.loop, hub.feed, news)

    def check_setup(self) -> None:
        """Log what has to be set right in the database before streams can be served from it. Asks the database."""
        check_setup(self.using, self.monitor.problem_reporter)

    def went_back(self, info: StreamInfo) -> None:
        """The database has less of a stream than it had: what was read of any may be lost. Safe to call anywhere."""
        self.cache.clear()
        now = time.monotonic()
        if now >= self._next_warning:
            self._next_warning = now + WARNING_SECONDS
            logger.warning(
                "The database has lost what it had committed to the stream %s, and maybe to others: a standby was "
                "promoted without it, or a backup restored. Readers look again.",
                info.path,
            )

    def end_live_reads(self) -> None:
        """Let all who read live now end, and nobody who comes later. Safe to call from any thread."""
        for hub in list(self._hubs.values()):
            call_in(hub.loop, hub.stop)

    def stop(self) -> None:
        """End the threads, after what is queued, and the readers whom nobody would tell any more."""
        self.end_live_reads()
        self._housekeeper.stop()
        if self._checkpointer is not None:
            self._checkpointer.stop()
        for committer in self._writers:
            committer.stop()
        self._reader.stop()
        self.monitor.stop()
        self.tell_the_rest()

    def tell_the_rest(self) -> None:
        """Send the news and the signals that wait, within seconds, and end the threads that do it."""
        self._signals.stop()
        self.wakeup.stop()


def _tune_garbage_collector(threshold: int) -> None:
    """Let the collector run less often, and not over what was loaded before: code, models, settings.

    Requests leave hardly any cycles behind, and a tenth of a busy server's time went into looking for them.
    """
    _, *older = gc.get_threshold()
    gc.set_threshold(threshold, *older)
    gc.freeze()


def announce(commits: list[Commit], using: str) -> None:
    """Tell all readers what Python code has committed outside the lanes."""
    engine = _engines.get(using)
    if engine is not None:
        engine.publish(commits)
    else:
        # No readers in this process, and it may be about to end, as management commands are.
        follow_up(NO_WAKE_UP, lambda: wakeup_for(using).publish_now(commits))
    follow_up(NO_SIGNALS, send_signals, commits, using)


def wakeup_for(using: str) -> Wakeup:
    """Return this process's wake-up backend for a database."""
    engine = _engines.get(using)
    return engine.wakeup if engine is not None else _lone_wakeup(using)


@lru_cache(maxsize=8)
def _lone_wakeup(using: str) -> Wakeup:
    return make_wakeup(using)


_engines: dict[str, Engine] = {}
_default: Engine | None = None
_lock = Lock()


def engine_for(using: str | None = None) -> Engine:
    """Return this process's engine for a database: the one that the router has for streams, if none is named.

    Raises:
        InvisibleTransaction: a TestCase is running whose transaction it could not see.
    """
    global _default
    if using is None and _default is not None:
        return _default
    alias = using or router.db_for_write(Stream)
    test_transactions.check_engine(alias)
    with _lock:
        engine = _engines.get(alias)
        if engine is None:
            engine = _engines[alias] = Engine(alias)
        if using is None and not test_transactions.is_under_test():
            _default = engine
    return engine


def running_engines() -> list[Engine]:
    """Return the engines that this process has made."""
    return list(_engines.values())


def stop_engines() -> None:
    """End all engines of this process, and what was to stop with them; the next use makes new ones."""
    engines = running_engines()
    _forget_engines()
    for engine in engines:
        engine.stop()
    run_stop_functions()


@atexit.register
def _tell_the_rest() -> None:
    """A command that ends right after it has written would take its last news with it."""
    for engine in running_engines():
        engine.tell_the_rest()


def _forget_engines() -> None:
    global _default, _lock
    _default = None
    _engines.clear()
    _lock = Lock()


# Threads do not survive a fork, so a child makes engines of its own.
os.register_at_fork(after_in_child=_forget_engines)
