"""Reading for many requests at once: one look at the streams of all that wait, then the missing data."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import Error

from ..protocol import text
from ..protocol.errors import DurableStreamsError, OffsetGone, StreamGone, StreamNotFound
from ..protocol.offsets import Offset, Sentinel
from ..protocol.segments import Segment
from ..runtime.backlog import Backlog
from ..runtime.batch_worker import BatchWorker
from ..runtime.monitor import DatabaseMonitor
from ..store.read import lineage, log_reader
from ..store.read.log_reader import PageRequest
from ..store.read.segment_cache import SegmentCache
from ..store.stream_info import StreamInfo

logger = logging.getLogger(__name__)

BATCH_SIZE = 512
"""Most requests that one look serves."""

T = TypeVar("T")


@dataclass(slots=True)
class ReadRequest:
    """See what a stream is like now. With `offset`, also fetch a page from there."""

    path: str
    offset: Offset | Sentinel | None = None


@dataclass(slots=True)
class FollowRequest:
    """Fetch a page of a stream that is already known, by its id: for readers that stay with it.

    They have been at `offset`. Where that is none of the stream's any more, the database has lost something.
    """

    stream_id: int
    offset: Offset


@dataclass(slots=True)
class StatusQuery:
    """See which of some streams are still there, and how far they go."""

    stream_ids: tuple[int, ...]


Task = ReadRequest | FollowRequest | StatusQuery


@dataclass(slots=True)
class Snapshot:
    """A stream as it was at a moment, the position that was asked for, and the page from there, if there is one."""

    info: StreamInfo
    position: int
    segment: Segment | None
    tail: int
    closed: bool
    answers: dict[Any, Any] | None = None
    """What a door has made of the view for all who share it."""
    seen_at: float = 0.0
    """When the look at the database began, in monotonic seconds."""

    @property
    def end(self) -> int:
        """The position after what the view has."""
        return self.segment.end if self.segment is not None else self.position

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing behind what the view has."""
        return self.end >= self.tail

    @property
    def at_end(self) -> bool:
        """Whether the view reaches the end of a closed stream: nothing will ever come behind it."""
        return self.closed and self.up_to_date


class SnapshotReader(BatchWorker[Task]):
    """A lane that answers looks with views.

    Args:
        pulse: whether the database answers.
        backlog: bounds what waits.
        page_bytes: returns about how many bytes a page may have.
        crowded: is called with the ids of streams that have too many chunks.
    """

    def __init__(
        self,
        name: str,
        monitor: DatabaseMonitor,
        backlog: Backlog,
        cache: SegmentCache,
        page_bytes: Callable[[], int],
        crowded: Callable[[set[int]], None],
    ) -> None:
        self._crowded = crowded
        self._cache = cache
        self._page_bytes = page_bytes
        self._monitor = monitor
        connection = monitor.new_connection()
        self._using = connection.using
        super().__init__(name, connection, self._look_or_refuse, backlog, BATCH_SIZE)

    def _look_or_refuse(self, tasks: Sequence[Task]) -> Sequence[object]:
        if self._monitor.answers:
            with self._connection:
                # The second time because it may only have been the connection.
                if (views := self._try(tasks)) is not None or (views := self._try(tasks)) is not None:
                    return views
        return [self._monitor.refusal()] * len(tasks)

    def _try(self, tasks: Sequence[Task]) -> Sequence[object] | None:
        if not self._monitor.answers:
            return None
        try:
            is_new = self._connection.open()
        except Error as error:
            self._monitor.suspect(error)
            return None
        if is_new:
            # The database may have come back without the last that it had, after a crash or on another machine.
            self._cache.clear()
        try:
            return self._look(tasks)
        except Error as error:
            self._connection.close()
            refusal = self._monitor.problem_reporter.refusal(error)
            if refusal is not None:
                return [refusal] * len(tasks)
            if is_new:
                logger.error("A look at the database failed: %s", error)
            return None

    def _look(self, tasks: Sequence[Task]) -> Sequence[object]:
        began = time.monotonic()
        paths = [task.path for task in tasks if type(task) is ReadRequest]
        ids = {task.stream_id for task in tasks if type(task) is FollowRequest}
        for task in tasks:
            if type(task) is StatusQuery:
                ids.update(task.stream_ids)
        by_path = log_reader.find(paths, self._using) if paths else {}
        by_id = log_reader.find_ids(ids, self._using) if ids else {}
        # Those who ask for the same get the same view, and what a door makes of it is made once.
        views: dict[Key, Snapshot | DurableStreamsError] = {}
        for task in tasks:
            if isinstance(task, StatusQuery) or (key := _key(task)) in views:
                continue
            if isinstance(task, ReadRequest):
                view = self._view(by_path[task.path], task.offset)
            else:
                view = self._view(by_id.get(task.stream_id), task.offset, is_known=True)
            if isinstance(view, Snapshot):
                view.seen_at = began
            views[key] = view
        self._fetch_pages(views)
        return [
            {stream_id: by_id[stream_id] for stream_id in task.stream_ids if stream_id in by_id}
            if isinstance(task, StatusQuery)
            else views[_key(task)]
            for task in tasks
        ]

    def _fetch_pages(self, views: dict[Key, Snapshot | DurableStreamsError]) -> None:
        """Add the pages that are asked for, where there is anything past the position."""
        wanted = {
            key: view
            for key, view in views.items()
            if isinstance(view, Snapshot) and key[1] is not None and view.position < view.info.tail
        }
        if not wanted:
            return
        crowded: set[int] = set()
        limit = self._page_bytes()
        requests = [PageRequest(view.info, view.position, limit) for view in wanted.values()]
        segments = log_reader.pages(requests, self._cache, self._using, crowded)
        if crowded:
            self._crowded(crowded)
        for key, view in wanted.items():
            view.segment = segments[view.info.id, view.position]
            if view.segment is None:
                views[key] = self._why_torn(view.info)
            else:
                view.info = lineage.around(view.info, self._using, view.end - text.MAX_HELD, view.end)

    def _why_torn(self, info: StreamInfo) -> DurableStreamsError:
        if log_reader.find_ids([info.id], self._using):
            return log_reader.damaged(info.path)
        return StreamNotFound("The stream was deleted.")  # its rows went between the two queries

    def _view(
        self, info: StreamInfo | DurableStreamsError | None, offset: Offset | Sentinel | None, *, is_known: bool = False
    ) -> Snapshot | DurableStreamsError:
        """Place an offset in a stream. `is_known`: the reader has been there."""
        if info is None:
            return StreamNotFound("The stream was deleted or has expired.")
        if isinstance(info, DurableStreamsError):
            return info
        if offset is None:
            return Snapshot(info, info.tail, None, info.tail, info.closed)
        if is_known and isinstance(offset, Offset) and offset.position <= (info.fork_position or 0):
            position = offset.position  # what a fork began with never goes
        else:
            try:
                info, position = lineage.locate(info, offset, self._using)
            except OffsetGone as error:
                return error
            if is_known and info.offset(position) != offset:
                return OffsetGone("The stream has lost its last data. Read from -1.")
        if position < info.first_position:
            return StreamGone("The data at this offset is not retained any more. Read from -1.")
        return Snapshot(info, position, None, info.tail, info.closed)


Key = tuple[str | int, Offset | Sentinel | None]


def _key(task: ReadRequest | FollowRequest) -> Key:
    return (task.path if isinstance(task, ReadRequest) else task.stream_id), task.offset
