"""What housekeeping has to do, each kind of work by itself: one short step at a time, and no step for too many rows.

Where a step fails, what it was about is split, until what fails stands alone. That waits, and all else goes on.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, ParamSpec, TypeVar

from ..models import Stream
from ..runtime.connection import DedicatedConnection
from ..runtime.write_lock import WriteLock
from ..store.operations import Commit
from ..store.upkeep import compaction, removal, staged_chunks
from ..store.upkeep.compaction import Span
from ..store.upkeep.staged_chunks import FlushPortion
from .compaction_tracker import CompactionTracker
from .housekeeping_failures import HousekeepingFailures, passes

P = ParamSpec("P")
T = TypeVar("T")

STEP_SECONDS = 0.05
"""About how long a step over streams takes: their number is made to fit."""

SHORT_STEP_SECONDS = 0.015
"""The same where only one can write, and all others wait for it."""

FIRST_STREAMS, MAX_STREAMS = 32, 512
"""Streams of a step: at first, and at the most."""

REST = 30.0
"""How many times as long as it merges this thread then rests: what people wait for, reads too, comes first."""

BUSY_REST = 6.0
"""The same for what busy processes leave to be gathered, which must not fall behind."""

SWEEP_REST = 1.0
"""The same for expiry, removal and purging, so that appends come through."""

READ_REST = 1.0
"""The same where rows were only looked at."""


class HousekeepingContext:
    """Where duties work: a thread's connection.

    Args:
        line: the connection.
        turn: held around each piece of work: whose turn it is to write, where only one can.
        write: has a piece of work done where it disturbs least, and waits for it; None: by this thread.
    """

    def __init__(
        self,
        connection: DedicatedConnection,
        write_lock: WriteLock,
        write: Callable[[Callable[[], object]], object] | None,
    ) -> None:
        self.connection = connection
        self.using = connection.using
        self.is_one = write_lock.is_one
        self._write_lock = write_lock
        self.write = write or self.do

    def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something that writes."""
        with self.connection, self._write_lock.hold():
            return work(*args, **kwargs)

    def read(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something that only reads."""
        with self.connection:
            return work(*args, **kwargs)

    def name(self, stream_id: int) -> str:
        """Return how messages call a stream: by its path, if it has one still."""
        path = self.read(Stream._base_manager.using(self.using).filter(pk=stream_id).values_list("path").first)
        return path[0] if path is not None and path[0] is not None else f"a removed stream (id {stream_id})"


class HousekeepingTask(ABC):
    """One kind of work."""

    name: str
    """For messages."""

    def __init__(self, place: HousekeepingContext) -> None:
        self.place = place
        self.using = place.using

    @abstractmethod
    def step(self) -> float | None:
        """Do some of the work, in a short transaction.

        Returns:
            How many times as long as that took to rest before the next step. None: nothing is left to do now.

        Raises:
            Exception: it could not be done, and that is nothing about a single stream.
        """


class SweepTask(HousekeepingTask):
    """A duty that goes through the streams of a state, in order, some at a time, again and again."""

    def __init__(self, place: HousekeepingContext) -> None:
        super().__init__(place)
        self._setbacks = HousekeepingFailures(self.name)
        self._groups: list[Sequence[int]] = []
        self._after: Any = None
        self._has_done = False
        self._size = FIRST_STREAMS

    @abstractmethod
    def _find(self, after: Any, limit: int) -> Sequence[tuple[Any, int]]:
        """Return (where it stands, id) of the first streams of the state that stand behind a place. None: the first."""

    @abstractmethod
    def _do(self, ids: Sequence[int]) -> int | None:
        """Do the work for some streams, but for those that others hold; return for how many. None: there is more."""

    def step(self) -> float | None:
        if not self._groups:
            return self._look()
        ids = self._groups.pop()
        began = time.monotonic()
        try:
            done = self._do(ids)
        except Exception as error:
            if passes(error):
                self._after, self._groups = None, []  # from the beginning, later
                raise
            self._split(ids, error)
            return SWEEP_REST
        self._setbacks.clear(ids)
        if done is None:
            self._groups.append(ids)
        else:
            self._has_done |= done > 0
            self._fit(len(ids), time.monotonic() - began)
        return SWEEP_REST

    def _look(self) -> float | None:
        found = self.place.read(self._find, self._after, self._size)
        if found:
            self._after, _ = found[-1]
            waiting = self._setbacks.waiting()
            ids = [stream_id for _, stream_id in found if stream_id not in waiting]
            if ids:
                self._groups.append(ids)
            return READ_REST
        # Once more from the beginning, where that may have changed.
        again = self._has_done
        self._after, self._has_done = None, False
        return READ_REST if again else None

    def _split(self, ids: Sequence[int], error: Exception) -> None:
        if len(ids) > 1:
            self._groups += [ids[len(ids) // 2 :], ids[: len(ids) // 2]]
        else:
            self._setbacks.add(ids[0], self.place.name(ids[0]), error)

    def _fit(self, count: int, seconds: float) -> None:
        enough = SHORT_STEP_SECONDS if self.place.is_one else STEP_SECONDS
        if seconds > 2 * enough:
            self._size = max(self._size // 2, 1)
        elif seconds < enough and count >= self._size:
            self._size = min(2 * self._size, MAX_STREAMS)


class ExpiryTask(SweepTask):
    """Streams whose deadline has passed give back their paths, and their readers are told.

    Args:
        publish: is told of them.
    """

    name = "end the expired stream at"

    def __init__(self, place: HousekeepingContext, publish: Callable[[list[Commit]], None]) -> None:
        super().__init__(place)
        self._publish = publish

    def _find(self, after: tuple[datetime, int] | None, limit: int) -> Sequence[tuple[Any, int]]:
        return [(found, found[1]) for found in removal.expired(self.using, after=after, limit=limit)]

    def _do(self, ids: Sequence[int]) -> int:
        commits = self.place.do(removal.expire, self.using, ids=ids)
        self._publish(commits)
        return len(commits)


class RemovalTask(SweepTask):
    """Soft-deleted streams whose last fork has gone are removed."""

    name = "remove the deleted stream at"

    def _find(self, after: int | None, limit: int) -> Sequence[tuple[Any, int]]:
        return [(found, found) for found in removal.unneeded(self.using, after=after or 0, limit=limit)]

    def _do(self, ids: Sequence[int]) -> int:
        return self.place.do(removal.collect, self.using, ids=ids)


class PurgeTask(SweepTask):
    """The rows of removed streams are deleted."""

    name = "purge the rows of"

    def _find(self, after: int | None, limit: int) -> Sequence[tuple[Any, int]]:
        return [(found, found) for found in removal.removed(self.using, after=after or 0, limit=limit)]

    def _do(self, ids: Sequence[int]) -> int | None:
        if self.place.do(removal.purge_data, self.using, ids):
            return None
        return self.place.do(removal.purge_streams, self.using, ids)


class FlushTask(HousekeepingTask):
    """Recent chunks become chunks like all others.

    Args:
        growth: is told of streams that have got a chunk by it.
    """

    name = "gather what was appended lately to"

    def __init__(self, place: HousekeepingContext, growth: CompactionTracker) -> None:
        super().__init__(place)
        self._growth = growth
        self._setbacks = HousekeepingFailures(self.name)
        """By block: it is left alone until its time has come."""
        self._block = 0
        self._rest = REST
        self._portions: Iterator[FlushPortion] = iter(())
        self._groups: list[FlushPortion] = []
        self._has_failed = False

    def step(self) -> float | None:
        portion = self._groups.pop() if self._groups else self.place.read(next, self._portions, None)
        if portion is None:
            return self._next_block()
        try:
            is_gathered = self.place.write(partial(staged_chunks.flush, self.using, portion))
        except Exception as error:
            if passes(error):
                self._portions, self._groups = iter(()), []
                raise
            if len(portion.parts) > 1:
                self._groups += portion.halves()
            else:
                self._fail(portion.parts[0].stream_id, error)
            return self._rest
        if not is_gathered:  # somebody else is at it, too
            self._portions, self._groups = iter(()), []
            return None
        self._growth.flushed(portion.stream_ids)
        return self._rest

    def _next_block(self) -> float | None:
        if self._block and not self._has_failed:
            self._setbacks.clear([self._block])
        due = self.place.read(staged_chunks.due, self.using, skip=self._setbacks.waiting())
        if due is None:
            self._block = 0
            return None
        self._block, self._has_failed = due.block, False
        self._rest = BUSY_REST if due.is_urgent else REST
        self._portions = staged_chunks.portions(self.using, due.block, self._fail)
        return READ_REST

    def _fail(self, stream_id: int, error: Exception) -> None:
        self._has_failed = True
        self._setbacks.add(self._block, self.place.name(stream_id), error)


class CompactionTask(HousekeepingTask):
    """Small chunks are merged.

    Args:
        growth: knows whose.
    """

    name = "merge the chunks of"

    def __init__(self, place: HousekeepingContext, growth: CompactionTracker) -> None:
        super().__init__(place)
        self._growth = growth
        self._setbacks = HousekeepingFailures(self.name)
        self._portions: Iterator[list[Span]] = iter(())
        self._unfinished: set[int] = set()
        self._groups: list[list[Span]] = []

    def step(self) -> float | None:
        spans = self._groups.pop() if self._groups else self.place.read(next, self._portions, None)
        if spans is None:
            return self._next_streams()
        try:
            mergers = self.place.read(compaction.read, self.using, spans)
            self.place.write(partial(compaction.merge, self.using, mergers))
        except Exception as error:
            if passes(error):
                self._groups.append(spans)
                raise
            self._split(spans, error)
            return REST
        self._setbacks.clear(span.stream_id for span in spans)
        return REST

    def _next_streams(self) -> float | None:
        crowded = self._growth.take_due() | self._unfinished
        crowded = (crowded - self._setbacks.waiting()) | self._setbacks.take_due()
        self._unfinished = set()
        self._portions = compaction.portions(self.using, crowded, self._unfinished)
        return READ_REST if crowded else None

    def _split(self, spans: list[Span], error: Exception) -> None:
        if len(spans) > 1:
            self._groups += [spans[len(spans) // 2 :], spans[: len(spans) // 2]]
        else:
            stream_id = spans[0].stream_id
            self._unfinished.discard(stream_id)
            self._setbacks.add(stream_id, self.place.name(stream_id), error)
