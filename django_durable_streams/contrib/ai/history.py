"""The messages of a chat, made from its events. Pure: knows no table and no stream."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

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
    """

    id: str
    role: str
    parts: list[Part]
    status: Status = "done"
    error: str = ""
    event: int = 0

    @property
    def text(self) -> str:
        """The text of all parts that are text."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class History:
    """The messages of a chat, which grow with each event."""

    def __init__(self) -> None:
        self.messages: list[ChatMessage] = []
        self.event_count = 0
        self._by_id: dict[str, ChatMessage] = {}
        self._answer: ChatMessage | None = None

    def add(self, event: AnyEvent | None) -> None:
        """Apply the next event of the chat. None stands for one that this version does not know."""
        match event:
            case Message(id, role, parts):
                self._put(ChatMessage(id, role, [*parts], event=self.event_count))
            case Rewind(before, after):
                self._rewind(before, after)
            case Start(_, message):
                self._start(message)
            case Finish() | Stopped() | Failed():
                self._end(event)
            case _ if self._answer is not None:
                _extend(self._answer.parts, event)
        self.event_count += 1

    def find(self, message_id: str) -> ChatMessage | None:
        """Return the message with an id."""
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
            self.messages.append(message)
        else:
            earlier.role, earlier.parts = message.role, message.parts

    def _rewind(self, before: str, after: str) -> None:
        first = self._by_id.get(before) or self._by_id.get(after)
        if first is None:
            return
        # From the end, so that many edits of a long chat take no longer than the messages that they take back.
        while self.messages[-1] is not first:
            del self._by_id[self.messages.pop().id]
        if first.id == before:
            del self._by_id[self.messages.pop().id]

    def _start(self, message_id: str) -> None:
        answer = self.find(message_id)
        if answer is None:
            answer = ChatMessage(message_id, "assistant", [], event=self.event_count)
            self._put(answer)
        answer.status, answer.error = "streaming", ""
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
    last = parts[-1] if parts else None
    match event:
        case Text(text):
            if isinstance(last, TextPart):
                last.text += text
            else:
                parts.append(TextPart(text))
        case Reasoning(text):
            if isinstance(last, ReasoningPart):
                last.text += text
            else:
                parts.append(ReasoningPart(text))
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
