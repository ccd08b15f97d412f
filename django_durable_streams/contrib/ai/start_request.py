"""The request for a new run, as `rows.start` takes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .events import Event, Message
from .models import Chat, Run

MakesAgain = Literal["never", "newest", "any"]


@dataclass(frozen=True, slots=True)
class StartRequest:
    """What a new run needs.

    Attributes:
        path: the path of the chat's stream. It is created if there is none.
        owner: who starts the run, and owns a chat that is created now.
        turns: events that precede the run: the user's message, or a rewind.
        message_id: the id of the answer's message.
        if_active: what to do if the chat has an active run: `join` it, or `refuse`.
        source: dotted path of the source. Empty: an iterator of this process.
        arguments: JSON arguments of the source.
        on_lost: see `Run.OnLost`.
        holder: the process that writes the answer. Empty: a worker has to take it.
        once: whether a run that answers the last message of the turns counts as this one, also if it is done. If the
            chat's last run has failed or was stopped, the same message is another attempt, and takes its place.
        makes_again: when the last message of the turns, once more after its answer is done, asks for another answer:
            `never`, if that is the `newest` answer of the chat, or at `any` message if no answer to it has this
            `message_id`.
        has_room: whether the holder may write one more answer. Without that, a new run is refused.
        check: called with the chat, and whether it is new, while its row is locked. It raises what refuses the start.
    """

    path: str
    owner: str = ""
    turns: Sequence[Event] = ()
    message_id: str = ""
    if_active: Literal["join", "refuse"] = "join"
    source: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    on_lost: str = Run.OnLost.FAIL
    holder: str = ""
    once: bool = False
    makes_again: MakesAgain = "never"
    has_room: bool = True
    check: Callable[[Chat, bool], None] | None = None

    @property
    def turn_id(self) -> str:
        """The id of the message that is answered."""
        return next((turn.id for turn in reversed(self.turns) if isinstance(turn, Message)), "")
