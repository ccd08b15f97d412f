"""Work that nobody waits for: ending expired streams, deleting removed ones' rows, gathering and merging chunks."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, Thread
from typing import ParamSpec, TypeVar

from django.db import Error

from ..store import compaction, recent, removal
from ..store.operations import Commit
from ..store.turns import Turn
from .growth import GrowthLog
from .pulse import Pulse

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

INTERVAL = 2.0
"""Seconds between rounds. Expired streams are invisible at once; this only gives their space back."""

PAUSE = 0.01
"""Seconds between two deletions, so that appends come through."""

REST = 30
"""How many times as long as it merges this thread then rests: what people wait for, reads too, comes first."""

BUSY_REST = 6
"""The same for what busy processes leave to be gathered, which must not fall behind."""


class Housekeeper:
    """A thread that cleans up, a little at a time.

    Args:
        pulse: whether the database answers.
        publish: is told of streams that have expired.
        turn: held around each piece of work: whose turn it is to write, where only one can.
        growth: knows whose chunks are to be merged.
        write: has a piece of work done where it disturbs least, and waits for it; None: by this thread.
    """

    def __init__(
        self,
        pulse: Pulse,
        publish: Callable[[list[Commit]], None],
        turn: Turn,
        growth: GrowthLog,
        write: Callable[[Callable[[], object]], object] | None,
    ) -> None:
        self._pulse = pulse
        self._line = pulse.line()
        self._using = self._line.using
        self._publish = publish
        self._turn = turn
        self._growth = growth
        self._write = write or self._do
        self._due = Event()
        self._stopped = Event()
        self._thread = Thread(target=self._run, name="durable-streams-housekeeping", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Start a round soon."""
        self._due.set()

    def count(self, commits: list[Commit]) -> None:
        """Take note of commits: each is a chunk, and many chunks of a stream are to be merged."""
        if self._growth.count(commits):
            self._due.set()

    def crowded(self, stream_ids: set[int]) -> None:
        """Take note of streams that a read has found to have many chunks."""
        self._growth.note(stream_ids)
        self._due.set()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        self._due.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while True:
                self._due.wait(INTERVAL)
                self._due.clear()
                if self._stopped.is_set():
                    return
                if self._pulse.answers:
                    self._clean_up()
        finally:
            self._line.close()

    def _clean_up(self) -> None:
        try:
            self._line.open()
            self._round()
        except Error as error:  # the database is away, or busy: the next round is soon
            logger.debug("Cleaning up failed: %s", error)
        except Exception:  # the thread must outlive every bug
            logger.exception("Cleaning up failed.")
        # A connection for each process is too much for work that comes every few seconds.
        self._line.close()

    def _round(self) -> None:
        while commits := self._do(removal.expire, self._using):
            self._publish(commits)
        while self._do(removal.collect, self._using):
            pass
        self._gather()
        self._compact()
        while self._do(removal.purge, self._using) and not self._stopped.wait(PAUSE):
            pass

    def _gather(self) -> None:
        while (due := self._due_block()) is not None:
            if not self._gather_block(due):
                return

    def _gather_block(self, due: recent.Due) -> bool:
        """Gather a block, and return whether to go on: not if somebody else is at it too, or at the end."""
        portions = recent.portions(self._using, due.block)
        while not self._stopped.is_set():
            with self._resting(BUSY_REST if due.is_urgent else REST):
                with self._line:
                    portion = next(portions, None)
                if portion is None:
                    return True
                if not self._write(partial(recent.gather, self._using, portion)):
                    return False
                self._growth.gathered(portion.stream_ids)
        return False

    def _due_block(self) -> recent.Due | None:
        with self._line:
            return recent.due(self._using)

    def _compact(self) -> None:
        for spans in compaction.portions(self._using, self._growth.take_crowded()):
            if self._stopped.is_set():
                return
            with self._resting(REST):
                with self._line:
                    mergers = compaction.read(self._using, spans)
                self._write(partial(compaction.merge, self._using, mergers))
            self._gather()  # meanwhile there may be more

    def _do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with self._turn.taken(), self._line:
            return work(*args, **kwargs)

    @contextmanager
    def _resting(self, times: float) -> Iterator[None]:
        """Rest after something, so many times as long as it has taken, unless this is the end."""
        began = time.monotonic()
        yield
        self._stopped.wait(times * (time.monotonic() - began))
