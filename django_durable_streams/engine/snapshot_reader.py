"""The snapshot reader: one query for the metadata of all waiting reads, then one for the missing data.

A read starts with a query that began after its request came, so it shows all commits of all processes until then. Reads
never wait for writes. Knows no request: entry points and hubs submit tasks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import Error

from ..conf import config
from ..protocol import text
from ..protocol.errors import DurableStreamsError, OffsetGone, OffsetTrimmed, ServiceUnavailable, StreamNotFound
from ..protocol.offsets import Offset, Sentinel
from ..protocol.segments import Segment
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker
from ..runtime.database_errors import drop_frames
from ..runtime.monitor import DatabaseMonitor
from ..store.read import lineage, log_reader
from ..store.read.log_reader import MAX_PAGES_PER_QUERY, PageKey, PageRequest
from ..store.read.segment_cache import SegmentCache
from ..store.stream_info import StreamInfo

logger = logging.getLogger(__name__)

BATCH_SIZE = 512
"""Most tasks in one batch, about."""

T = TypeVar("T")


@dataclass(slots=True)
class ReadRequest:
    """Read the metadata of the stream at a path. With `offset`, also read the page from there."""

    path: str
    offset: Offset | Sentinel | None = None


@dataclass(slots=True)
class FollowRequest:
    """Read a page of a stream by its id, from an offset that the reader has reached.

    If the offset is not the stream's any more, the database has lost data. If the generation is another one, it has
    lost the stream, and uses the id again.
    """

    stream_id: int
    generation: int
    offset: Offset


@dataclass(slots=True)
class StatusQuery:
    """Read the metadata of those of the streams that still exist."""

    stream_ids: tuple[int, ...]


Task = ReadRequest | FollowRequest | StatusQuery


@dataclass(slots=True)
class Snapshot:
    """A stream at one moment, the requested position, and the page from there, if there is one."""

    info: StreamInfo
    position: int
    segment: Segment | None
    tail: int
    closed: bool
    answers: dict[Any, Any] | None = None
    """Responses that an entry point has made from this snapshot, for all requests that share it."""
    seen_at: float = 0.0
    """When the query began, in monotonic seconds."""

    @property
    def end(self) -> int:
        """The position after the page."""
        return self.segment.end if self.segment is not None else self.position

    @property
    def up_to_date(self) -> bool:
        """Whether the page reaches the tail."""
        return self.end >= self.tail

    @property
    def at_end(self) -> bool:
        """Whether the page reaches the end of a closed stream, after which no data will ever come."""
        return self.closed and self.up_to_date


class SnapshotReader(BatchWorker[Task]):
    """The thread that answers all waiting reads together.

    Args:
        name: the name of the thread.
        monitor: says whether the database answers, and makes the thread's connection.
        backlog: limits the number of waiting tasks.
        cache: the data of earlier reads.
        page_bytes: returns the intended size of a page, in bytes.
        request_compaction: is called with the ids of streams that have too many chunks.
    """

    def __init__(
        self,
        name: str,
        monitor: DatabaseMonitor,
        backlog: Backlog,
        cache: SegmentCache,
        page_bytes: Callable[[], int],
        request_compaction: Callable[[set[int]], None],
    ) -> None:
        self._request_compaction = request_compaction
        self._cache = cache
        self._page_bytes = page_bytes
        self._monitor = monitor
        connection = monitor.new_connection()
        self._using = connection.using
        super().__init__(name, connection, self._read_or_refuse, backlog, BATCH_SIZE)

    def _read_or_refuse(self, tasks: Sequence[Task]) -> Sequence[object]:
        if self._monitor.answers:
            with self._connection:
                # Twice, because the first attempt may have met a connection that was dead already.
                if (outcomes := self._try(tasks)) is not None or (outcomes := self._try(tasks)) is not None:
                    return outcomes
        return [self._monitor.refusal()] * len(tasks)

    def _try(self, tasks: Sequence[Task]) -> Sequence[object] | None:
        """Return the outcomes of tasks. None: the database could not be queried."""
        if not self._monitor.answers:
            return None
        try:
            is_new = self._connection.open()
        except Error as error:
            self._monitor.suspect(error)
            return None
        if is_new:
            # The database may have lost its last commits, in a crash or a failover.
            self._cache.clear()
        try:
            return self._read(tasks)
        except Error as error:
            drop_frames(error)
            self._connection.close()
            refusal = self._monitor.problem_reporter.report(error)
            if refusal is not None:
                return [refusal] * len(tasks)
            if is_new:
                logger.error("A query for reads failed, so these requests get 503. (%s)", error)
            return None

    def _read(self, tasks: Sequence[Task]) -> Sequence[object]:
        began = time.monotonic()
        # Equal reads share a snapshot, and the response that an entry point makes from it.
        keys = [(task.path, task.offset) if isinstance(task, ReadRequest) else _key(task) for task in tasks]
        distinct = dict(zip(keys, tasks, strict=True))
        paths = [task.path for task in distinct.values() if type(task) is ReadRequest]
        ids = {task.stream_id for task in distinct.values() if type(task) is FollowRequest}
        for task in distinct.values():
            if type(task) is StatusQuery:
                ids.update(task.stream_ids)
        by_path = log_reader.find(paths, self._using) if paths else {}
        by_id = log_reader.find_ids(ids, self._using) if ids else {}
        outcomes: dict[Key, object] = {}
        for key, task in distinct.items():
            if isinstance(task, StatusQuery):
                outcomes[key] = {number: by_id[number] for number in task.stream_ids if number in by_id}
                continue
            if isinstance(task, ReadRequest):
                outcome = self._snapshot(by_path[task.path], task.offset)
            else:
                info = by_id.get(task.stream_id)
                is_same = info is not None and info.generation == task.generation
                outcome = self._snapshot(info if is_same else None, task.offset, follows=True)
            if isinstance(outcome, Snapshot):
                outcome.seen_at = began
            outcomes[key] = outcome
        self._fetch_pages(outcomes)
        return [outcomes[key] for key in keys]

    def _fetch_pages(self, outcomes: dict[Key, object]) -> None:
        """Add the requested pages to all snapshots with data past their position."""
        with_data = {
            key: snapshot
            for key, snapshot in outcomes.items()
            if isinstance(snapshot, Snapshot) and key[1] is not None and snapshot.position < snapshot.info.tail
        }
        if not with_data:
            return
        limit = self._page_bytes()
        requests = {
            (snapshot.info.id, snapshot.position): PageRequest(snapshot.info, snapshot.position, limit)
            for snapshot in with_data.values()
        }
        segments = self._pages([*requests.values()])
        for key, snapshot in with_data.items():
            page_key = snapshot.info.id, snapshot.position
            if page_key not in segments:
                outcomes[key] = ServiceUnavailable("Too many large pages are read at once. Try again.")
                continue
            snapshot.segment = segments[page_key]
            if snapshot.segment is None:
                outcomes[key] = log_reader.explain_missing(snapshot.info, snapshot.position, self._using)
            else:
                end = snapshot.end
                snapshot.info = lineage.around(snapshot.info, self._using, end - text.MAX_HELD, end)

    def _pages(self, requests: Sequence[PageRequest]) -> dict[PageKey, Segment | None]:
        """Return the requested pages. Pages for whose data there is no memory are left out."""
        needs_compaction: set[int] = set()
        pages: dict[PageKey, Segment | None] = {}
        bytes_left = config().max_response_memory
        for first in range(0, len(requests), MAX_PAGES_PER_QUERY):
            if bytes_left <= 0:
                break
            few = requests[first : first + MAX_PAGES_PER_QUERY]
            few_pages = log_reader.pages(few, self._cache, self._using, needs_compaction)
            bytes_left -= sum([len(segment.data) for segment in few_pages.values() if segment is not None])
            pages |= few_pages
        if needs_compaction:
            self._request_compaction(needs_compaction)
        return pages

    def _snapshot(
        self, info: StreamInfo | DurableStreamsError | None, offset: Offset | Sentinel | None, *, follows: bool = False
    ) -> Snapshot | DurableStreamsError:
        """Return a snapshot at an offset, still without its page, or the error of the read.

        Args:
            info: the stream or the error of its query. None: the query did not find it.
            follows: whether the reader has reached the offset before.
        """
        if info is None:
            return StreamNotFound("The stream was deleted or has expired.")
        if isinstance(info, DurableStreamsError):
            return info
        if offset is None:
            first = info.first_position  # its offset may be asked for, too
            info = lineage.around(info, self._using, first - 1, first) if first else info
            return Snapshot(info, info.tail, None, info.tail, info.closed)
        if follows and isinstance(offset, Offset) and offset.position <= (info.fork_position or 0):
            position = offset.position  # the data that a fork began with is never lost
        else:
            try:
                info, position = lineage.locate(info, offset, self._using)
            except OffsetGone as error:
                return error
            if follows and info.offset(position) != offset:
                return OffsetGone("The stream has lost its last data. Read from offset -1.")
        try:
            lineage.check_retained(info, position, self._using)
        except OffsetTrimmed as error:
            return error
        return Snapshot(info, position, None, info.tail, info.closed)


Key = tuple[str | tuple[int, ...], Offset | Sentinel | None]


def _key(task: FollowRequest | StatusQuery) -> Key:
    if isinstance(task, StatusQuery):
        return task.stream_ids, None
    return (task.stream_id, task.generation), task.offset
