"""AG-UI, the protocol between agents and pages, and the kindred chunks of TanStack AI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

from ..events import (
    AnyEvent,
    Data,
    Failed,
    Finish,
    Message,
    Reasoning,
    ReasoningPart,
    Rewind,
    Start,
    Stopped,
    Text,
    TextPart,
    ToolCall,
    ToolInput,
    ToolPart,
    ToolResult,
    Usage,
)
from ..history import ChatMessage, History
from .base import REPLACED, Chunk, Translator, json_text

STOPPED = "The answer was stopped."

CLIENT_MODEL = "client"
"""What TanStack's own server names as the model of a user's message."""


class AGUITranslator(Translator):
    """Translates the events of one run.

    Args:
        thread: the id of the chat, as the client knows it.
        run: the id of the run that the client has chosen. Empty: that of the server.
    """

    tool_name = "toolCallName"

    state_events: ClassVar[dict[str, tuple[str, str]]] = {
        "state-snapshot": ("STATE_SNAPSHOT", "snapshot"),
        "state-delta": ("STATE_DELTA", "delta"),
    }
    """Names of data that stand for the state which an agent of AG-UI shares with its page."""

    def __init__(self, thread: str, run: str = "") -> None:
        self._thread = thread
        self._client_run = run
        self._run = run
        self._message = ""
        self._part_count = 0
        self._open: tuple[str, str] | None = None
        self._open_calls: list[str] = []
        self._started_calls: set[str] = set()
        self._usage: Chunk | None = None

    def translate(self, event: AnyEvent) -> list[Chunk]:
        """Return the chunks for the next event."""
        match event:
            case Start(run, message):
                self._part_count, self._open, self._open_calls, self._usage = 0, None, [], None
                self._run, self._message = self._client_run or run, message
                return [{"type": "RUN_STARTED", "threadId": self._thread, "runId": self._run}]
            case Text(text):
                return [*self._part("text"), self._content("TEXT_MESSAGE_CONTENT", text)]
            case Reasoning(text):
                return [*self._part("reasoning"), self._content("REASONING_MESSAGE_CONTENT", text)]
            case ToolInput() | ToolCall():
                return [*self._close_part(), *self._call(event)]
            case ToolResult(id, output, error):
                return [*self._close_part(), *self._close_calls(id), self._result(id, output, error)]
            case Data(name, data) if name in self.state_events:
                type, field = self.state_events[name]
                return [{"type": type, field: data}]
            case Data(name, data, id):
                return [{"type": "CUSTOM", "name": name, "value": {"id": id, "data": data} if id else data}]
            case Usage(input_tokens, output_tokens):
                self._usage = {"inputTokens": input_tokens, "outputTokens": output_tokens}
                return []
            case Finish(_, reason):
                return [*self._close_part(), *self._close_calls(*self._open_calls), self._finished(reason)]
            case Stopped():
                # The arguments of an open call are incomplete, and only an error may leave them so.
                end = self._error(STOPPED, code="stopped") if self._open_calls else self._stopped()
                return [*self._close_part(), end]
            case Failed(_, error):
                return [*self._close_part(), self._error(error)]
        return []

    def _finished(self, reason: str) -> Chunk:
        return {"type": "RUN_FINISHED", "threadId": self._thread, "runId": self._run, **self._usages()}

    def _stopped(self) -> Chunk:
        return {**self._finished("stop"), "outcome": {"type": "cancelled"}}

    def _error(self, message: str, **more: str) -> Chunk:
        return {"type": "RUN_ERROR", "message": message, **more, **self._usages()}

    def _usages(self) -> Chunk:
        return {} if self._usage is None else {"usage": [self._usage]}

    def _part(self, kind: str) -> list[Chunk]:
        """Open a part of a kind, unless it is open. The answer's own id is that of its first text."""
        if self._open is not None and self._open[0] == kind:
            return []
        chunks = self._close_part()
        self._part_count += 1
        id = self._message if self._part_count == 1 and kind == "text" else f"{self._message}-{self._part_count}"
        self._open = kind, id
        if kind == "text":
            return [*chunks, {"type": "TEXT_MESSAGE_START", "messageId": id, "role": "assistant"}]
        start: Chunk = {"type": "REASONING_MESSAGE_START", "messageId": id, "role": "reasoning"}
        return [*chunks, {"type": "REASONING_START", "messageId": id}, start]

    def _content(self, type: str, text: str) -> Chunk:
        assert self._open is not None
        return {"type": type, "messageId": self._open[1], "delta": text}

    def _close_part(self) -> list[Chunk]:
        if self._open is None:
            return []
        kind, id = self._open
        self._open = None
        if kind == "text":
            return [{"type": "TEXT_MESSAGE_END", "messageId": id}]
        return [{"type": "REASONING_MESSAGE_END", "messageId": id}, {"type": "REASONING_END", "messageId": id}]

    def _close_calls(self, *ids: str) -> list[Chunk]:
        chunks: list[Chunk] = [{"type": "TOOL_CALL_END", "toolCallId": id} for id in ids if id in self._open_calls]
        self._open_calls = [id for id in self._open_calls if id not in ids]
        return chunks

    def _call(self, event: ToolInput | ToolCall) -> list[Chunk]:
        chunks: list[Chunk] = []
        is_new = event.id not in self._started_calls
        if is_new:
            self._started_calls.add(event.id)
            self._open_calls.append(event.id)
            start: Chunk = {"type": "TOOL_CALL_START", "toolCallId": event.id, self.tool_name: event.name}
            chunks.append(start | {"parentMessageId": self._message})
        text = event.text if isinstance(event, ToolInput) else json_text(event.input) if is_new else ""
        if text and event.id in self._open_calls:
            chunks.append({"type": "TOOL_CALL_ARGS", "toolCallId": event.id, "delta": text})
        if isinstance(event, ToolCall):
            chunks += self._close_calls(event.id)
        return chunks

    def _result(self, id: str, output: object, error: str) -> Chunk:
        content = error or (output if isinstance(output, str) else json_text(output))
        result: Chunk = {"type": "TOOL_CALL_RESULT", "messageId": f"{id}-result", "toolCallId": id, "content": content}
        return result | {"role": "tool"}


class TanStackTranslator(AGUITranslator):
    """Translates the events of a whole chat: runs, and between them the messages of the user.

    A message that does not count any more, or was edited, is taken back by a snapshot of those that count. Of the
    snapshots in a page only the last one is made. A chat whose messages are edited often would otherwise take the time
    and memory of all its versions.
    """

    snapshot = "MESSAGES_SNAPSHOT"

    def __init__(self, thread: str, run: str = "") -> None:
        super().__init__(thread, run)
        self._history = History()
        self._is_replaced = False

    def translate_page(self, events: Sequence[AnyEvent | None]) -> Iterator[list[Chunk]]:
        """See the base class."""
        changes = sum(isinstance(event, Message | Rewind) for event in events)
        last = self._history.last_change(events) if changes > 1 else -1
        for number, event in enumerate(events):
            self._is_replaced = number < last
            yield [] if event is None else self.translate(event)

    def translate(self, event: AnyEvent) -> list[Chunk]:
        """Return the chunks for the next event."""
        is_known = isinstance(event, Message) and self._history.find(event.id) is not None
        self._history.add(event)
        if is_known or isinstance(event, Rewind):
            if self._is_replaced:
                return [REPLACED]
            return [{"type": self.snapshot, "messages": [_shown(one) for one in self._history.messages]}]
        if isinstance(event, Message):
            return _echo(event)
        return super().translate(event)

    tool_name = "toolName"
    state_events: ClassVar[dict[str, tuple[str, str]]] = {}

    def _finished(self, reason: str) -> Chunk:
        names = {"content-filter": "content_filter", "tool-calls": "tool_calls", "other": "stop"}
        finished: Chunk = {"type": "RUN_FINISHED", "runId": self._run, "finishReason": names.get(reason, reason)}
        return finished

    def _stopped(self) -> Chunk:
        return self._finished("stop")


def _shown(message: ChatMessage) -> Chunk:
    """Return a message with its parts as TanStack's clients keep it."""
    parts: list[Chunk] = []
    for part in message.parts:
        match part:
            case TextPart(text):
                parts.append({"type": "text", "content": text})
            case ReasoningPart(text):
                parts.append({"type": "thinking", "content": text})
            case ToolPart():
                arguments = json_text(part.input)
                call: Chunk = {"type": "tool-call", "id": part.id, "name": part.name, "arguments": arguments}
                parts.append(call | {"state": "input-complete"})
                if part.is_done:
                    content = part.error or (part.output if isinstance(part.output, str) else json_text(part.output))
                    state = "error" if part.error else "complete"
                    parts.append({"type": "tool-result", "toolCallId": part.id, "content": content, "state": state})
    return {"id": message.id, "role": message.role, "parts": parts}


def _echo(message: Message) -> list[Chunk]:
    """Return a user's message as TanStack's clients expect to read it again."""
    text = "".join(part.text for part in message.parts if isinstance(part, TextPart))
    common: Chunk = {"messageId": message.id, "model": CLIENT_MODEL}
    chunks: list[Chunk] = [{"type": "TEXT_MESSAGE_START", **common, "role": message.role}]
    if text:
        chunks.append({"type": "TEXT_MESSAGE_CONTENT", **common, "delta": text})
    return [*chunks, {"type": "TEXT_MESSAGE_END", **common}]
