"""The changes of chats and runs: synchronous functions, each one transaction.

Invariants, and why they hold at every isolation level:
- A chat has one active run at most: whoever starts one holds the chat's row, and `active_chat` is unique.
- A run begins together with the user's turn, and ends together with its last event: both are in one transaction.
- Only the holder of the present epoch writes: each claim and each end raises the epoch of the run's producer on the
  stream, in the transaction that changes the row. What an earlier holder sends later is refused there.

Rows are locked in one order: chat, run, stream. Knows neither sources nor event loops.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError
from django.db.transaction import on_commit

from ... import clock
from ...api import transactions
from ...conf import config
from ...models import Stream
from ...protocol import content
from ...protocol.errors import ServiceUnavailable, StreamClosed, StreamExists, StreamGone, StreamNotFound
from ...protocol.producers import server_producer
from ...store import encoding
from ...store.operations import Append, Appended, Operation, TakenOver, TakeOver
from ...subscriptions.rows import locked, transaction
from .errors import AnswerRunning
from .events import Event, Failed, Finish, Rewind, Start, Stopped, encode
from .models import Chat, Run
from .start_request import MakesAgain as MakesAgain
from .start_request import StartRequest as StartRequest

logger = logging.getLogger(__name__)

JSON = "application/json"

QUEUE_SECONDS = 60.0
"""How long a run waits for a worker. Then it ends as failed."""

MAX_ATTEMPTS = 5
"""Takeovers of a run that is continued, without a new event. Its source probably ends its process."""

LOST = "The answer was interrupted: the process that wrote it has ended."
NOT_TAKEN = "The answer could not begin: no worker has taken it in time."
FULL = "This server writes as many answers as it may (AI_MAX_RUNS). Try again later."
TOO_OFTEN = "The answer could not be completed: the processes that wrote it have ended again and again."


class Held(NamedTuple):
    """A run that this process has to write, with the producer's state at the takeover."""

    run: Run
    taken_over: TakenOver


UNSEEN = datetime(9000, 1, 1, tzinfo=UTC)
"""The end of a lease that has not begun. A lease begins when another transaction sees the run (`leases.begin`), and not
when the row is written: the transaction that writes it may last for longer than a lease."""


def lease_end(seconds: float | None = None) -> datetime:
    """Return the end of a lease that begins now."""
    return clock.now() + timedelta(seconds=config().ai_lease if seconds is None else seconds)


def first_lease_end(state: str) -> datetime:
    """Return the end of the lease of a run that is seen for the first time.

    Its holder renews it within a quarter of a lease. Processes look for such runs every half of a lease at least. So a
    run whose holder has vanished ends a lease after its commit.
    """
    return lease_end(QUEUE_SECONDS if state == Run.State.QUEUED else config().ai_lease / 2)


def start(request: StartRequest, using: str) -> tuple[Run, TakenOver | None]:
    """Begin a run, or return the active one with `joined` set. The second value is for a run that this process writes.

    Raises:
        AnswerRunning: the chat has an active run, and `if_active` is `refuse`.
        ServiceUnavailable: the process writes as many answers as it may.
        DurableStreamsError: the stream cannot be created or appended to.
        The errors of `check`.
    """
    with transaction(using):
        chat, is_new = _locked_chat(request, using)
        repeated = None if is_new else _repeated(chat, request, using)
        if repeated is not None and not _may_follow(repeated, request, using):
            return repeated, None
        active = None if is_new else _active(chat, using)
        if active is not None and _is_over(active):
            _fail_lost(active, LOST if active.holder else NOT_TAKEN, using)
            active = None
        if active is not None:
            if request.if_active == "refuse":
                raise AnswerRunning("An answer is being written in this chat. Wait for its end, or stop it.")
            active.joined = True
            return active, None
        if not request.has_room:
            raise ServiceUnavailable(FULL, ((b"retry-after", b"5"),))
        again = [] if repeated is None else [Rewind(after=request.turn_id)]
        return _create(chat, request, [*again, *request.turns], using)


def _locked_chat(request: StartRequest, using: str) -> tuple[Chat, bool]:
    """Return the chat with its row locked, and whether this transaction has created it."""
    chats, has_stream = Chat.objects.using(using), True
    stream = Stream.objects.using(using).alive().filter(path=request.path).first()
    if stream is None:
        stream, is_new_stream = Stream.objects.using(using).ensure(request.path, content_type=JSON)
        has_stream = not is_new_stream
    elif not content.is_json(stream.content_type):
        raise StreamExists(f"The stream at {request.path} is no chat: its content type is not {JSON}.")
    chat = locked(chats.filter(stream=stream), using).first() if has_stream else None
    is_new = chat is None
    if not has_stream:  # no other transaction sees the stream
        chat = chats.create(stream=stream, owner=request.owner)
    elif chat is None:
        chat, is_new = chats.get_or_create(stream=stream, defaults={"owner": request.owner})
        chat = locked(chats.filter(pk=chat.pk), using).get()
    assert isinstance(chat, Chat)
    chat.stream = stream
    if request.check is not None:
        request.check(chat, is_new)
    return chat, is_new


def _repeated(chat: Chat, request: StartRequest, using: str) -> Run | None:
    """Return the run that answers the message of a request already, if that counts."""
    if not (request.once and request.turn_id):
        return None
    run = Run.objects.using(using).filter(chat=chat, turn_id=request.turn_id).order_by("-created_at").first()
    if run is not None:
        run.chat, run.joined = chat, True
    return run


def _may_follow(run: Run, request: StartRequest, using: str) -> bool:
    """Whether a repeated request is another attempt. A late copy of it must not take later messages back."""
    runs = Run.objects.using(using).filter(chat=run.chat)
    if run.state == Run.State.DONE and request.makes_again == "any":
        return not runs.filter(turn_id=run.turn_id, message_id=request.message_id).exists()
    may_end_again = run.state in (Run.State.FAILED, Run.State.STOPPED)
    if not may_end_again and not (run.state == Run.State.DONE and request.makes_again == "newest"):
        return False
    return runs.order_by("-created_at").values_list("pk", flat=True).first() == run.pk


def _active(chat: Chat, using: str) -> Run | None:
    run = locked(Run.objects.using(using).filter(active_chat=chat), using).first()
    if run is not None:
        run.chat = chat
    return run


def _is_over(run: Run) -> bool:
    """Whether the lease of an active run has ended, and nobody will continue it."""
    return run.on_lost == Run.OnLost.FAIL and _lease_has_ended(run)


def _lease_has_ended(run: Run, seconds_ago: float = 0.0) -> bool:
    moment = clock.now() - timedelta(seconds=seconds_ago)
    return run.lease_until is None or clock.from_project(run.lease_until) <= moment


def _create(chat: Chat, request: StartRequest, turns: Sequence[Event], using: str) -> tuple[Run, TakenOver | None]:
    """Append the beginning of a run, take its producer over if it has a holder, and create its row."""
    stream = chat.stream
    run = Run(
        chat=chat,
        active_chat=chat,
        state=Run.State.RUNNING if request.holder else Run.State.QUEUED,
        owner=request.owner,
        turn_id=request.turn_id,
        source=request.source,
        arguments=request.arguments,
        on_lost=request.on_lost,
        holder=request.holder,
        lease_until=UNSEEN,
    )
    run.message_id = request.message_id or f"answer-{run.pk}"
    path, begun = _path_of(stream), encoding.encode(JSON, encode(Start(str(run.pk), run.message_id)))
    before = b"".join([encoding.encode(JSON, encode(turn)) for turn in turns])
    operations: list[Operation] = [Append(path, JSON, data, stream_id=stream.pk) for data in (before, begun) if data]
    if request.holder:
        operations.append(TakeOver(path, server_producer(run.producer), stream.pk))
    results = transactions.apply_all(operations, using)
    appended, taken_over = results[1 if before else 0], results[-1] if request.holder else None
    assert isinstance(appended, Appended)
    assert taken_over is None or isinstance(taken_over, TakenOver)
    stream.tail_position = appended.tail
    run.start_offset = stream.offset_at(appended.tail - len(begun))
    run.epoch = 0 if taken_over is None else taken_over.epoch
    try:
        with transaction(using):
            run.save(using=using, force_insert=True)
    except IntegrityError as error:  # another process, in a transaction with an older snapshot
        raise AnswerRunning("An answer has begun in this chat at the same moment.") from error
    return run, taken_over


def _path_of(stream: Stream) -> str:
    path: str | None = stream.path
    if path is None:
        raise StreamNotFound("The chat was deleted.")
    return path


def claim(run_id: UUID, holder: str, using: str) -> Held | None:
    """Take a run that waits for a worker, or whose worker has vanished. None: there is nothing to take.

    A run that was taken too often without a new event ends as failed.
    """
    with transaction(using):
        run = _locked_run(run_id, using)
        if run is None or run.stop_requested:
            return None
        is_new = run.state == Run.State.QUEUED
        if not is_new and not (run.on_lost == Run.OnLost.CONTINUE and run.source and _lease_has_ended(run)):
            return None
        taken_over = _take_over(run, using)
        if taken_over is None:
            return None
        written = taken_over.seq + 1
        run.attempts = 1 if written > run.written else run.attempts + 1
        if run.attempts > MAX_ATTEMPTS:
            _fail_lost(run, TOO_OFTEN, using)
            return None
        if not is_new:
            _log_lost(run, f"This process continues it: attempt {run.attempts}.", logging.INFO, using)
        run.state, run.holder, run.epoch, run.written = Run.State.RUNNING, holder, taken_over.epoch, written
        run.lease_until = UNSEEN
        run.save(using=using, update_fields=["state", "holder", "epoch", "written", "attempts", "lease_until"])
    return Held(run, taken_over)


def queue_again(run_id: UUID, using: str) -> bool:
    """Let a worker take a run whose worker has vanished. Return False if there is no such run, or it waits already."""
    with transaction(using):
        run = _locked_run(run_id, using)
        if run is None or run.state == Run.State.QUEUED or not _lease_has_ended(run):
            return False
        run.state, run.holder, run.lease_until = Run.State.QUEUED, "", UNSEEN
        run.save(using=using, update_fields=["state", "holder", "lease_until"])
        _log_lost(run, "It waits for a worker again.", logging.INFO, using)
        return True


def end(run_id: UUID, epoch: int, event: Finish | Stopped | Failed, using: str) -> bool:
    """End a run that this process writes. Return False if it has ended already, or another process has it."""
    with transaction(using):
        run = _locked_run(run_id, using)
        if run is None or run.epoch != epoch:
            return False
        _end(run, event, using)
        return True


def close_lost(run_id: UUID, using: str) -> bool:
    """End a run that nobody writes any more: its lease has ended, or it was stopped before a worker took it.

    Returns False if there is nothing to end, or the run is to be continued.
    """
    with transaction(using):
        run = _locked_run(run_id, using)
        if run is None:
            return False
        is_queued = run.state == Run.State.QUEUED
        if run.stop_requested and (is_queued or _lease_has_ended(run)):
            _end(run, Stopped(str(run.pk)), using)
            if not is_queued:
                _log_lost(run, "It has ended as stopped.", logging.INFO, using)
        elif is_queued and _lease_has_ended(run):
            _fail_lost(run, NOT_TAKEN, using)
        elif _is_over(run) or (_lease_has_ended(run) and not run.source) or _lease_has_ended(run, QUEUE_SECONDS):
            _fail_lost(run, LOST, using)
        else:
            return False
        return True


def _fail_lost(run: Run, error: str, using: str) -> None:
    """End a run that nobody writes as failed."""
    _end(run, Failed(str(run.pk), error), using)
    _log_lost(run, f"It has failed: {error}", logging.WARNING, using)


def _log_lost(run: Run, outcome: str, level: int, using: str) -> None:
    """Log the outcome of a run that nobody writes, when it is committed."""
    path = run.chat.stream.path or "a deleted chat"
    text = "Nobody writes the answer %s in %s any more. %s"
    on_commit(lambda: logger.log(level, text, run.pk, path, outcome, extra={"stream_path": path}), using)


def _locked_run(run_id: UUID, using: str) -> Run | None:
    """Return an active run with its row locked, and that of its chat."""
    try:
        chat_id = Run.objects.using(using).values_list("chat_id", flat=True).get(pk=run_id)
        chat = locked(Chat.objects.using(using).filter(pk=chat_id), using).get()
        chat.stream = Stream.objects.using(using).get(pk=chat.stream_id)
        run: Run = locked(Run.objects.using(using).filter(pk=run_id), using).get()
    except ObjectDoesNotExist:  # the chat was deleted
        return None
    run.chat = chat
    return run if run.active_chat_id is not None else None


def _take_over(run: Run, using: str) -> TakenOver | None:
    """Begin the next epoch of the run's producer, which fences earlier holders. None: the stream is gone or closed."""
    stream = run.chat.stream
    if stream.path is None:
        return None
    operation = TakeOver(stream.path, server_producer(run.producer), stream.pk)
    try:
        result = transactions.apply(operation, using)
    except (StreamNotFound, StreamGone):
        return None
    assert isinstance(result, TakenOver)
    return None if result.closed else result


def _end(run: Run, event: Finish | Stopped | Failed, using: str) -> None:
    match event:
        case Finish():
            run.state = Run.State.DONE
        case Stopped():
            run.state = Run.State.STOPPED
        case Failed(_, error):
            run.state, run.error = Run.State.FAILED, error
    run.active_chat, run.lease_until, run.ended_at = None, None, clock.to_project(clock.now())
    run.save(using=using, update_fields=["state", "error", "active_chat", "lease_until", "ended_at"])
    if _take_over(run, using) is not None:
        try:
            run.chat.stream.append(encode(event))
        except (StreamClosed, StreamNotFound, StreamGone):  # it has ended for its readers in another way
            pass
