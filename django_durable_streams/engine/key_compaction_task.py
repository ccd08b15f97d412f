"""The housekeeping task of key compaction: it finds the streams that need a pass, and makes one pass after the other.

A step reads or replaces some data of one stream. What a pass does is decided by `store.upkeep.key_compaction`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import cast

from ..protocol.globs import Glob
from ..store.upkeep import key_compaction
from ..store.upkeep.key_compaction import Job, Notes
from ..store.upkeep.key_passes import Pass
from .housekeeping_context import HousekeepingContext
from .retention_tasks import PatternTask

PASS_REST = 10.0
"""How many times as long as a step of a pass the task then rests. Requests come first."""

RENEWAL_SECONDS = key_compaction.CLAIM_SECONDS / 5
"""Time after which the claim of a pass is renewed, which may take hours."""

MAX_ATTEMPTS = 5
"""Attempts at one portion whose chunks other transactions hold or merge. Then a later sweep begins the pass again."""


class KeyCompactionTask(PatternTask):
    """Removes messages that later messages with the same key replace."""

    name = "compact the keys of"

    def __init__(self, context: HousekeepingContext) -> None:
        super().__init__(context)
        self._jobs: list[Job] | None = None
        """The passes for the present streams. None: not planned yet."""
        self._pass: Pass | None = None
        self._is_scanned = False
        self._attempts = 0
        self._renewal = 0.0
        """The monotonic time at which the claim of the pass is renewed."""

    def step(self) -> float | None:
        if not self._patterns() and not self._groups:
            return None
        rest = super().step()
        return PASS_REST if rest is not None and self._pass is not None else rest

    def _patterns(self) -> Sequence[Glob]:
        return [pattern for pattern, _ in key_compaction.patterns().patterns]

    def _do(self, ids: Sequence[int]) -> int | None:
        try:
            return self._do_some(ids)
        except BaseException:
            present, self._jobs, self._pass = self._pass, None, None
            if present is not None:  # the streams are planned again at once, maybe each alone
                with suppress(Exception):
                    self._save(present, present.job.notes)
            raise

    def _do_some(self, ids: Sequence[int]) -> int | None:
        if self._jobs is None:
            jobs, changed = self.context.read(key_compaction.plan, self.using, ids)
            if changed:
                self.context.write(partial(key_compaction.save_marks, self.using, changed))
            self._jobs = jobs
        elif self._pass is not None:
            self._go_on(self._pass)
        elif self._jobs:
            job = cast("Job | None", self.context.write(partial(key_compaction.claim, self.using, self._jobs.pop())))
            if job is not None:
                self._pass, self._is_scanned, self._attempts = Pass(self.using, job), False, 0
                self._renewal = time.monotonic() + RENEWAL_SECONDS
        if self._pass is None and not self._jobs:
            self._jobs = None
            return 0
        return None

    def _go_on(self, present: Pass) -> None:
        if time.monotonic() >= self._renewal:
            self._renewal = time.monotonic() + RENEWAL_SECONDS
            if not self._save(present, present.job.notes, key_compaction.now()):
                self._pass = None  # another process makes a pass, or the stream is gone
        elif not self._is_scanned:
            self._is_scanned = not self.context.read(present.scan)
        elif present.is_complete:
            self._finish(present, key_compaction.now())
        else:
            portion = self.context.read(present.find)
            if portion is None:
                self._attempts += 1
            elif not portion.ids or self.context.write(
                partial(key_compaction.replace, self.using, present.job, portion)
            ):
                self._attempts = 0
            else:
                present.repeat()
                self._attempts += 1
            if self._attempts >= MAX_ATTEMPTS:
                self._finish(present, None)

    def _finish(self, present: Pass, moment: int | None) -> None:
        """Write the notes of a pass. `moment`: when it was complete. None: it is given up."""
        self._save(present, present.job.notes if moment is None else present.notes(moment))
        self._pass = None

    def _save(self, present: Pass, notes: Notes, claimed_at: int | None = None) -> bool:
        save = partial(key_compaction.save, self.using, present.job, notes, claimed_at)
        return bool(self.context.write(save))
