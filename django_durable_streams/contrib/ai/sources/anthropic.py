"""Streams of the `anthropic` package as events.

    def answer(context):
        request = client.messages.create(model="…", max_tokens=1024, messages=messages(context.messages), stream=True)
        return message_stream(request)

Nothing is imported: the events are read by their attributes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable
from typing import Any

from ..errors import AnswerError
from ..events import Event, Finish, FinishReason, Reasoning, Text, ToolCall, ToolInput, Usage
from ..history import ChatMessage
from .streams import CUT_OFF, opened, parsed_input

REASONS: dict[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool-calls",
    "refusal": "content-filter",
}


def messages(history: Iterable[ChatMessage]) -> list[dict[str, Any]]:
    """Return the messages of a chat for `messages.create`: their texts. Empty messages are left out."""
    return [{"role": message.role, "content": message.text} for message in history if message.text]


async def message_stream(stream: Awaitable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Event, None]:
    """Yield the events of a message.

    Args:
        stream: what `messages.create(stream=True)` of an asynchronous client returns, awaited or not.

    Raises:
        AnswerError: the provider reports an error within the stream, or the stream has ended before the message.
        The errors of the client.
    """
    calls: dict[int, tuple[str, str, list[str]]] = {}
    reason: FinishReason | None = None
    input_tokens = 0
    async with opened(stream) as events:
        async for event in events:
            match event.type:
                case "message_start":
                    input_tokens = event.message.usage.input_tokens
                case "content_block_start" if event.content_block.type == "tool_use":
                    calls[event.index] = event.content_block.id, event.content_block.name, []
                case "content_block_delta" if event.delta.type == "text_delta":
                    yield Text(event.delta.text)
                case "content_block_delta" if event.delta.type == "thinking_delta":
                    yield Reasoning(event.delta.thinking)
                case "content_block_delta" if event.delta.type == "input_json_delta" and event.index in calls:
                    id, name, pieces = calls[event.index]
                    pieces.append(event.delta.partial_json)
                    yield ToolInput(id, name, event.delta.partial_json)
                case "content_block_stop" if event.index in calls:
                    id, name, pieces = calls.pop(event.index)
                    yield ToolCall(id, name, parsed_input("".join(pieces)))
                case "message_delta":
                    reason = REASONS.get(event.delta.stop_reason or "", "other")
                    yield Usage(input_tokens, event.usage.output_tokens)
                case "error":
                    raise AnswerError("The model could not complete the answer.")
    if reason is None:
        raise AnswerError(CUT_OFF)
    yield Finish(reason=reason)
