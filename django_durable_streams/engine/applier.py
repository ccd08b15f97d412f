"""Applying operations over one line: together and, where that fails, so that none fails for another's sake."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TypeVar

from django.db import Error, IntegrityError, connections

from ..protocol.errors import BadRequest, ServiceUnavailable
from ..store import writing
from ..store.batch import LOCKED, Outcome
from ..store.known import KnownStreams
from ..store.operations import Commit, Operation
from ..store.turns import Turn
from .database import Trouble, diagnose
from .line import Line
from .pulse import Pulse

logger = logging.getLogger(__name__)

T = TypeVar("T")

MOST_LOST = 3
"""Connections that one batch may lose before the rest of it is refused: some operation may be what kills them."""

TRIES = 3
"""How often an operation is tried that finds a row where there was none: somebody else has made it meanwhile."""


def nothing_held(paths: Iterable[str]) -> Collection[str]:
    """Say of no path that its operations wait elsewhere."""
    return ()


class Applier:
    """Applies operations, and says of each what became of it: a result, an error, or LOCKED.

    Args:
        line: the connection of the thread that does it.
        pulse: whether the database answers.
        turn: held around each transaction: whose turn it is to write, where only one can.
        committed: is called with what a transaction changed, once that is committed.
        lock_ms: how long to wait for locks, in milliseconds.
        held: returns those of some paths whose operations are LOCKED in any case.
        waits: is called before it waits for anybody or anything, the commit at the latest.
        is_busy: returns whether so much is appended that small chunks should wait to be gathered.
        announce: is given the outcomes of a transaction before that is committed.
        is_heard: returns whether somebody wants to know of streams that are made with nothing in them.
    """

    def __init__(
        self,
        line: Line,
        pulse: Pulse,
        turn: Turn,
        committed: Callable[[list[Commit]], None],
        lock_ms: int,
        held: Callable[[Iterable[str]], Collection[str]] = nothing_held,
        waits: Callable[[], None] | None = None,
        is_busy: Callable[[], bool] = bool,
        announce: Callable[[Sequence[object]], None] | None = None,
        is_heard: Callable[[], bool] = lambda: True,
    ) -> None:
        self.line = line
        self._pulse = pulse
        self._turn = turn
        self._committed = committed
        self._lock_ms = lock_ms
        self._held = held
        self._waits = waits
        self._is_busy = is_busy
        self._announce = announce
        self._is_heard = is_heard
        self._known = KnownStreams()

    def apply(self, operations: Sequence[Operation], *, wait: bool = False) -> Sequence[object]:
        """Apply operations and return their outcomes.

        Args:
            wait: whether to wait for rows that another transaction holds.
        """
        if not self._pulse.answers:
            return self._away(len(operations))
        with self.line:
            outcomes = self._try(operations, wait)
            if isinstance(outcomes, Exception) and diagnose(outcomes) is Trouble.AWAY:
                # The connection may have been dead for long. Nothing was changed, so once more with another one.
                if not self._reconnect():
                    return self._away(len(operations))
                outcomes = self._try(operations, wait)
            if not isinstance(outcomes, Exception):
                return outcomes
            refusal = self._pulse.adviser.refusal(outcomes)
            if refusal is not None:
                return [refusal] * len(operations)
            if diagnose(outcomes) is Trouble.BUSY and not connections[self.line.using].features.has_select_for_update:
                return [LOCKED] * len(operations)  # all of SQLite is, for each of them
            return self._apart(operations, wait)

    def run(self, work: Callable[[], T]) -> T:
        """Have something else written over the line.

        Raises:
            django.db.Error: there is no connection to be had.
        """
        with self.line, self._turn.taken():
            self.line.open()
            return work()

    def _try(self, operations: Sequence[Operation], wait: bool) -> Sequence[object] | Exception:
        """Apply operations together; return the error where that changed nothing."""
        try:
            if self._waits is not None and not self._known.is_alone:
                self._waits()
            with self._turn.taken(self._waits):
                self.line.open()
                held = self._held(operation.path for operation in operations)
                outcomes, commits = writing.apply(
                    operations,
                    self.line.using,
                    wait=wait,
                    held=held,
                    lock_ms=self._lock_ms,
                    known=self._known,
                    recent=self._is_busy(),
                    waits=self._waits,
                    announce=self._announce,
                    is_heard=self._is_heard,
                )
        except writing.CommitUncertain as error:
            if isinstance(error.__cause__, Error) and diagnose(error.__cause__) is not Trouble.AWAY:
                return error.__cause__  # it said no
            logger.error("The connection was lost during a commit of %d operations.", len(operations))
            self.line.close()
            return [ServiceUnavailable("The database did not confirm this. Try again.")] * len(operations)
        except (Error, ValueError) as error:
            if diagnose(error) in (Trouble.AWAY, Trouble.SETUP):  # another connection may lead to where it is right
                self.line.close()
            return error
        if commits:
            self._committed(commits)
        return self._again(operations, outcomes, wait) if self._known.was_wrong else outcomes

    def _again(self, operations: Sequence[Operation], outcomes: Sequence[object], wait: bool) -> Sequence[object]:
        """Apply those operations with a look at their streams that were LOCKED because they had not had one."""
        self._known.was_wrong = False
        redone = self._try(
            [operation for operation, outcome in zip(operations, outcomes, strict=True) if outcome is LOCKED], wait
        )
        if isinstance(redone, Exception):
            return outcomes
        found = iter(redone)
        return [next(found) if outcome is LOCKED else outcome for outcome in outcomes]

    def _apart(self, operations: Sequence[Operation], wait: bool) -> Sequence[object]:
        """Apply operations one by one."""
        outcomes: list[object] = []
        locked: set[str] = set()
        lost = 0
        for operation in operations:
            # Behind one that waits: a stream's requests keep their order.
            outcome = LOCKED if operation.path in locked else self._one(operation, wait)
            if outcome is LOCKED:
                locked.add(operation.path)
            outcomes.append(outcome)
            if isinstance(outcome, ServiceUnavailable):
                lost += 1
                if lost == MOST_LOST or not self._reconnect():
                    return [*outcomes, *self._away(len(operations) - len(outcomes))]
        return outcomes

    def _one(self, operation: Operation, wait: bool) -> object:
        tries = 1
        while isinstance(outcomes := self._try([operation], wait), IntegrityError) and tries < TRIES:
            tries += 1
        return _meaning(outcomes) if isinstance(outcomes, Exception) else outcomes[0]

    def _away(self, count: int) -> list[object]:
        return [self._pulse.refusal()] * count

    def _reconnect(self) -> bool:
        """Connect, if there is no connection; return whether there is one."""
        try:
            if self._pulse.answers:
                self.line.open()
                return True
        except Error as error:
            self.line.close()
            self._pulse.suspect(error)
        return False


def _meaning(error: Exception) -> Outcome:
    """Return what an error is for the one operation that met it."""
    match diagnose(error):
        case Trouble.BUSY:
            return LOCKED
        case Trouble.AWAY | Trouble.SETUP:
            logger.error("The database could not do this: %s", error)
            return ServiceUnavailable("The database could not do this. Try again.")
        case Trouble.REFUSED:
            logger.warning("The database does not take this: %s", error)
            return BadRequest("The request has something that cannot be stored.")
