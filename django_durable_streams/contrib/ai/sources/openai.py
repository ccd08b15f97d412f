"""Streams of the `openai` package as events, and of all that has its shapes, such as LiteLLM.

    def answer(context):
        request = client.chat.completions.create(model="…", messages=messages(context.messages), stream=True)
        return chat_completions(request)

Nothing is imported: the chunks are read by their attributes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Iterable, Iterator
from typing import Any

from ..errors import AnswerError
from ..events import Event, FilePart, Finish, FinishReason, Reasoning, Text, TextPart, ToolCall, ToolInput, Usage
from ..history import ChatMessage
from .streams import CUT_OFF, opened, parsed_input

REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "content_filter": "content-filter",
    "tool_calls": "tool-calls",
    "function_call": "tool-calls",
    "max_output_tokens": "length",
}


def messages(history: Iterable[ChatMessage], *, system: str = "") -> list[dict[str, Any]]:
    """Return the messages of a chat for `chat.completions.create`: texts and images, without calls of tools.

    Args:
        history: the messages of the chat, such as `context.messages`.
        system: the first message: what the model is to be.
    """
    made: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []
    for message in history:
        images = [part.url for part in message.parts if isinstance(part, FilePart)]
        if images and message.role == "user":
            content: Any = [{"type": "text", "text": part.text} for part in message.parts if isinstance(part, TextPart)]
            content += [{"type": "image_url", "image_url": {"url": url}} for url in images]
        else:
            content = message.text
        if content:
            made.append({"role": message.role, "content": content})
    return made


async def chat_completions(stream: Awaitable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Event, None]:
    """Yield the events of a stream of chat completions.

    Args:
        stream: what `chat.completions.create(stream=True)` of an asynchronous client returns, awaited or not.

    Raises:
        AnswerError: the stream has ended before the answer.
        The errors of the client.
    """
    calls: dict[int, _Call] = {}
    reason: FinishReason | None = None
    async with opened(stream) as chunks:
        async for chunk in chunks:
            if getattr(chunk, "usage", None) is not None:
                yield Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
            for choice in (chunk.choices or ())[:1]:
                if choice.delta is not None:
                    for event in _events_of(choice.delta, calls):
                        yield event
                if choice.finish_reason is not None:
                    reason = REASONS.get(choice.finish_reason, "other")
    if reason is None:
        raise AnswerError(CUT_OFF)
    for call in calls.values():
        yield call.whole()
    yield Finish(reason=reason)


def _events_of(delta: Any, calls: dict[int, _Call]) -> Iterator[Event]:
    """Yield the events of a chunk of chat completions. Some providers leave fields out that OpenAI sends."""
    # Providers that speak OpenAI's protocol have either of these names for it.
    reasoning = getattr(delta, "reasoning_content", None) or getattr(delta, "reasoning", None)
    if isinstance(reasoning, str) and reasoning:
        yield Reasoning(reasoning)
    if delta.content:
        yield Text(delta.content)
    if getattr(delta, "refusal", None):
        yield Text(delta.refusal)
    for piece in delta.tool_calls or ():
        yield calls.setdefault(piece.index, _Call()).add(piece)


class _Call:
    """A tool call, while its pieces arrive."""

    def __init__(self) -> None:
        self.id = self.name = self.text = ""

    def add(self, piece: Any) -> ToolInput:
        """Add a piece of a stream of chat completions, and return its event."""
        function = piece.function
        self.id, self.name = piece.id or self.id, (function and function.name) or self.name
        text = (function and function.arguments) or ""
        self.text += text
        return ToolInput(self.id, self.name, text)

    def whole(self) -> ToolCall:
        """Return the event of the whole call."""
        return ToolCall(self.id, self.name, parsed_input(self.text))


async def responses(stream: Awaitable[Any] | AsyncIterable[Any]) -> AsyncGenerator[Event, None]:
    """Yield the events of a stream of the Responses API.

    Args:
        stream: what `responses.create(stream=True)` of an asynchronous client returns, awaited or not.

    Raises:
        AnswerError: the provider reports that the response has failed, or the stream has ended before the response.
        The errors of the client.
    """
    calls: dict[str, _Call] = {}
    reason: FinishReason = "stop"
    is_complete = False
    async with opened(stream) as events:
        async for event in events:
            match event.type:
                case "response.output_text.delta" | "response.refusal.delta":
                    yield Text(event.delta)
                case "response.reasoning_summary_text.delta" | "response.reasoning_text.delta":
                    yield Reasoning(event.delta)
                case "response.output_item.added" if event.item.type == "function_call":
                    call = calls[event.item.id] = _Call()
                    call.id, call.name = event.item.call_id, event.item.name
                case "response.function_call_arguments.delta" if event.item_id in calls:
                    call = calls[event.item_id]
                    call.text += event.delta
                    yield ToolInput(call.id, call.name, event.delta)
                case "response.output_item.done" if event.item.type == "function_call":
                    reason = "tool-calls"
                    yield ToolCall(event.item.call_id, event.item.name, parsed_input(event.item.arguments))
                case "response.completed" | "response.incomplete":
                    is_complete = True
                    if event.response.usage is not None:
                        yield Usage(event.response.usage.input_tokens, event.response.usage.output_tokens)
                    details = event.response.incomplete_details
                    if details is not None:
                        reason = REASONS.get(details.reason or "", "other")
                case "response.failed" | "error":
                    raise AnswerError("The model could not complete the answer.")
    if not is_complete:
        raise AnswerError(CUT_OFF)
    yield Finish(reason=reason)
