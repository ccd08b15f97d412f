"""The runs of agents of the package `pydantic-ai` as events.

    def answer(context):
        return agent_events(agent.run_stream_events(context.messages[-1].text))

or of its adapters for pages, which read the request of a client by themselves:

    def answer(context, body):
        adapter = VercelAIAdapter(agent, run_input=VercelAIAdapter.build_run_input(json.dumps(body).encode()))
        return adapter_events(adapter.run_stream())

Nothing is imported: the events are read by their attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from ..errors import AnswerError
from ..events import FINISH_REASONS, Data, Event, Finish, Reasoning, Text, ToolCall, ToolInput, ToolResult, Usage
from .streams import opened, parsed_input

CANCELLED = "The agent's run was cancelled."
DENIED = "The call of the tool was denied."


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


async def adapter_events(chunks: AsyncIterable[Any]) -> AsyncGenerator[Event, None]:
    """Yield the events of a run by pydantic-ai's `VercelAIAdapter` or `AGUIAdapter`.

    Files and links to sources become `Data` named `file`, `source-url` or `source-document`, and the shared state of
    AG-UI `Data` named `state-snapshot` or `state-delta`. Events of this package pass as they are, so `on_complete` may
    yield a `Usage`. Requests for the approval of a tool, and activities of AG-UI, have no event and are left out.

    Args:
        chunks: what `adapter.run_stream(…)` returns. It runs in the event loop that writes the answer.

    Raises:
        AnswerError: the run was cancelled, or has taken too long.
        AgentFailed: the run has failed. The message is for the log: it may quote the provider.
    """
    calls: dict[str, _Call] = {}
    async with opened(chunks) as run:
        async for chunk in run:
            if isinstance(chunk, Event):
                yield chunk
                continue
            kind = str(getattr(chunk.type, "value", chunk.type))
            for event in _vercel(kind, chunk, calls) if kind.islower() else _agui(kind, chunk, calls):
                yield event


class AgentFailed(Exception):
    """The run of an agent has failed. Adapters tell the error's text only."""


@dataclasses.dataclass(slots=True)
class _Call:
    """A tool call while its arguments arrive."""

    id: str
    name: str
    text: str = ""

    def add(self, text: str) -> ToolInput:
        self.text += text
        return ToolInput(self.id, self.name, text)


def _vercel(kind: str, chunk: Any, calls: dict[str, _Call]) -> list[Event]:
    """Return the events for a chunk of the AI SDK's stream."""
    match kind:
        case "text-delta":
            return [Text(chunk.delta)]
        case "reasoning-delta":
            return [Reasoning(chunk.delta)]
        case "tool-input-start":
            call = calls[chunk.tool_call_id] = _Call(chunk.tool_call_id, chunk.tool_name)
            return [call.add("")]
        case "tool-input-delta" if chunk.tool_call_id in calls:
            return [calls[chunk.tool_call_id].add(chunk.input_text_delta)]
        case "tool-input-available":
            return [ToolCall(chunk.tool_call_id, chunk.tool_name, chunk.input)]
        case "tool-input-error":
            call_event = ToolCall(chunk.tool_call_id, chunk.tool_name, chunk.input)
            return [call_event, ToolResult(chunk.tool_call_id, error=chunk.error_text)]
        case "tool-output-available" if not chunk.preliminary:
            return [ToolResult(chunk.tool_call_id, chunk.output)]
        case "tool-output-error":
            return [ToolResult(chunk.tool_call_id, error=chunk.error_text)]
        case "tool-output-denied":
            return [ToolResult(chunk.tool_call_id, error=DENIED)]
        case "file" | "source-url" | "source-document":
            return [Data(kind, chunk.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"type"}))]
        case "finish":
            reason: Any = chunk.finish_reason or "stop"
            return [Finish(reason=reason if reason in FINISH_REASONS else "other")]
        case "abort":
            raise AnswerError(chunk.reason or CANCELLED)
        case "error":
            raise AgentFailed(chunk.error_text)
    if kind.startswith("data-"):
        return [Data(kind.removeprefix("data-"), chunk.data, chunk.id or "")]
    return []


def _agui(kind: str, event: Any, calls: dict[str, _Call]) -> list[Event]:
    """Return the events for an event of AG-UI."""
    match kind:
        case "TEXT_MESSAGE_CONTENT" | "TEXT_MESSAGE_CHUNK":
            return [Text(event.delta or "")]
        case "REASONING_MESSAGE_CONTENT" | "REASONING_MESSAGE_CHUNK" | "THINKING_TEXT_MESSAGE_CONTENT":
            return [Reasoning(event.delta or "")]
        case "TOOL_CALL_START":
            call = calls[event.tool_call_id] = _Call(event.tool_call_id, event.tool_call_name)
            return [call.add("")]
        case "TOOL_CALL_ARGS" if event.tool_call_id in calls:
            return [calls[event.tool_call_id].add(event.delta)]
        case "TOOL_CALL_END" if event.tool_call_id in calls:
            call = calls.pop(event.tool_call_id)
            return [ToolCall(call.id, call.name, parsed_input(call.text))]
        case "TOOL_CALL_RESULT":
            return [ToolResult(event.tool_call_id, event.content)]
        case "CUSTOM":
            return [Data(event.name, event.value)]
        case "STATE_SNAPSHOT":
            return [Data("state-snapshot", event.snapshot, "state")]
        case "STATE_DELTA":
            return [Data("state-delta", event.delta)]
        case "RUN_FINISHED":
            outcome = getattr(event, "outcome", None)  # earlier versions of AG-UI have none
            result = getattr(outcome, "type", "success")
            if result == "cancelled":
                raise AnswerError(CANCELLED)
            waits = result == "interrupt" or getattr(outcome, "pending_tool_call_ids", None)
            return [Finish(reason="tool-calls" if waits else "stop")]
        case "RUN_ERROR":
            raise AgentFailed(event.message)
    return []
