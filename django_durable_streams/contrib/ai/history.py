"""The messages of a chat, made from its events. Pure: knows no table and no stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

from ...protocol.structs import examine
from .events import (
    AnyEvent,
    Data,
    DataPart,
    Failed,
    Finish,
    Message,
    Part,
    Reasoning,
    ReasoningPart,
    Rewind,
    Start,
    Stopped,
    Text,
    TextPart,
    ToolCall,
    ToolPart,
    ToolResult,
)

Status = Literal["done", "streaming", "stopped", "failed"]


class ChatMessage(msgspec.Struct):
    """A message of a chat, as it is now.

    Attributes:
        id: the id of the message.
        role: `user`, `assistant` or `system`.
        parts: texts, reasoning, files, tool calls and data, in order.
        status: whether an answer is complete. Messages of users are always `done`.
        error: why an answer has failed.
        event: the number of the event that began the message, from 0 on.
        run: the id of the run that wrote the message last. Empty: the message is no answer.
    """

    id: str
    role: str
    parts: list[Part]
    status: Status = "done"
    error: str = ""
    event: int = 0
    run: str = ""

    @property
    def text(self) -> str:
        """The text of all parts that are text."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class ChatSnapshot(NamedTuple):
    """The messages of a chat, and the place in its stream from which a page follows the chat further.

    Attributes:
        messages: the messages, in order.
        next_offset: the offset after the last event that the messages contain.
    """

    messages: list[ChatMessage]
    next_offset: str

    @property
    def answer(self) -> str:
        """The id of the run that writes the last answer. Empty: no answer is being written."""
        return next((message.run for message in reversed(self.messages) if message.status == "streaming"), "")


class History:
    """The messages of a chat, which grow with each event."""

    def __init__(self) -> None:
        self._messages: list[ChatMessage] = []
        self.event_count = 0
        self._growing: TextPart | ReasoningPart | None = None
        """The last part of the answer, whose text goes on with the pieces."""
        self._pieces: list[str] = []
        self._by_id: dict[str, ChatMessage] = {}
        self._answer: ChatMessage | None = None

    @property
    def messages(self) -> list[ChatMessage]:
        """The messages of the chat after the events so far."""
        self._join()
        return self._messages

    def add(self, event: AnyEvent | None) -> None:
        """Apply the next event of the chat. None stands for one that this version does not know."""
        if not isinstance(event, Text | Reasoning):
            self._join()
        match event:
            case Message(id, role, parts):
                self._put(ChatMessage(id, role, [*parts], event=self.event_count))
            case Rewind(before, after):
                self._rewind(before, after)
            case Start(run, message):
                self._start(run, message)
            case Finish() | Stopped() | Failed():
                self._end(event)
            case Text(text) | Reasoning(text) if self._answer is not None:
                self._grow(self._answer.parts, TextPart if isinstance(event, Text) else ReasoningPart, text)
            case _ if self._answer is not None:
                _extend(self._answer.parts, event)
        self.event_count += 1

    def _grow(self, parts: list[Part], kind: type[TextPart | ReasoningPart], text: str) -> None:
        """Add to the last part. An answer may have a hundred thousand pieces, and each sum would copy all before it."""
        if type(self._growing) is not kind:
            self._join()
            last = parts[-1] if parts else None
            if not isinstance(last, kind):
                last = kind("")
                parts.append(last)
            self._growing = last
        self._pieces.append(text)

    def _join(self) -> None:
        growing, self._growing = self._growing, None
        if growing is not None:
            growing.text += "".join(self._pieces)
            self._pieces = []

    def find(self, message_id: str) -> ChatMessage | None:
        """Return the message with an id."""
        self._join()
        return self._by_id.get(message_id)

    def last_change(self, events: Sequence[AnyEvent | None]) -> int:
        """Return the number of the last of the next events that changes or takes back messages. -1: none does."""
        ids, last = dict.fromkeys(self._by_id), -1
        for number, event in enumerate(events):
            match event:
                case Message(id) if id in ids:
                    last = number
                case Message(id) | Start(_, id):
                    ids.setdefault(id)
                case Rewind(before, after):
                    last = number
                    _take_back(ids, before, after)
        return last

    def _put(self, message: ChatMessage) -> None:
        earlier = self._by_id.setdefault(message.id, message)
        if earlier is message:
            self._messages.append(message)
        else:
            earlier.role, earlier.parts = message.role, message.parts

    def _rewind(self, before: str, after: str) -> None:
        first = self._by_id.get(before) or self._by_id.get(after)
        if first is None:
            return
        # From the end, so that many edits of a long chat take no longer than the messages that they take back.
        while self._messages[-1] is not first:
            del self._by_id[self._messages.pop().id]
        if first.id == before:
            del self._by_id[self._messages.pop().id]

    def _start(self, run: str, message_id: str) -> None:
        answer = self.find(message_id)
        if answer is None:
            answer = ChatMessage(message_id, "assistant", [], event=self.event_count)
            self._put(answer)
        answer.status, answer.error, answer.run = "streaming", "", run
        self._answer = answer

    def _end(self, event: Finish | Stopped | Failed) -> None:
        if self._answer is None:
            return
        match event:
            case Finish():
                self._answer.status = "done"
            case Stopped():
                self._answer.status = "stopped"
            case Failed(_, error):
                self._answer.status, self._answer.error = "failed", error
        self._answer = None


def _take_back(ids: dict[str, None], before: str, after: str) -> None:
    """Take the ids of messages back as `History` does."""
    first = before if before in ids else after
    if first not in ids:
        return
    while (last := ids.popitem()[0]) != first:
        pass
    if first != before:
        ids[last] = None


def _extend(parts: list[Part], event: AnyEvent | None) -> None:
    match event:
        case ToolCall(id, name, input):
            parts.append(ToolPart(id, name, input))
        case ToolResult(id, output, error):
            for part in parts:
                if isinstance(part, ToolPart) and part.id == id:
                    part.output, part.error, part.is_done = output, error, True
        case Data(name, data, id):
            for part in parts:
                if id and isinstance(part, DataPart) and (part.name, part.id) == (name, id):
                    part.data = data
                    return
            parts.append(DataPart(name, data, id))


def messages_of(events: Iterable[AnyEvent | None]) -> list[ChatMessage]:
    """Return the messages that events make."""
    history = History()
    for event in events:
        history.add(event)
    return history.messages


examine(globals())
