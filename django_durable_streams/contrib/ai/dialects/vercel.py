"""The UI message stream of Vercel's AI SDK, version 1, as its versions 5, 6 and 7 read it."""

from __future__ import annotations

from collections.abc import Sequence

from ..events import (
    AnyEvent,
    Data,
    DataPart,
    Failed,
    FilePart,
    Finish,
    Part,
    Reasoning,
    ReasoningPart,
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
from .base import Chunk, Translator

HEADER = "x-vercel-ai-ui-message-stream"
VERSION = "v1"
DONE = b"data: [DONE]\n\n"


def ui_part(part: Part) -> Chunk:
    """Return a part of a stored message as the parts of a `UIMessage` have it."""
    match part:
        case FilePart(url, media_type, name):
            return {"type": "file", "url": url, "mediaType": media_type} | ({"filename": name} if name else {})
        case ToolPart(id, name, input, output, error, is_done):
            call: Chunk = {"type": f"tool-{name}", "toolCallId": id, "input": input}
            if not is_done:
                return {**call, "state": "input-available"}
            end: Chunk = (
                {"state": "output-error", "errorText": error}
                if error
                else {"state": "output-available", "output": output}
            )
            return call | end
        case DataPart(name, data, id):
            return {"type": f"data-{name}", "data": data} | ({"id": id} if id else {})
        case TextPart(text):
            return {"type": "text", "text": text}
        case ReasoningPart(text):
            return {"type": "reasoning", "text": text}


class VercelTranslator(Translator):
    """Translates the events of one run.

    Texts and reasoning are parts with a beginning and an end. What follows the results of tools is another step of the
    answer, as the SDK's own servers have it.

    Args:
        earlier: the parts that the message had before the run. A client that resumes gets them again, because it drops
            what it has of the message.
    """

    def __init__(self, earlier: Sequence[Part] = ()) -> None:
        self._earlier = earlier
        self._part_count = 0
        self._open: tuple[str, str] | None = None
        self._started_calls: set[str] = set()
        self._has_results = False

    def translate(self, event: AnyEvent) -> list[Chunk]:
        """Return the chunks for the next event."""
        match event:
            case Start(_, message):
                return [{"type": "start", "messageId": message}, {"type": "start-step"}, *self._repeat()]
            case Text(text):
                return [*self._part("text"), self._delta("text", text)]
            case Reasoning(text):
                return [*self._part("reasoning"), self._delta("reasoning", text)]
            case ToolInput() | ToolCall():
                return [*self._close(), *self._step(), *self._call(event)]
            case ToolResult(id, output, error):
                self._has_results = True
                result: Chunk = (
                    {"type": "tool-output-error", "toolCallId": id, "errorText": error}
                    if error
                    else {"type": "tool-output-available", "toolCallId": id, "output": output}
                )
                return [*self._close(), result]
            case Data(name, data, id):
                return [{"type": f"data-{name}", "data": data} | ({"id": id} if id else {})]
            case Usage(input_tokens, output_tokens):
                usage = {"inputTokens": input_tokens, "outputTokens": output_tokens}
                return [{"type": "message-metadata", "messageMetadata": {"usage": usage}}]
            case Finish(_, reason):
                return [*self._close(), {"type": "finish-step"}, {"type": "finish", "finishReason": reason}]
            case Stopped():
                return [*self._close(), {"type": "abort"}]
            case Failed(_, error):
                return [*self._close(), {"type": "error", "errorText": error}]
        return []

    def _repeat(self) -> list[Chunk]:
        """Return the chunks of the earlier parts, as steps of their own."""
        chunks: list[Chunk] = []
        for part in self._earlier:
            match part:
                case FilePart():
                    chunks += [*self._close(), *self._step(), ui_part(part)]
                case ToolPart(id, name, input, output, error, is_done):
                    self._has_results = False  # calls that follow each other are of one step
                    chunks += self.translate(ToolCall(id, name, input))
                    chunks += self.translate(ToolResult(id, output, error)) if is_done else []
                case DataPart(name, data, id):
                    chunks += self.translate(Data(name, data, id))
                case TextPart(text):
                    chunks += self.translate(Text(text))
                case ReasoningPart(text):
                    chunks += self.translate(Reasoning(text))
        self._has_results = False
        return [*chunks, *self._close(), {"type": "finish-step"}, {"type": "start-step"}] if chunks else []

    def _part(self, kind: str) -> list[Chunk]:
        """Open a part of a kind, unless it is open."""
        if self._open is not None and self._open[0] == kind:
            return []
        chunks = [*self._close(), *self._step()]
        self._part_count += 1
        self._open = kind, f"{kind}-{self._part_count}"
        return [*chunks, {"type": f"{kind}-start", "id": self._open[1]}]

    def _delta(self, kind: str, text: str) -> Chunk:
        assert self._open is not None
        return {"type": f"{kind}-delta", "id": self._open[1], "delta": text}

    def _close(self) -> list[Chunk]:
        """End the open part, if there is one."""
        if self._open is None:
            return []
        kind, id = self._open
        self._open = None
        return [{"type": f"{kind}-end", "id": id}]

    def _step(self) -> list[Chunk]:
        """Begin another step, if tools have returned something."""
        if not self._has_results:
            return []
        self._has_results = False
        return [{"type": "finish-step"}, {"type": "start-step"}]

    def _call(self, event: ToolInput | ToolCall) -> list[Chunk]:
        call = {"toolCallId": event.id, "toolName": event.name}
        chunks: list[Chunk] = []
        if event.id not in self._started_calls:
            self._started_calls.add(event.id)
            chunks.append({"type": "tool-input-start", **call})
        if isinstance(event, ToolCall):
            chunks.append({"type": "tool-input-available", **call, "input": event.input})
        elif event.text:
            chunks.append({"type": "tool-input-delta", "toolCallId": event.id, "inputTextDelta": event.text})
        return chunks
