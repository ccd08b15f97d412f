"""The housekeeping tasks: expiry, removal, purge, flush and compaction, each in short steps with a limit on rows.

A step that fails is split until the failing stream stands alone. `housekeeping_failures` remembers that stream, and all
other work goes on. When a step runs is decided by `housekeeping`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, cast

from ..store.operations import Commit
from ..store.upkeep import compaction, removal, staged_chunks
from ..store.upkeep.compaction import Span
from ..store.upkeep.staged_chunks import FlushPortion
from .compaction_tracker import CompactionTracker
from .housekeeping_context import HousekeepingContext
from .housekeeping_failures import HousekeepingFailures, passes

STEP_SECONDS = 0.05
"""Intended length of a step. The number of streams in a step adapts to it."""

SHORT_STEP_SECONDS = 0.015
"""The same if only one connection can write, and all others wait for it."""

FIRST_STREAMS, MAX_STREAMS = 32, 512
"""Streams in the first step, and in the largest."""

COMPACTION_REST = 30.0
"""How many times as long as a compaction step the task then rests. Requests come first."""

URGENT_FLUSH_REST = 6.0
"""The same for a flush while staged chunks are many, so that it does not fall behind."""

SWEEP_REST = 1.0
"""The same for expiry, removal and purge, so that appends come through."""

READ_REST = 1.0
"""The same for a step that only reads."""


class HousekeepingTask(ABC):
    """One kind of work."""

    name: str
    """A verb phrase for log messages, before the name of a stream."""

    woken_interval = 0.1
    """Shortest time, in seconds, between two steps of the idle task if commits wake it."""

    follows_removals = False
    """Whether the end of a stream may give the task something to do."""

    done = 0
    """What all steps have done: a number of streams, of trims, or of chunks that were flushed or merged."""

    def __init__(self, context: HousekeepingContext) -> None:
        self.context = context
        self.using = context.using

    @abstractmethod
    def step(self) -> float | None:
        """Do some of the work, in a short transaction.

        Returns:
            How many times as long as the step to rest before the next one. None: nothing is left to do now.

        Raises:
            Exception: the step failed for a reason that concerns no single stream.
        """


class SweepTask(HousekeepingTask):
    """A task that goes through all streams in some state, in order and a limited number at a time."""

    def __init__(self, context: HousekeepingContext) -> None:
        super().__init__(context)
        self._failures = HousekeepingFailures(self.name)
        self._groups: list[Sequence[int]] = []
        self._after: Any = None
        self._has_done = False
        self._size = FIRST_STREAMS

    @abstractmethod
    def _find(self, after: Any, limit: int) -> Sequence[tuple[Any, int]]:
        """Return the next streams in the state, each as its sort key and its id.

        Args:
            after: the sort key of the last stream so far. None: begin with the first stream.
        """

    @abstractmethod
    def _do(self, ids: Sequence[int]) -> int | None:
        """Do the work for streams, except for rows that other transactions hold.

        Returns:
            The number of streams that are done. None: the same streams need another step.
        """

    def step(self) -> float | None:
        if not self._groups:
            return self._find_next()
        ids = self._groups.pop()
        began = time.monotonic()
        try:
            done = self._do(ids)
        except Exception as error:
            if passes(error):
                self._after, self._groups = None, []  # begin again with the first stream, later
                raise
            self._split(ids, error)
            return SWEEP_REST
        self._failures.clear(ids)
        if done is None:
            self._groups.append(ids)
        else:
            self._has_done |= done > 0
            self.done += done
            self._fit(len(ids), time.monotonic() - began)
        return SWEEP_REST

    def _find_next(self) -> float | None:
        streams = self.context.read(self._find, self._after, self._size)
        if streams:
            self._after, _ = streams[-1]
            waiting = self._failures.waiting()
            ids = [stream_id for _, stream_id in streams if stream_id not in waiting]
            if ids:
                self._groups.append(ids)
            return READ_REST
        # The end. If anything was done, go through all streams again, because more may have followed from it.
        repeats = self._has_done
        self._after, self._has_done = None, False
        return READ_REST if repeats else None

    def _split(self, ids: Sequence[int], error: Exception) -> None:
        if len(ids) > 1:
            self._groups += [ids[len(ids) // 2 :], ids[: len(ids) // 2]]
        else:
            self._failures.add(ids[0], self.context.name(ids[0]), error)

    def _fit(self, count: int, seconds: float) -> None:
        intended = SHORT_STEP_SECONDS if self.context.is_one else STEP_SECONDS
        if seconds > 2 * intended:
            self._size = max(self._size // 2, 1)
        elif seconds < intended and count >= self._size:
            self._size = min(2 * self._size, MAX_STREAMS)


class ExpiryTask(SweepTask):
    """Ends streams past their deadline, which frees their paths, and tells their readers.

    Args:
        publish: is called with the commits.
    """

    name = "end the expired stream at"

    def __init__(self, context: HousekeepingContext, publish: Callable[[list[Commit]], None]) -> None:
        super().__init__(context)
        self._publish = publish

    def _find(self, after: tuple[datetime, int] | None, limit: int) -> Sequence[tuple[Any, int]]:
        return [(key, key[1]) for key in removal.expired(self.using, after=after, limit=limit)]

    def _do(self, ids: Sequence[int]) -> int:
        commits = self.context.do(removal.expire, self.using, ids=ids)
        self._publish(commits)
        return len(commits)


class RemovalTask(SweepTask):
    """Removes soft-deleted streams without forks."""

    name = "remove the deleted stream at"
    follows_removals = True

    def _find(self, after: int | None, limit: int) -> Sequence[tuple[Any, int]]:
        return [(stream_id, stream_id) for stream_id in removal.unneeded(self.using, after=after or 0, limit=limit)]

    def _do(self, ids: Sequence[int]) -> int:
        return self.context.do(removal.collect, self.using, ids=ids)


class PurgeTask(SweepTask):
    """Deletes the rows of removed streams.

    Nobody waits for their space, so the streams of a second share the steps.
    """

    name = "purge the rows of"
    follows_removals = True
    woken_interval = 1.0

    def _find(self, after: int | None, limit: int) -> Sequence[tuple[Any, int]]:
        return [(stream_id, stream_id) for stream_id in removal.removed(self.using, after=after or 0, limit=limit)]

    def _do(self, ids: Sequence[int]) -> int | None:
        if self.context.do_politely(removal.purge_data, self.using, ids):
            return None
        return self.context.do_politely(removal.purge_streams, self.using, ids)


class FlushTask(HousekeepingTask):
    """Turns staged chunks into chunks (see `store.upkeep.staged_chunks`).

    Args:
        compaction_tracker: counts the new chunks.
    """

    name = "flush the staged chunks of"

    def __init__(self, context: HousekeepingContext, compaction_tracker: CompactionTracker) -> None:
        super().__init__(context)
        self._compaction_tracker = compaction_tracker
        self._failures = HousekeepingFailures(self.name)
        """By block, which waits as a whole."""
        self._block = 0
        self._rest = COMPACTION_REST
        self._portions: Iterator[FlushPortion] = iter(())
        self._groups: list[FlushPortion] = []
        self._has_failed = False

    def step(self) -> float | None:
        portion = self._groups.pop() if self._groups else self.context.read(next, self._portions, None)
        if portion is None:
            return self._next_block()
        try:
            is_flushed = self.context.write(partial(staged_chunks.flush, self.using, portion))
        except Exception as error:
            if passes(error):
                self._portions, self._groups = iter(()), []
                raise
            if len(portion.parts) > 1:
                self._groups += portion.halves()
            else:
                self._fail(portion.parts[0].stream_id, error)
            return self._rest
        if not is_flushed:  # another process flushes the same block
            self._portions, self._groups = iter(()), []
            return None
        self.done += len(portion.ids)
        self._compaction_tracker.flushed(portion.stream_ids)
        return self._rest

    def _next_block(self) -> float | None:
        if self._block and not self._has_failed:
            self._failures.clear([self._block])
        due = self.context.read(staged_chunks.due, self.using, skip=self._failures.waiting())
        if due is None:
            self._block = 0
            return None
        self._block, self._has_failed = due.block, False
        self._rest = URGENT_FLUSH_REST if due.is_urgent else COMPACTION_REST
        self._portions = staged_chunks.portions(self.using, due.block, self._fail)
        return READ_REST

    def _fail(self, stream_id: int, error: Exception) -> None:
        self._has_failed = True
        self._failures.add(self._block, self.context.name(stream_id), error)


class CompactionTask(HousekeepingTask):
    """Replaces small chunks by larger ones (see `store.upkeep.compaction`).

    Args:
        compaction_tracker: says which streams need it.
    """

    name = "compact the chunks of"

    def __init__(self, context: HousekeepingContext, compaction_tracker: CompactionTracker) -> None:
        super().__init__(context)
        self._compaction_tracker = compaction_tracker
        self._failures = HousekeepingFailures(self.name)
        self._portions: Iterator[list[Span]] = iter(())
        self._unfinished: set[int] = set()
        self._groups: list[list[Span]] = []

    def step(self) -> float | None:
        spans = self._groups.pop() if self._groups else self.context.read(next, self._portions, None)
        if spans is None:
            return self._next_streams()
        try:
            mergers = self.context.read(compaction.read, self.using, spans)
            self.done += cast("int", self.context.write(partial(compaction.merge, self.using, mergers)))
        except Exception as error:
            if passes(error):
                self._groups.append(spans)
                raise
            self._split(spans, error)
            return COMPACTION_REST
        self._failures.clear(span.stream_id for span in spans)
        return COMPACTION_REST

    def _next_streams(self) -> float | None:
        due = self._compaction_tracker.take_due() | self._unfinished
        due = (due - self._failures.waiting()) | self._failures.take_due()
        self._unfinished = set()
        self._portions = compaction.portions(self.using, due, self._unfinished)
        return READ_REST if due else None

    def _split(self, spans: list[Span], error: Exception) -> None:
        if len(spans) > 1:
            self._groups += [spans[len(spans) // 2 :], spans[: len(spans) // 2]]
        else:
            stream_id = spans[0].stream_id
            self._unfinished.discard(stream_id)
            self._failures.add(stream_id, self.context.name(stream_id), error)
