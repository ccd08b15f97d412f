"""Start an answer that outlives the request: `run = await start_answer("chats/1", source, user=request.user)`.

The source writes into the chat's stream from a place that no request and no reader ends. Every reader of the stream
follows it, from the beginning if it comes late.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, Protocol

from asgiref.sync import sync_to_async
from django.db import IntegrityError, OperationalError, connections

from ...conf import config
from ...models import Stream
from ...protocol import arguments as checked
from ...runtime.caller_transaction import in_callers_transaction, on_commit
from ...runtime.database_errors import FailureKind, diagnose
from ...store.operations import TakenOver
from . import rows
from .errors import AnswerError, AnswerRunning
from .events import Event
from .models import Chat, Run, database
from .service import answers_of
from .sources import AnswerContext, Source, is_dotted
from .task_queue import enqueue
from .wakeups import tell_runners_now

__all__ = [
    "Answer",
    "AnswerContext",
    "AnswerError",
    "AnswerRunning",
    "Chat",
    "Run",
    "start_answer",
    "start_answer_sync",
]

TRIES = 3
"""Attempts to start a run. One fails if another process begins a chat at the same path meanwhile, or holds a lock."""


class User(Protocol):
    """A user as Django has it: all that counts is the primary key."""

    pk: Any


@dataclass(frozen=True, slots=True)
class Answer:
    """What to answer with, and how.

    Attributes:
        source: an iterator of texts and events, a function that returns one and takes an `AnswerContext`, or the dotted
            path of such a function. Only with a dotted path can another process write the answer.
        arguments: JSON arguments for the function, besides the context.
        on_lost: what happens if the process that writes the answer vanishes. `fail` ends the answer as failed.
            `continue` calls the function of a dotted path again, in another process, with `context.written`.
        message_id: the id of the answer's message. Empty: a new one.
    """

    source: Source
    arguments: Mapping[str, Any] = field(default_factory=dict)
    on_lost: Literal["fail", "continue"] = "fail"
    message_id: str = ""

    def __post_init__(self) -> None:
        if self.on_lost not in ("fail", "continue"):
            raise ValueError("on_lost is 'fail' or 'continue'.")
        if not is_dotted(self.source) and (self.on_lost == "continue"):
            raise ValueError("Only the dotted path of a source can be continued by another process.")

    def stored(self) -> dict[str, Any]:
        """Return what the row of the run keeps of it."""
        return {
            "message_id": self.message_id or f"msg-{uuid.uuid4().hex}",
            "source": self.source if isinstance(self.source, str) else "",
            "arguments": dict(self.arguments),
            "on_lost": self.on_lost,
        }


def start_answer_sync(
    chat: Chat | Stream | str,
    answer: Answer | Source,
    *,
    user: User | None = None,
    turns: Sequence[Event] = (),
    if_active: Literal["join", "refuse"] = "join",
    once: bool = False,
) -> Run:
    """Start an answer in a chat, and return its run at once.

    It takes part in the caller's transaction: the turns, the run and the beginning of the answer are committed
    together, and the source is called after the commit. The source of a dotted path runs where `AI_RUNS_IN` says. Any
    other source runs in this process. If it is asynchronous, it runs in the background loop, so it must not block.

    Args:
        chat: the chat, its stream, or the path of its stream. Where there is no chat, it is created: with a new stream,
            or on the JSON stream that is there, whose events count as its messages.
        answer: the source, or an `Answer` with more options.
        user: who starts the answer, and owns a chat that is created.
        turns: events to append before the answer: the user's `Message`, or a `Rewind`.
        if_active: what to do if an answer is being written in the chat: `join` returns its run with `joined` set, and
            leaves the turns out. `refuse` raises `AnswerRunning`.
        once: whether a run that answers the last message of the turns already is returned in the same way, even if it
            is done. So a request that is sent again gets the same answer. If that has failed or was stopped, another
            one takes its place.

    Raises:
        AnswerRunning: see `if_active`.
        ServiceUnavailable: the answer is to be written here, and this process writes `AI_MAX_RUNS` answers already.
        DurableStreamsError: the path is invalid, or its stream cannot be appended to.
    """
    return start_checked(chat, answer, StartOptions(user, turns, if_active, once))


@dataclass(frozen=True, slots=True)
class StartOptions:
    """The options of `start_answer_sync`.

    Attributes:
        check: called with the chat, and whether it is new, while its row is locked. It raises what refuses the start.
            A decision of before the transaction may be about a chat that another user has created meanwhile.
        makes_again: see `rows.StartRequest`.
    """

    user: User | None = None
    turns: Sequence[Event] = ()
    if_active: Literal["join", "refuse"] = "join"
    once: bool = False
    check: Callable[[Chat, bool], None] | None = None
    makes_again: rows.MakesAgain = "never"


def start_checked(chat: Chat | Stream | str, answer: Answer | Source, options: StartOptions) -> Run:
    """The same as `start_answer_sync`, with a check of the chat within the transaction.

    Raises:
        The errors of `start_answer_sync`, and of the check.
    """
    if options.if_active not in ("join", "refuse"):
        raise ValueError("if_active is 'join' or 'refuse'.")
    wanted = answer if isinstance(answer, Answer) else Answer(answer)
    using = database()
    runs_here = not is_dotted(wanted.source) or config().ai_runs_in == "process"
    service, user = answers_of(using) if runs_here else None, options.user
    request = rows.StartRequest(
        path=_path(chat),
        owner="" if user is None or user.pk is None else str(user.pk),
        turns=options.turns,
        if_active=options.if_active,
        once=options.once,
        check=options.check,
        makes_again=options.makes_again,
        holder="" if service is None else service.holder,
        has_room=service is None or service.has_room,
        **wanted.stored(),
    )
    run, taken_over = _start(request, using)
    if not run.joined:
        on_commit(_launcher(wanted.source, run, taken_over, using), using)
    return run


def _launcher(source: Source, run: Run, taken_over: TakenOver | None, using: str) -> Callable[[], object]:
    """Return the function that has a run written, to be called after the commit."""
    if taken_over is not None:
        held = rows.Held(run, taken_over)
        return partial(answers_of(using).launch, held, None if is_dotted(source) else source)
    if config().ai_runs_in == "tasks":
        return partial(enqueue, str(run.pk))
    return partial(tell_runners_now, using)


async def start_answer(chat: Chat | Stream | str, answer: Answer | Source, **options: Any) -> Run:
    """The same as `start_answer_sync`, for asynchronous code."""
    run: Run = await sync_to_async(start_answer_sync)(chat, answer, **options)
    return run


def _path(chat: Chat | Stream | str) -> str:
    return checked.path(chat if isinstance(chat, str) else chat.path or "")


def _start(request: rows.StartRequest, using: str) -> tuple[Run, TakenOver | None]:
    """Start a run, again where another transaction was faster and this one may begin anew."""
    tries = 1
    while True:
        try:
            return rows.start(request, using)
        except (IntegrityError, OperationalError) as error:
            may_repeat = isinstance(error, IntegrityError) or diagnose(error) is FailureKind.BUSY
            if in_callers_transaction(connections[using]) or not may_repeat or tries >= TRIES:
                raise
            tries += 1
