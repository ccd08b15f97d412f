"""The adapters of pydantic-ai as sources: the real package, and a local server that speaks OpenAI's HTTP.

Tests import the package, which takes seconds. Processes that only collect this module do without.
"""

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from ag_ui.core import CustomEvent, StateSnapshotEvent

from django_durable_streams.contrib.ai.answers import AnswerError, Chat, start_answer
from django_durable_streams.contrib.ai.dialects.agui import AGUITranslator
from django_durable_streams.contrib.ai.events import (
    Data,
    Event,
    Finish,
    Start,
    Text,
    ToolCall,
    ToolInput,
    ToolResult,
    Usage,
)
from django_durable_streams.contrib.ai.running import GENERIC_ERROR
from django_durable_streams.contrib.ai.sources import events_of
from django_durable_streams.contrib.ai.sources.pydantic_ai import AgentFailed, adapter_events
from tests.ai.provider import Provider
from tests.ai.test_sources import call, completion

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.ui.ag_ui import AGUIAdapter
    from pydantic_ai.ui.vercel_ai import VercelAIAdapter


def agent_of(server: Provider) -> "Agent[None, str]":
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    client = OpenAIProvider(base_url=f"{server.url}/v1", api_key="test")
    return Agent(OpenAIChatModel("m", provider=client), retries=0)


def vercel(agent: "Agent[None, str]", text: str = "Hi", **options: Any) -> "VercelAIAdapter[Any, Any]":
    from pydantic_ai.ui.vercel_ai import VercelAIAdapter

    message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": text}]}
    body = {"id": "c1", "trigger": "submit-message", "messages": [message]}
    return VercelAIAdapter(agent, run_input=VercelAIAdapter.build_run_input(json.dumps(body).encode()), **options)


def agui(agent: "Agent[None, str]", text: str = "Hi") -> "AGUIAdapter[Any, Any]":
    from pydantic_ai.ui.ag_ui import AGUIAdapter

    body: dict[str, Any] = {"threadId": "c1", "runId": "r1", "state": {}, "tools": [], "context": []}
    body |= {"forwardedProps": {}, "messages": [{"id": "u1", "role": "user", "content": text}]}
    return AGUIAdapter(agent, run_input=AGUIAdapter.build_run_input(json.dumps(body).encode()))


async def made(chunks: Any) -> list[Event]:
    return [event async for event in events_of(adapter_events(chunks))]


def speaks(server: Provider) -> None:
    server.script = [completion({"content": "Good "}), completion({"content": "day"}), completion({}, "stop"), "[DONE]"]


async def test_the_adapter_for_the_ai_sdk_asks_the_model_and_its_words_are_events(server: Provider) -> None:
    speaks(server)

    async def on_complete(result: Any) -> AsyncIterator[Any]:
        yield Usage(3, 4)

    events = await made(vercel(agent_of(server)).run_stream(on_complete=on_complete))
    assert events == [Text("Good "), Text("day"), Usage(3, 4), Finish()]
    assert server.requests[0]["messages"][-1] == {"role": "user", "content": "Hi"}


async def test_the_adapter_for_ag_ui_asks_the_model_and_its_words_are_events(server: Provider) -> None:
    speaks(server)
    assert await made(agui(agent_of(server)).run_stream()) == [Text("Good "), Text("day"), Finish()]
    assert server.requests[0]["messages"][-1] == {"role": "user", "content": "Hi"}


@pytest.mark.parametrize("adapter", [vercel, agui])
async def test_calls_of_tools_come_with_their_results_and_data(server: Provider, adapter: Any) -> None:
    from pydantic_ai import ToolReturn
    from pydantic_ai.ui.vercel_ai.response_types import DataChunk

    agent = agent_of(server)
    metadata: Any = DataChunk(type="data-sum", id="s", data={"is": 3})
    if adapter is agui:
        metadata = [StateSnapshotEvent(snapshot={"sum": 3}), CustomEvent(name="sum", value={"is": 3})]

    @agent.tool_plain
    def add(x: int, y: int) -> ToolReturn:
        return ToolReturn({"sum": x + y}, metadata=[metadata] if adapter is vercel else metadata)

    server.script = [
        completion(call(0, "", id="a", name="add", type="function")),
        completion(call(0, '{"x":1,"y":2}')),
        completion({}, "tool_calls"),
        "[DONE]",
    ]
    stream = adapter(agent).run_stream()
    events = []
    async for event in events_of(adapter_events(stream)):
        events.append(event)
        if isinstance(event, ToolResult):
            speaks(server)
    output: Any = {"sum": 3} if adapter is vercel else '{"sum":3}'
    data: list[Event] = [Data("sum", {"is": 3}, "s")]
    if adapter is agui:
        data = [Data("state-snapshot", {"sum": 3}, "state"), Data("sum", {"is": 3})]
    pieces = [event for event in events if isinstance(event, ToolInput)]
    assert {(piece.id, piece.name) for piece in pieces} == {("a", "add")}
    assert "".join(piece.text for piece in pieces) == '{"x":1,"y":2}'
    assert [event for event in events if not isinstance(event, ToolInput)] == [
        ToolCall("a", "add", {"x": 1, "y": 2}),
        ToolResult("a", output),
        *data,
        Text("Good "),
        Text("day"),
        Finish(),
    ]


async def test_a_tool_that_refuses_its_arguments_is_an_error_of_the_call(server: Provider) -> None:
    from pydantic_ai import ModelRetry

    agent = agent_of(server)

    @agent.tool_plain(retries=1)
    def add(x: int) -> int:
        raise ModelRetry("Not this one.")

    server.script = [completion(call(0, '{"x":1}', id="a", name="add")), completion({}, "tool_calls"), "[DONE]"]
    events = []
    async for event in adapter_events(vercel(agent, sdk_version=6).run_stream()):
        events.append(event)
        if isinstance(event, ToolResult):
            speaks(server)
    (result,) = [event for event in events if isinstance(event, ToolResult)]
    assert "Not this one." in result.error
    assert events[-1] == Finish()


@pytest.mark.parametrize("adapter", [vercel, agui])
async def test_a_model_that_refuses_fails_the_source(server: Provider, adapter: Any) -> None:
    server.status = 401
    with pytest.raises(AgentFailed, match="401"):
        await made(adapter(agent_of(server)).run_stream())


async def test_chunks_without_an_event_of_their_own_are_data() -> None:
    from pydantic_ai.ui.vercel_ai.response_types import AbortChunk, FileChunk

    async def chunks() -> AsyncIterator[Any]:
        yield FileChunk(url="data:,a", media_type="text/plain")
        yield AbortChunk(reason="The agent run timed out.")

    events = events_of(adapter_events(chunks()))
    assert await anext(events) == Data("file", {"url": "data:,a", "mediaType": "text/plain"})
    with pytest.raises(AnswerError, match="timed out"):
        await anext(events)


def test_the_state_of_an_agent_reaches_a_page_of_ag_ui() -> None:
    translator = AGUITranslator("c1")
    translator.translate(Start("r", "m"))
    assert translator.translate(Data("state-snapshot", {"a": 1}, "state")) == [
        {"type": "STATE_SNAPSHOT", "snapshot": {"a": 1}}
    ]
    patch = [{"op": "replace", "path": "/a", "value": 2}]
    assert translator.translate(Data("state-delta", patch)) == [{"type": "STATE_DELTA", "delta": patch}]


@pytest.mark.usefixtures("engines")
@pytest.mark.parametrize("adapter", [vercel, agui])
async def test_an_answer_of_an_adapter_is_stored_in_the_chat(server: Provider, adapter: Any) -> None:
    speaks(server)
    run = await start_answer("chats/1", adapter_events(adapter(agent_of(server)).run_stream()))
    await run.await_end()
    chat = await Chat.objects.select_related("stream").aget()
    assert [(message.text, message.status) for message in await chat.amessages()] == [("Good day", "done")]
    server.status = 401
    failed = await (await start_answer("chats/1", adapter_events(adapter(agent_of(server)).run_stream()))).await_end()
    assert (failed.state, failed.error) == ("failed", GENERIC_ERROR)
