"""The engine of one database in this process: its threads, and the hubs of its event loops.

Knows neither requests nor responses. Entry points post tasks here and get their outcomes.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from threading import Lock
from typing import cast
from zlib import crc32

from django.db import connections, router

from ..conf import Config, config
from ..models import Stream
from ..protocol.offsets import Offset, Sentinel
from ..runtime import test_transactions
from ..runtime.after_commit import follow_up
from ..runtime.backlog import Backlog
from ..runtime.lifecycle import run_before_stop_functions, run_start_functions, run_stop_functions
from ..runtime.log_once import LogOnce
from ..runtime.monitor import monitor_for
from ..runtime.results import ResultCallback, call_in
from ..runtime.write_lock import write_lock
from ..store.operations import Commit, Operation, Result
from ..store.read.segment_cache import SegmentCache
from ..store.stream_info import StreamInfo
from ..store.upkeep import key_compaction
from . import garbage_collection
from .checkpoints import Checkpointer
from .committer import Committer
from .compaction_tracker import CompactionTracker
from .failed_steps import NO_COUNT, NO_DELIVERY, NO_FEED, NO_SIGNALS, NO_WAKE_UP
from .housekeeping import Housekeeper
from .hub import Hub
from .live_reader_limit import LiveReaderLimit
from .numbers import COMMITTER, EngineStats, numbers_for
from .readiness import check_setup
from .signal_dispatcher import SignalDispatcher
from .snapshot_reader import FollowRequest, ReadRequest, Snapshot, SnapshotReader, StatusQuery
from .startup import check_threads
from .ttl_renewals import TtlRenewals
from .wakeup import make_wakeup

logger = logging.getLogger(__name__)

Task = Operation | ReadRequest

WARNING_SECONDS = 60.0  # between two warnings about lost commits: a loss usually concerns many streams at once


class Engine:
    """Asynchronous access to the streams of one database.

    Args:
        using: alias of the database.

    Raises:
        ImproperlyConfigured: the settings are wrong, or gevent or eventlet has replaced this process's threads.
        ServiceUnavailable: a thread cannot start.
    """

    def __init__(self, using: str) -> None:
        check_threads()
        self.wakeup = make_wakeup(using)  # before any thread starts, because it raises if the settings are wrong
        settings = config()
        garbage_collection.tune(settings.gc_threshold, freezes=settings.gc_freeze)
        self.using = using
        self.cache = SegmentCache(settings.cache_bytes, key_compaction.cache_seconds())
        self.monitor = monitor_for(using)
        self.numbers = numbers_for(using)
        self._renewals = TtlRenewals(self._put)
        self.live_reader_limit = LiveReaderLimit()
        self._signals = SignalDispatcher()
        self._loss_warnings = LogOnce(WARNING_SECONDS)
        self._hubs: dict[asyncio.AbstractEventLoop, Hub] = {}
        self.after_linked_commit: Callable[[], None] | None = None  # set by the delivery of subscriptions
        self._ends = ExitStack()
        with self._ends:  # if a thread cannot start, those that have started end
            self._start_threads(settings)
            self._ends = self._ends.pop_all()

    def _start_threads(self, settings: Config) -> None:
        is_sqlite = connections[self.using].vendor == "sqlite"
        writer_threads = 1 if is_sqlite else max(settings.writer_threads, 1)  # SQLite has one writer at a time
        compaction_tracker = CompactionTracker(flushes=is_sqlite)
        lock = write_lock(self.using)
        self._backlogs = [Backlog(settings.queue_size, settings.queue_bytes) for _ in range(1 + writer_threads)]
        reads, *operations = self._backlogs
        self._reader = SnapshotReader(
            "durable-streams-read",
            self.monitor,
            reads,
            self.cache,
            lambda: config().page_bytes,
            lambda stream_ids: self._housekeeper.request_compaction(stream_ids),
        )
        self._ends.callback(self._reader.stop)
        self.numbers.readers.append(self._reader.numbers)
        self._writers: list[Committer] = []
        for number, backlog in enumerate(operations):
            name = f"durable-streams-write-{number}"
            committer = Committer(name, self.monitor, backlog, self._committed, lock, compaction_tracker)
            committer.context.is_watched = lambda *ask: any(hub.is_watched(*ask) for hub in [*self._hubs.values()])
            self._ends.callback(committer.stop)
            self.numbers.committers.append(committer.numbers)
            self._writers.append(committer)
        # On SQLite, the write of another connection clears the committer's row cache, so frequent writes use its own.
        write = self._writers[0].write if is_sqlite else None
        self._checkpointer = Checkpointer(self.monitor.new_connection(), write) if write is not None else None
        if self._checkpointer is not None:
            self._ends.callback(self._checkpointer.stop)
            self._writers[0].context.before_data = self._checkpointer.before_commit
        self._housekeeper = Housekeeper(self.monitor, self._expired, lock, compaction_tracker, write, self._put)
        self._ends.callback(self._housekeeper.stop)

    def post(self, task: Task, callback: ResultCallback) -> None:
        """Apply an operation or read a stream, and give the outcome, a value or an error, to a callback.

        Raises:
            ServiceUnavailable: too many operations wait already.
        """
        if isinstance(task, ReadRequest):
            self._reader.post(task, callback)
        else:
            committers = self._writers  # most processes have one
            (committers[0] if len(committers) == 1 else self._writer(task)).post(task, callback)

    def write(self, operation: Operation) -> Awaitable[Result]:
        """Apply an operation. The result arrives once it is committed.

        Raises:
            DurableStreamsError: the operation was refused, or failed.
        """
        return cast("Awaitable[Result]", self._writer(operation).submit(operation))

    def _put(self, operation: Operation, callback: ResultCallback) -> None:
        """Queue an operation of this process itself. Safe to call from any thread."""
        self._writer(operation).put(operation, callback)

    def _writer(self, operation: Operation) -> Committer:
        committers = self._writers
        # A stream always has the same committer, so that its operations keep their order.
        return committers[0] if len(committers) == 1 else committers[crc32(operation.path.encode()) % len(committers)]

    def read(self, path: str, offset: Offset | Sentinel | None = None) -> Awaitable[Snapshot]:
        """Read the metadata of a stream and, with an offset, the page from there.

        Raises:
            OffsetGone, StreamNotFound, StreamGone, ServiceUnavailable.
        """
        return cast("Awaitable[Snapshot]", self._reader.submit(ReadRequest(path, offset)))

    def follow(self, info: StreamInfo, position: int) -> Awaitable[Snapshot]:
        """Read a stream again, by its id, with the page from a position that the reader has reached.

        Raises:
            OffsetGone: the database has lost the data before the position.
            StreamNotFound, StreamGone, ServiceUnavailable.
        """
        return cast(
            "Awaitable[Snapshot]", self._reader.submit(FollowRequest(info.id, info.generation, info.offset(position)))
        )

    def query_status(self, stream_ids: tuple[int, ...]) -> Awaitable[dict[int, StreamInfo]]:
        """Return the metadata of the streams that still exist, by id, with one query.

        Raises:
            ServiceUnavailable.
        """
        return cast("Awaitable[dict[int, StreamInfo]]", self._reader.submit(StatusQuery(stream_ids)))

    def renew(self, info: StreamInfo) -> None:
        """Start a stream's TTL again if this read has to. Does not wait. Safe to call from any thread."""
        self._renewals.renew(info)

    def hub(self, *, lasting: bool = True) -> Hub:
        """Return the hub of the running event loop.

        Args:
            lasting: whether the event loop outlives the request. Otherwise the hub receives no wake-up messages.
        """
        loop = asyncio.get_running_loop()
        hub = self._hubs.get(loop)
        if hub is None:
            # Under WSGI every request has an event loop of its own. Hubs of closed loops are dropped here.
            for closed in [other for other in list(self._hubs) if other.is_closed()]:
                self._hubs.pop(closed, None)
            hub = self._hubs[loop] = Hub(self, self.numbers.hubs.here())
            if lasting:
                hub.subscriber = self.wakeup.subscriber(hub)
        return hub

    def _committed(self, commits: list[Commit]) -> None:
        follow_up(NO_COUNT, self._count, commits)
        self._expired(commits)

    def _count(self, commits: list[Commit]) -> None:
        self.numbers.count(commits, COMMITTER)
        self._housekeeper.count(commits)
        if self._checkpointer is not None:
            self._checkpointer.count(commits)
        if [commit for commit in commits if commit.removed]:  # in less than half the time of `any`
            self._housekeeper.wake_for_removals()

    def _expired(self, commits: list[Commit]) -> None:
        self.publish(commits)
        follow_up(NO_SIGNALS, self._signals.send_soon, commits, self.using)

    def publish(self, commits: list[Commit]) -> None:
        """Tell the readers of all processes about commits. Safe to call from any thread."""
        follow_up(NO_FEED, self.feed, commits)
        follow_up(NO_WAKE_UP, self.wakeup.publish, commits)
        if self.after_linked_commit is not None and any(commit.concerns_delivery for commit in commits):
            follow_up(NO_DELIVERY, self.after_linked_commit)

    def feed(self, commits: list[Commit]) -> None:
        """Tell the readers of this process about commits. Safe to call from any thread."""
        for commit in commits:
            if commit.removed:
                self.cache.forget(commit.stream_id)
        for hub in list(self._hubs.values()):
            watched = [commit for commit in commits if hub.is_watched(commit.stream_id)]
            if watched:
                call_in(hub.loop, hub.feed, watched, time.monotonic())

    def stats(self) -> EngineStats:
        """Return the present numbers of this process (docs/metrics.md). Safe to call from any thread."""
        reads, *operations = self._backlogs
        return self.numbers.stats(operations, [reads], list(self._hubs.values()), self.cache)

    def check_setup(self) -> None:
        """Log what an operator has to set right in the database before streams can be served. Queries the database."""
        check_setup(self.using, self.monitor.problem_reporter)

    def report_data_loss(self, info: StreamInfo) -> None:
        """Drop all cached data, because the database has lost a part of a stream. Safe to call from any thread."""
        self.cache.clear()
        if self._loss_warnings.is_due():
            logger.warning(
                "The database has lost data that it had committed to the stream %s, and maybe to others. A standby "
                "was promoted without it, or a backup was restored. Readers query their streams again.",
                info.path,
                extra={"database": self.using, "stream_path": info.path},
            )

    def end_live_reads(self) -> None:
        """End all present live reads. New ones may follow. Safe to call from any thread."""
        for hub in list(self._hubs.values()):
            call_in(hub.loop, hub.stop)

    def stop(self) -> None:
        """End all live reads, then all threads, each after its queue is done."""
        for hub in list(self._hubs.values()):
            call_in(hub.loop, hub.close)
        self._ends.close()  # housekeeping, then the committers, then the reader
        self.monitor.stop()
        self.send_pending()

    def send_pending(self) -> None:
        """Send the waiting signals and wake-up messages, within seconds, and end the threads that send them."""
        for committer in self._writers:  # answers come before announcements, and the process may end in between
            committer.wait_for_announcements()
        self._signals.stop()
        self.wakeup.stop()


_engines: dict[str, Engine] = {}
_default: Engine | None = None
_lock = Lock()


def engine_for(using: str | None = None) -> Engine:
    """Return this process's engine for a database. The first call makes it.

    Args:
        using: alias of the database. None: the database to which the router has streams written.

    Raises:
        ImproperlyConfigured: as for `Engine`.
        InvisibleTransaction: a TestCase is running, and the engine's threads would not see its transaction.
    """
    global _default
    if using is None and _default is not None:
        return _default
    alias = using or router.db_for_write(Stream)
    test_transactions.check_engine(alias)
    new_engine: Engine | None = None
    with _lock:
        engine = _engines.get(alias)
        if engine is None:
            engine = new_engine = _engines[alias] = Engine(alias)
        if using is None and not test_transactions.is_under_test():
            _default = engine
    if new_engine is not None:
        run_start_functions(new_engine)
    return engine


def existing_engine(using: str) -> Engine | None:
    """Return this process's engine for a database, if it has one."""
    return _engines.get(using)


def running_engines() -> list[Engine]:
    """Return the engines that this process has made."""
    return list(_engines.values())


def stop_engines() -> None:
    """End all engines of this process, and all that stops with them. The next use makes new engines."""
    run_before_stop_functions()
    with _lock:
        engines = running_engines()
        for engine in engines:
            engine.monitor.retire()  # the next engine may begin before this one has ended
        _forget_engines()
    for engine in engines:
        engine.stop()
    run_stop_functions()


@atexit.register
def _send_pending() -> None:
    """Send what waits, for commands that end right after their last commit."""
    for engine in running_engines():
        engine.send_pending()


def _forget_engines() -> None:
    global _default
    _default = None
    _engines.clear()


def _begin_child() -> None:
    global _lock
    _forget_engines()
    _lock = Lock()


# Threads do not survive a fork, so a child process makes engines of its own.
os.register_at_fork(after_in_child=_begin_child)
