"""Sources for tests, by their dotted paths."""

import asyncio
from collections.abc import AsyncIterator

from django_durable_streams.contrib.ai.answers import AnswerContext, AnswerError
from django_durable_streams.contrib.ai.events import Data, Event, Finish, Reasoning, Text, ToolCall, ToolResult, Usage


def events(count: int) -> list[Event]:
    """What `scripted` yields: reasoning, a tool, data, many words."""
    return [
        Reasoning("Let me "),
        Reasoning("think."),
        Text("I look it up."),
        ToolCall("call-1", "look_up", {"word": "stream"}),
        ToolResult("call-1", {"meaning": ["a small river"]}),
        Data("progress", {"done": 1}, "p"),
        *(Text(f" word{number}") for number in range(count)),
        Usage(12, count),
    ]


async def scripted(
    context: AnswerContext, count: int = 20, seconds: float = 0.0, fails: bool = False
) -> AsyncIterator[Event]:
    """Yield the events, with a pause after each. A continued answer goes on where the last one stopped."""
    for event in events(count)[len(context.written) :]:
        yield event
        await asyncio.sleep(seconds)
    if fails:
        raise AnswerError("The model is not available.")
    yield Finish()
