"""Handles the pending messages of consumers, in the thread that calls it and on the project's own connections.

Each batch is one transaction: the handler, and the move of the cursor. A batch that fails is tried again after a time.
When it has failed often enough, its messages are tried one by one, and the one that fails is parked, or stops its
stream. An error of the connection or of a lock says nothing of the message, so it never counts.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from django.db import Error

from ...runtime import log_once, project_connections
from ...runtime.database_errors import FailureKind, diagnose
from ...store.read import log_reader
from ...store.stream_info import StreamInfo
from ..backoff import backoff
from ..pending import look_at_unseen
from . import cursors, parking
from .attempts import moving
from .batch_size import BatchSizer
from .candidates import Candidates
from .cursors import Claim, ClaimLost
from .declarations import Consumer
from .failures import AttemptsConnection, Cause, find_cause, is_of_handler
from .isolation import read_committed
from .messages import Batch, StoredMessage, decode_all
from .reading import StreamReader

logger = logging.getLogger(__name__)

TURN_SECONDS = 1.0
"""How long a worker goes on with one stream while others wait."""

FEW_CONSUMERS = 3
"""Consumers whose links are queried one by one. Of more, one query finds those that have any."""

UNREADABLE_SECONDS = 10.0
"""Time until another attempt to read a stream whose data is damaged."""

TRANSIENT_SECONDS = 1.0
"""Time until another attempt after an error of the database."""

WARNING_SECONDS = 60.0


class WorkerEnded(Exception):
    """The error of a message during which workers have ended again and again."""


class CursorTaken(Exception):
    """The error of a handler that has changed its own cursor: it replaced its stream, or replayed its consumer."""


class Report(NamedTuple):
    """The outcome of one batch."""

    consumer: str
    stream: str
    outcome: str
    """`handled`, `failed`, `parked`, `not parked` or `stopped`."""
    messages: int
    """Number of messages of the batch."""
    seconds: float


Hold = Callable[[Claim], AbstractContextManager[object]]


class Runner:
    """Handles messages of some consumers of one database.

    Args:
        consumers: the consumers, by the keys of their subscriptions.
        using: alias of the database.
        hold: renews the lease of a claim during a block.
        report: gets the outcome of each batch.
        delay: seconds until the next attempt, after a number of failures.
        raises: whether the error of a handler ends the run. The claim is given back, and the failure does not count.
    """

    def __init__(
        self,
        consumers: Mapping[int, Consumer],
        using: str,
        *,
        hold: Hold | None = None,
        report: Callable[[Report], None] | None = None,
        delay: Callable[[int], float] = backoff,
        raises: bool = False,
    ) -> None:
        self.consumers = consumers
        self.is_stopping = False
        self.is_held_up = False
        """Whether the last step has left something to another transaction. No message tells when that ends."""
        self._using = using
        self._hold: Hold = hold or (lambda claim: nullcontext())
        self._report = report or (lambda report: None)
        self._delay = delay
        self._raises = raises
        # Each worker begins somewhere else, so that they do not race for the same streams.
        self._order = deque(random.sample([*consumers], len(consumers)))
        self._candidates = {key: Candidates(key, using) for key in consumers}
        self._unreleased: list[Claim] = []
        self._sizers = {key: BatchSizer(consumer.batch_size) for key, consumer in consumers.items()}
        self._connection = AttemptsConnection(using)
        self._warnings = log_once.LogOnce(WARNING_SECONDS)

    def step(self) -> bool:
        """Handle messages of one stream, for about a second. Return whether there was one to take.

        Raises:
            django.db.Error: the database does not answer, or is busy. Try again.
            Exception: a handler has failed, and `raises` is set.
        """
        for unreleased in [*self._unreleased]:  # one that another transaction holds must not delay the others
            if cursors.release_unless_locked(unreleased, self._using):
                self._unreleased.remove(unreleased)
        with read_committed(self._using):
            self._look()
            held = self._claim()
        if held is None:
            return False
        consumer = self.consumers[held.subscription_id]
        try:
            self._take_turn(consumer, held)
        except ClaimLost:
            logger.info("Another worker, or a reset, has taken %s from the consumer %s.", held.path, consumer.name)
        except BaseException:
            self._unreleased.append(held)
            raise
        return True

    def _look(self) -> None:
        """Mark the streams with new messages. If a transaction holds one of the rows, the marks follow later."""
        self.is_held_up = True
        try:
            self.is_held_up = look_at_unseen(self._using).is_held_up
        except Error as error:
            if diagnose(error) is not FailureKind.BUSY:
                raise
            logger.debug("Another transaction holds a row that a look needs: %s", error)

    def _claim(self) -> Claim | None:
        """Take a stream of the next consumer that has one."""
        has_many = len(self._order) > FEW_CONSUMERS
        worthwhile = set(cursors.with_pending(self._order, self._using) if has_many else self._order)
        for _ in range(len(self._order)):
            subscription_id = self._order[0]
            self._order.rotate(-1)
            held = self._claim_of(subscription_id) if subscription_id in worthwhile else None
            if held is not None:
                return held
        return None

    def _claim_of(self, subscription_id: int) -> Claim | None:
        """Take the next stream of a consumer."""
        consumer = self.consumers[subscription_id]
        for link in self._candidates[subscription_id]:
            # Workers with another version of the code may have given the subscription another pattern.
            if not consumer.follows(link.path):
                continue
            held = cursors.claim(link, consumer.lease, self._using)
            if held is not None:
                return held
            self.is_held_up = True
        return None

    def _take_turn(self, consumer: Consumer, held: Claim) -> None:
        infos = {} if held.stream_id is None else log_reader.find_ids([held.stream_id], self._using)
        info = infos.get(held.stream_id or 0)
        if info is None:
            cursors.finish(held, 0, self._using)
            return
        reader = StreamReader(info, held.position, self._using)
        until = time.monotonic() + TURN_SECONDS
        while True:
            try:
                stored = reader.take(self._sizers[held.subscription_id].size)
            except Error:
                raise
            except Exception as error:  # its data is damaged, or it was just removed: other streams go on
                logger.warning("The consumer %s could not read %s: %s", consumer.name, info.path, error)
                cursors.fail(held, parking.describe(error), UNREADABLE_SECONDS, self._using)
                return
            if stored and not self._handle(consumer, held, info, stored):
                return
            is_over = self.is_stopping or time.monotonic() >= until
            if not stored:
                more = cursors.finish(held, info.tail, self._using, passed=reader.position, goes_on=not is_over)
                if more is None:
                    return
                info = reader.info = more
            elif is_over:
                cursors.release(held, self._using)
                return

    def _handle(self, consumer: Consumer, held: Claim, info: StreamInfo, stored: Sequence[StoredMessage]) -> bool:
        """Handle a batch, with all that its failure causes. Return whether the claim still holds the stream."""
        if held.has_vanished and held.failures > consumer.max_attempts + 1:  # two workers tried the first one alone
            error = WorkerEnded(cursors.WORKER_VANISHED)
            return self._give_up(consumer, held, info, stored[0], error)
        if held.failures < consumer.max_attempts:
            failure = self._attempt(consumer, held, info, stored, failures=0)
            if failure is None:
                return True
            if self._is_excused(failure, held):
                return self._try_later(consumer, held, failure)
            held.failures += 1
            logger.warning(
                "The consumer %s failed on %s, attempt %d of %d.",
                consumer.name,
                info.path,
                held.failures,
                consumer.max_attempts,
                exc_info=failure,
                extra=_fields(consumer, info),
            )
            if held.failures < consumer.max_attempts:
                cursors.fail(held, parking.describe(failure), self._delay(held.failures), self._using)
                return False
            cursors.note_failures(held, parking.describe(failure), self._using)
            if len(stored) == 1:
                return self._give_up(consumer, held, info, stored[0], failure)
        return self._handle_one_by_one(consumer, held, info, stored)

    def _handle_one_by_one(
        self, consumer: Consumer, held: Claim, info: StreamInfo, stored: Sequence[StoredMessage]
    ) -> bool:
        """Find the message of a batch that fails. The failures stay until the batch is over, however workers end."""
        kept = min(held.failures, consumer.max_attempts)
        for number, message in enumerate(stored, 1):
            if self.is_stopping and number > 1:  # another worker goes on, one by one
                break
            failure = self._attempt(consumer, held, info, [message], failures=0 if number == len(stored) else kept)
            if failure is not None:
                if self._is_excused(failure, held):
                    return self._try_later(consumer, held, failure)
                return self._give_up(consumer, held, info, message, failure)
        return True

    def _attempt(
        self, consumer: Consumer, held: Claim, info: StreamInfo, stored: Sequence[StoredMessage], *, failures: int
    ) -> BaseException | None:
        """Call the handler and move the cursor, in one transaction. Return the error that has rolled it back.

        Raises:
            ClaimLost: the claim does not hold the stream any more. The transaction was rolled back.
        """
        began = time.monotonic()
        position = stored[-1].end
        is_called = False
        failure: BaseException | None = None
        self._connection.begin()
        try:
            with self._hold(held), moving(held, position, self._using, failures=failures):
                is_called = True
                consumer.handle(self._batch(consumer, info, stored))
        except BaseException as error:
            if not is_of_handler(error):
                raise
            failure = error
        if failure is not None and held.position == position:
            logger.error(
                "A function that the consumer %s had registered for its commit failed.", consumer.name, exc_info=failure
            )
            failure = None
        if isinstance(failure, ClaimLost):
            if not (is_called and cursors.renew(held, self._using)):
                raise failure
            failure = CursorTaken("The handler has changed its own cursor. Let other code do this.")
        seconds = time.monotonic() - began
        if failure is None:
            self._sizers[held.subscription_id].note(len(stored), seconds)
        outcome = "handled" if failure is None else "failed"
        self._report(Report(consumer.name, info.path, outcome, len(stored), seconds))
        if failure is not None and self._raises:
            cursors.release(held, self._using)
            raise failure
        return failure

    def _batch(self, consumer: Consumer, info: StreamInfo, stored: Sequence[StoredMessage]) -> Batch:
        messages = decode_all(stored, info.content_type, consumer.upcasters, consumer.message_type)
        return Batch(info.path, info.content_type, messages, [message.offset for message in stored], self._using)

    def _is_excused(self, error: BaseException, held: Claim) -> bool:
        """Return whether an error says nothing of the message and its handler."""
        cause = find_cause(error, self._connection)
        project_connections.close_other_connections(self._using, only_broken=True)
        return cause is Cause.BUSY or (cause is Cause.LOST and not self._connection.is_lost_too_often(held))

    def _try_later(self, consumer: Consumer, held: Claim, error: BaseException) -> bool:
        level = logging.WARNING if self._warnings.is_due() else logging.INFO
        logger.log(level, "The consumer %s could not use the database, and tries again: %s", consumer.name, error)
        delay = TRANSIENT_SECONDS * random.uniform(0.5, 1.0)
        cursors.fail(held, parking.describe(error), delay, self._using)
        return False

    def _give_up(
        self, consumer: Consumer, held: Claim, info: StreamInfo, message: StoredMessage, error: BaseException
    ) -> bool:
        """Park a message, or stop its stream."""
        began = time.monotonic()
        if consumer.on_failure == "stop":
            cursors.stop(held, parking.describe(error), self._using)
            logger.error(
                "The consumer %s has stopped at %s of %s. Set it right, and run `manage.py streams resume %s`.",
                consumer.name,
                message.offset,
                info.path,
                consumer.name,
                exc_info=error,
                extra=_fields(consumer, info),
            )
            self._report(Report(consumer.name, info.path, "stopped", 1, time.monotonic() - began))
            return False
        try:
            with moving(held, message.end, self._using, failures=0):
                parking.park(consumer, info, message, error, self._using)
        except ClaimLost:
            raise
        except Exception as problem:
            logger.exception("The consumer %s could not park a message of %s.", consumer.name, info.path)
            self._report(Report(consumer.name, info.path, "not parked", 1, time.monotonic() - began))
            cursors.fail(held, parking.describe(problem), self._delay(held.failures), self._using)
            return False
        logger.error(
            "The consumer %s has parked the message before %s of %s in %s.",
            consumer.name,
            message.offset,
            info.path,
            consumer.dead_letters,
            exc_info=error,
            extra=_fields(consumer, info),
        )
        self._report(Report(consumer.name, info.path, "parked", 1, time.monotonic() - began))
        cursors.release(held, self._using)
        return False


def _fields(consumer: Consumer, info: StreamInfo) -> dict[str, str]:
    """Return the attributes of a log record, for `extra`."""
    return {"consumer": consumer.name, "stream_path": info.path}
