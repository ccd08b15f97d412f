"""The housekeeping tasks of retention: find what has to go, and delete what was trimmed.

The trims themselves are operations, which go through the committers like all others, because a committer may have the
row of a stream cached. So an append waits for a trim no longer than for another append.
"""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from ..protocol.errors import DurableStreamsError
from ..protocol.globs import Glob
from ..runtime.results import ResultCallback
from ..store.operations import Trim
from ..store.upkeep import retention, trimming
from .housekeeping_context import HousekeepingContext
from .housekeeping_tasks import SweepTask

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
"""Shortest time between two sweeps through the streams with rules. Each of them compares streams that have not changed,
too."""

KEPT_SECONDS = 60.0
"""Time until data that forks need, or that cannot be deleted now, is looked at again."""


class _Unheard:
    """The callback of a trim. If the trim was refused, the next sweep finds out what is still to do."""

    def prepare(self, value: object) -> None:
        """Prepare nothing, because no caller waits."""

    def resolve(self, value: object) -> None:
        """Log a failure, which is no problem of the stream: it may just have been deleted."""
        if isinstance(value, Exception):
            logger.debug("A stream was not trimmed, and may be later: %s", value)


class PatternTask(SweepTask):
    """A task that goes through the streams with rules: first those with their own, then those of each pattern."""

    def __init__(self, context: HousekeepingContext) -> None:
        super().__init__(context)
        self._next_sweep = 0.0

    @abstractmethod
    def _patterns(self) -> Sequence[Glob]:
        """Return the patterns of the setting."""

    def _with_own_rules(self, after: int, limit: int) -> Sequence[int]:
        """Return the ids of streams with rules of their own, in order, after the id `after`."""
        return ()

    def step(self) -> float | None:
        now = time.monotonic()
        if self._after is None and not self._groups:
            if now < self._next_sweep:
                return None
            self._next_sweep = now + SWEEP_SECONDS
        return super().step()

    def _find(self, after: tuple[int, Any] | None, limit: int) -> Sequence[tuple[Any, int]]:
        stage, key = after if after is not None else (0, None)
        patterns = self._patterns()
        while stage <= len(patterns):
            if stage == 0:
                ids = self._with_own_rules(key or 0, limit)
                streams: list[tuple[Any, int]] = [((0, stream_id), stream_id) for stream_id in ids]
            else:
                rows = retention.with_pattern(self.using, patterns[stage - 1], key or "", limit)
                streams = [((stage, path), stream_id) for path, stream_id in rows]
            if streams:
                return streams
            stage, key = stage + 1, None
        return []


class RetentionTask(PatternTask):
    """Applies the rules of retention.

    Args:
        trim: queues the trim of a stream.
    """

    name = "apply the retention of"

    def __init__(self, context: HousekeepingContext, trim: Callable[[Trim, ResultCallback], None]) -> None:
        super().__init__(context)
        self._trim = trim

    def _patterns(self) -> Sequence[Glob]:
        return [pattern for pattern, _ in retention.patterns().patterns]

    def _with_own_rules(self, after: int, limit: int) -> Sequence[int]:
        return retention.with_own_rules(self.using, after, limit)

    def _do(self, ids: Sequence[int]) -> int | None:
        plans, is_unfinished = self.context.read(retention.plan, self.using, ids)
        if plans:
            self.context.write(partial(retention.save, self.using, plans))
        for trim in retention.trims(plans):
            try:
                self._trim(trim, _Unheard())
            except DurableStreamsError as error:  # too many operations wait
                logger.debug("A stream was not trimmed, and may be later: %s", error)
                return 0
            self.done += 1
        return None if is_unfinished else 0


class TrimmingTask(SweepTask):
    """Deletes trimmed data."""

    name = "delete the trimmed data of"

    def __init__(self, context: HousekeepingContext) -> None:
        super().__init__(context)
        self._kept: dict[int, float] = {}
        """Streams whose data is kept for now, and the monotonic time at which to look again."""

    def _find(self, after: int | None, limit: int) -> Sequence[tuple[Any, int]]:
        return [(stream_id, stream_id) for stream_id in trimming.trimmed(self.using, after or 0, limit)]

    def _do(self, ids: Sequence[int]) -> int | None:
        now = time.monotonic()
        self._kept = {stream_id: until for stream_id, until in self._kept.items() if until > now}
        wanted = [stream_id for stream_id in ids if stream_id not in self._kept]
        if not wanted:
            return 0
        portion = self.context.read(trimming.find, self.using, wanted)
        if portion.chunk_ids or portion.cuts:
            if self.context.write(partial(trimming.delete, self.using, portion)):
                return None
            self._kept |= dict.fromkeys(wanted, now + KEPT_SECONDS)  # a chunk is damaged, or held for long
            return 0
        self._kept |= dict.fromkeys(portion.kept, now + KEPT_SECONDS)
        if portion.done:
            self.context.write(partial(trimming.finish, self.using, portion.done))
        return len(portion.done)
