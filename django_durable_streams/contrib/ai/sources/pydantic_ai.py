"""The runs of agents of the package `pydantic-ai` as events.

    def answer(context):
        return agent_events(agent.run_stream_events(context.messages[-1].text))

Nothing is imported: the events are read by their attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Any

from ..events import Event, Finish, Reasoning, Text, ToolCall, ToolInput, ToolResult, Usage
from .streams import parsed_input


async def agent_events(run: AbstractAsyncContextManager[Any]) -> AsyncGenerator[Event, None]:
    """Yield the events of a run of an agent, with the calls of its tools and their results.

    Args:
        run: what `agent.run_stream_events(…)` returns. It is entered in the event loop that writes the answer.

    Raises:
        The errors of the agent.
    """
    async with run as events:
        calls: dict[int, Any] = {}
        async for event in events:
            match event.event_kind:
                case "part_start":
                    calls.pop(event.index, None)
                    if event.part.part_kind == "tool-call":
                        calls[event.index] = event.part
                    for piece in _pieces(event.part):
                        yield piece
                case "part_delta" if event.delta.part_delta_kind == "text":
                    yield Text(event.delta.content_delta)
                case "part_delta" if event.delta.part_delta_kind == "thinking":
                    yield Reasoning(event.delta.content_delta or "")
                case "part_delta" if event.index in calls and isinstance(event.delta.args_delta, str):
                    call = calls[event.index]
                    yield ToolInput(call.tool_call_id, call.tool_name, event.delta.args_delta)
                case "function_tool_call":
                    part = event.part
                    input = parsed_input(part.args) if isinstance(part.args, str) else part.args or {}
                    yield ToolCall(part.tool_call_id, part.tool_name, input)
                case "function_tool_result":
                    yield _result(event.part)
                case "agent_run_result":
                    yield Usage(event.result.usage.input_tokens, event.result.usage.output_tokens)
    yield Finish()


def _pieces(part: Any) -> list[Event]:
    """Return the events for the beginning of a part, which may have its first piece."""
    if part.part_kind == "text":
        return [Text(part.content)]
    if part.part_kind == "thinking":
        return [Reasoning(part.content)]
    if part.part_kind == "tool-call":
        text = part.args if isinstance(part.args, str) else ""
        return [ToolInput(part.tool_call_id, part.tool_name, text)]
    return []


def _result(part: Any) -> ToolResult:
    content = part.content
    if part.part_kind == "retry-prompt" or getattr(part, "outcome", "success") != "success":
        return ToolResult(part.tool_call_id, error=content if isinstance(content, str) else "The tool has failed.")
    if dataclasses.is_dataclass(content) and not isinstance(content, type):
        content = dataclasses.asdict(content)
    elif hasattr(content, "model_dump"):
        content = content.model_dump(mode="json")
    return ToolResult(part.tool_call_id, content)
