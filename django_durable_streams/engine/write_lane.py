"""Writing for many requests at once: group commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

from ..store.batch import LOCKED
from ..store.operations import Commit, Operation
from ..store.turns import Turn
from .applier import Applier
from .lane import Lane, Parcel, settle
from .patience import Patience, Waiting
from .pulse import Pulse

BATCH_SIZE = 512
"""Most operations in one transaction, about."""

LANE_LOCK_MS = 100
"""How long a lane waits for a lock, in milliseconds: for the path of a stream that somebody else is creating."""

PATIENT_LOCK_MS = 100
"""How long the patient thread waits for one stream's row before it tries the others again."""

LOCK_SECONDS = 1
"""The same for both where the database counts in seconds."""


class WriteLane(Lane[Operation]):
    """A lane that applies operations in one transaction and tells of the commit.

    Args:
        pulse: whether the database answers.
        committed: is called in the lane's thread with what a transaction changed, once that is committed.
        turn: held around each transaction: whose turn it is to write, where only one can.
        is_busy: returns whether so much is appended that small chunks should wait to be gathered.
        is_heard: returns whether somebody wants to know of streams that are made with nothing in them.
    """

    holds_answers = True

    def __init__(
        self,
        name: str,
        pulse: Pulse,
        queue_size: int,
        committed: Callable[[list[Commit]], None],
        turn: Turn,
        is_busy: Callable[[], bool],
        is_heard: Callable[[], bool],
    ) -> None:
        patient = Applier(pulse.line(LOCK_SECONDS), pulse, turn, committed, PATIENT_LOCK_MS)
        self._patience = Patience(f"{name}-patient", patient)
        line = pulse.line(LOCK_SECONDS)
        self._applier = Applier(
            line,
            pulse,
            turn,
            committed,
            LANE_LOCK_MS,
            self._patience.held,
            self.tell,
            is_busy,
            self.announce,
            is_heard,
        )
        super().__init__(name, line, self._applier.apply, queue_size, BATCH_SIZE)

    def write(self, work: Callable[[], object]) -> object:
        """Have something else written over the lane's connection, and wait for it."""
        return self.between(partial(self._applier.run, work))

    def stop(self) -> None:
        super().stop()
        self._patience.stop()

    def _answer(self, parcel: Parcel[Operation], values: Sequence[object]) -> None:
        if not any(value is LOCKED for value in values):
            super()._answer(parcel, values)
            return
        now = time.monotonic()
        answered = []
        waiting = []
        for operation, receiver, value in zip(parcel.tasks, parcel.receivers, values, strict=True):
            if value is LOCKED:
                waiting.append(Waiting(operation, parcel.loop, receiver, now))
            else:
                answered.append((receiver, value))
        self._patience.add(waiting)
        if answered:
            receivers, done = zip(*answered, strict=True)
            settle(parcel.loop, receivers, done)
