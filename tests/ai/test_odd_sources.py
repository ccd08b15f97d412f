"""Sources that yield what no reader could use: the answer ends at once, and its chat stays readable."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from django.test import AsyncClient, override_settings
from django.utils.safestring import mark_safe

from django_durable_streams.contrib.ai.answers import AnswerContext, Run, start_answer
from django_durable_streams.contrib.ai.events import (
    Data,
    Failed,
    Finish,
    Message,
    Reasoning,
    Text,
    TextPart,
    ToolCall,
    ToolInput,
    ToolResult,
    Usage,
)

pytestmark = [pytest.mark.usefixtures("engines")]

SECONDS = 10
TURN = Message("u1", parts=[TextPart("Hi")])
ODD: Any = None
"""Stands for a value of another type than the field has."""

INVALID = {
    "text": Text(5),  # type: ignore[arg-type]
    "reasoning": Reasoning({"a": 1}),  # type: ignore[arg-type]
    "name of data": Data(ODD),
    "id of data": Data("x", 1, 7),  # type: ignore[arg-type]
    "id of a call": ToolCall(ODD, "add"),
    "name of a call": ToolInput("c", ODD, "{}"),
    "error of a result": ToolResult("c", error=["no"]),  # type: ignore[arg-type]
    "usage": Usage(ODD, 1),
    "no error": Failed(error=ODD),
    "number of an error": Failed(error=500),  # type: ignore[arg-type]
    "reason": Finish(reason="tired"),  # type: ignore[arg-type]
    "no reason": Finish(reason=object()),  # type: ignore[arg-type]
}


async def ended(run: Run) -> Run:
    chat = run.chat
    async with asyncio.timeout(SECONDS):
        await run.await_end()
    run.chat = chat  # which is loaded
    return run


@pytest.mark.parametrize("event", INVALID.values(), ids=INVALID)
async def test_an_event_with_a_field_of_another_type_ends_the_answer(event: Any) -> None:
    run = await ended(await start_answer("chats/1", ["before ", event, "never"], turns=[TURN]))
    assert (run.state, run.error) == ("failed", "The answer could not be completed.")
    messages = await run.chat.amessages()
    assert [(message.text, message.status) for message in messages] == [("Hi", "done"), ("before ", "failed")]


async def test_a_rendered_template_is_a_text() -> None:
    run = await ended(await start_answer("chats/1", [mark_safe("a"), Text(mark_safe("b")), mark_safe("")]))
    assert (run.state, (await run.chat.amessages())[-1].text) == ("done", "ab")


HALVES = {
    "texts": ["\ud83d", "\ude00"],
    "reasoning": [Reasoning("\ud83d"), Reasoning("\ude00")],
    "arguments": [ToolInput("c", "add", '"\ud83d'), ToolInput("c", "add", '\ude00"'), ToolCall("c", "add", "\ud83d")],
    "result": [ToolCall("c", "add", 1), ToolResult("c", {"\ud83d": "\ude00"})],
    "data": [Data("x", ["\ud83d"])],
    "alone": ["a\ud83db"],
}


@pytest.mark.parametrize("values", HALVES.values(), ids=HALVES)
async def test_half_of_a_surrogate_pair_reaches_all_readers(values: list[Any]) -> None:
    """Some providers cut a character into two chunks. JavaScript puts it together again."""

    def source(context: AnswerContext) -> Iterator[Any]:
        yield from values

    run = await ended(await start_answer("chats/1", source, turns=[TURN]))
    assert run.state == "done"
    anonymous = "django_durable_streams.contrib.ai.permissions.AnonymousChats"
    with override_settings(ROOT_URLCONF="tests.ai.urls", DURABLE_STREAMS={"AI_PERMISSION_CLASS": anonymous}):
        client = AsyncClient()
        response: Any = await client.get(f"/api/chat/1/stream?answer={run.pk}")
        async with asyncio.timeout(SECONDS):
            data = b"".join([piece async for piece in response])
        chat: Any = await client.get("/api/tanstack/1/stream?offset=-1")
        messages: Any = await client.get("/api/chat/1/messages")
    assert data.endswith(b"data: [DONE]\n\n")
    assert chat.status_code == messages.status_code == 200
    for body in (data, chat.content, messages.content):
        assert rb"\ud83d" in body
