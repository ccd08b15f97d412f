"""Sources of the real packages, against a local server that speaks the providers' HTTP.

Tests import the packages, which takes seconds. Processes that only collect this module do without.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from django_durable_streams.contrib.ai.answers import AnswerContext, AnswerError, start_answer
from django_durable_streams.contrib.ai.events import (
    Event,
    Failed,
    FilePart,
    Finish,
    Message,
    Reasoning,
    Start,
    Text,
    TextPart,
    ToolCall,
    ToolInput,
    ToolResult,
    Usage,
)
from django_durable_streams.contrib.ai.history import messages_of
from django_durable_streams.contrib.ai.sources import anthropic, events_of, openai, pydantic_ai
from tests.ai.provider import Provider

if TYPE_CHECKING:
    from openai import AsyncOpenAI


def completion(delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def call(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": more.pop("name")} if "name" in more else {})}
    return {"tool_calls": [{"index": index, "function": function, **more}]}


USAGE = {**completion({}), "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}}


async def made(events: Any) -> list[Event]:
    return [event async for event in events_of(events)]


def openai_client(server: Provider) -> "AsyncOpenAI":
    from openai import AsyncOpenAI

    return AsyncOpenAI(base_url=f"{server.url}/v1", api_key="test", max_retries=0)


async def completions(server: Provider, script: list[Any]) -> list[Event]:
    server.script = [*script, "[DONE]"]
    async with openai_client(server) as client:
        request = client.chat.completions.create(model="m", messages=[], stream=True)
        return await made(openai.chat_completions(request))


async def test_chat_completions_are_texts_and_an_end(server: Provider) -> None:
    script = [
        completion({"role": "assistant", "content": ""}),
        completion({"reasoning_content": "Hm."}),
        completion({"content": "Good "}),
        completion({"content": "day"}),
        completion({}, "length"),
        USAGE,
    ]
    expected = [Reasoning("Hm."), Text("Good "), Text("day"), Usage(5, 7), Finish(reason="length")]
    assert await completions(server, script) == expected


async def test_calls_of_tools_come_in_pieces_and_whole(server: Provider) -> None:
    script = [
        completion(call(0, "", id="a", name="add", type="function")),
        completion(call(0, '{"x":')),
        completion(call(1, "not JSON", id="b", name="sub")),
        completion(call(0, "1}")),
        completion({}, "tool_calls"),
    ]
    assert await completions(server, script) == [
        ToolInput("a", "add", ""),
        ToolInput("a", "add", '{"x":'),
        ToolInput("b", "sub", "not JSON"),
        ToolInput("a", "add", "1}"),
        ToolCall("a", "add", {"x": 1}),
        ToolCall("b", "sub", "not JSON"),
        Finish(reason="tool-calls"),
    ]


async def test_the_responses_api(server: Provider) -> None:
    item = {"type": "function_call", "id": "i", "call_id": "c", "name": "add", "arguments": "", "status": "in_progress"}
    response = {"id": "r", "object": "response", "created_at": 1, "model": "m", "output": [], "tools": []}
    response |= {"parallel_tool_calls": True, "tool_choice": "auto"}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, **details}
    place = {"item_id": "i", "output_index": 0, "content_index": 0, "sequence_number": 1}
    server.script = [
        {"type": "response.reasoning_summary_text.delta", "delta": "Hm.", "summary_index": 0, **place},
        {"type": "response.output_text.delta", "delta": "Hello", "logprobs": [], **place},
        {"type": "response.output_item.added", "item": item, **place},
        {"type": "response.function_call_arguments.delta", "delta": '{"x":1}', **place},
        {"type": "response.output_item.done", "item": {**item, "arguments": '{"x":1}'}, **place},
        {"type": "response.completed", "response": {**response, "usage": usage}, "sequence_number": 2},
    ]
    async with openai_client(server) as client:
        events = await made(openai.responses(client.responses.create(model="m", input="Hi", stream=True)))
    assert events == [
        Reasoning("Hm."),
        Text("Hello"),
        ToolInput("c", "add", '{"x":1}'),
        ToolCall("c", "add", {"x": 1}),
        Usage(1, 2),
        Finish(reason="tool-calls"),
    ]


CUT = {
    "before the first chunk": [],
    "in a text": [completion({"content": "Good "})],
    "in a call": [completion(call(0, '{"x":', id="a", name="add", type="function"))],
    "before the end": [completion({"content": "Good day"}), USAGE],
}


@pytest.mark.parametrize("script", CUT.values(), ids=CUT)
async def test_an_answer_that_the_connection_cuts_off_is_not_complete(server: Provider, script: list[Any]) -> None:
    server.script = script
    events: list[Event] = []

    async def read() -> None:
        async with openai_client(server) as client:
            request = client.chat.completions.create(model="m", messages=[], stream=True)
            async for event in openai.chat_completions(request):
                events.append(event)

    with pytest.raises(AnswerError, match="cut off"):
        await read()
    assert not any(isinstance(event, ToolCall | Finish) for event in events)


async def test_a_response_that_the_connection_cuts_off_is_not_complete(server: Provider) -> None:
    place = {"item_id": "i", "output_index": 0, "content_index": 0, "sequence_number": 1}
    server.script = [{"type": "response.output_text.delta", "delta": "Hello", "logprobs": [], **place}]
    async with openai_client(server) as client:
        with pytest.raises(AnswerError, match="cut off"):
            await made(openai.responses(client.responses.create(model="m", input="Hi", stream=True)))


async def test_a_message_that_the_connection_cuts_off_is_not_complete(server: Provider) -> None:
    from anthropic import AsyncAnthropic

    server.script = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
    ]
    async with AsyncAnthropic(base_url=server.url, api_key="test", max_retries=0) as client:
        request = client.messages.create(model="m", max_tokens=10, messages=[], stream=True)
        with pytest.raises(AnswerError, match="cut off"):
            await made(anthropic.message_stream(request))


async def test_chunks_may_lack_choices_and_pieces(server: Provider) -> None:
    end = {**completion({}, "stop"), "choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}
    script = [{**completion({}), "choices": None}, completion({"content": "Hi"}), end]
    assert await completions(server, script) == [Text("Hi"), Finish()]


async def test_messages_of_anthropic(server: Provider) -> None:
    from anthropic import AsyncAnthropic

    message: dict[str, Any] = {
        "id": "m",
        "type": "message",
        "role": "assistant",
        "content": [],
        "model": "m",
        "stop_reason": None,
    }
    message |= {"stop_sequence": None, "usage": {"input_tokens": 4, "output_tokens": 1}}
    tool = {"type": "tool_use", "id": "t", "name": "add", "input": {}}
    server.script = [
        {"type": "message_start", "message": message},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": tool},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"x":1}'}},
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": {"output_tokens": 9},
        },
        {"type": "message_stop"},
    ]
    async with AsyncAnthropic(base_url=server.url, api_key="test", max_retries=0) as client:
        request = client.messages.create(model="m", max_tokens=10, messages=[], stream=True)
        events = await made(anthropic.message_stream(request))
    assert events == [
        Reasoning("Hm."),
        Text("Hello"),
        ToolInput("t", "add", '{"x":1}'),
        ToolCall("t", "add", {"x": 1}),
        Usage(4, 9),
        Finish(reason="tool-calls"),
    ]


@pytest.mark.usefixtures("engines")
async def test_the_answer_of_a_model_is_asked_with_the_chat(server: Provider) -> None:
    server.script = [completion({"content": "Hello"}), completion({}, "stop"), "[DONE]"]

    async def source(context: AnswerContext) -> AsyncIterator[Event]:
        async with openai_client(server) as client:
            messages: Any = openai.messages(context.messages, system="Be brief.")
            request = client.chat.completions.create(model="m", messages=messages, stream=True)
            async for event in openai.chat_completions(request):
                yield event

    run = await start_answer("chats/1", source, turns=[Message("u1", parts=[TextPart("Hi")])])
    await run.await_end()
    assert run.state == "done"
    assert server.requests[0]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
    ]


@pytest.mark.usefixtures("engines")
async def test_a_provider_that_refuses_ends_the_answer_without_its_words(
    server: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    server.status = 401

    def source(context: AnswerContext) -> Any:
        request = openai_client(server).chat.completions.create(model="m", messages=[], stream=True)
        return openai.chat_completions(request)

    run = await start_answer("chats/1", source)
    events = [event async for event in run.aevents()]
    assert events[1:] == [Failed(str(run.pk), "The answer could not be completed.")]
    assert isinstance(events[0], Start)
    ours = [record for record in caplog.records if record.name.startswith("django_durable_streams")]
    assert len(ours) == 1
    assert "401" in ours[0].getMessage()


@pytest.mark.usefixtures("engines")
async def test_a_stop_ends_the_request_to_the_provider(server: Provider) -> None:
    server.script, server.hangs = [completion({"content": "la"})], True

    def source(context: AnswerContext) -> Any:
        request = openai_client(server).chat.completions.create(model="m", messages=[], stream=True)
        return openai.chat_completions(request)

    run = await start_answer("chats/1", source)
    async for event in run.aevents():
        if isinstance(event, Text):
            break
    await run.astop()
    await run.await_end()
    assert run.state == "stopped"
    assert await asyncio.to_thread(server.left.wait, 10)


async def test_a_synchronous_iterator_has_a_thread_of_its_own() -> None:
    threads: set[str] = set()

    def values() -> Iterator[str]:
        for text in ("a", "b"):
            threads.add(threading.current_thread().name)
            yield text

    assert await made(values()) == [Text("a"), Text("b")]
    assert len(threads) == 1
    assert threading.current_thread().name not in threads


def test_messages_for_models_have_texts_and_images() -> None:
    image = FilePart("data:image/png;base64,AA==", "image/png")
    history = messages_of(
        [Message("u1", parts=[TextPart("See"), image]), Start("r", "m"), Text("Yes."), Finish("r"), Message("u2")]
    )
    content = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": image.url}}]
    assert openai.messages(history) == [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "Yes."},
    ]
    assert anthropic.messages(history) == [
        {"role": "user", "content": "See"},
        {"role": "assistant", "content": "Yes."},
    ]


async def test_an_agent_of_pydantic_ai_calls_its_tools() -> None:
    from pydantic_ai import Agent
    from pydantic_ai.models.test import TestModel

    agent = Agent(TestModel(call_tools=["add"], custom_output_text="It is two."))

    @agent.tool_plain
    def add(x: int, y: int) -> dict[str, int]:
        return {"sum": x + y}

    events = await made(pydantic_ai.agent_events(agent.run_stream_events("What is one and one?")))
    (call,) = [event for event in events if isinstance(event, ToolCall)]
    assert (call.name, call.input) == ("add", {"x": 0, "y": 0})
    (result,) = [event for event in events if isinstance(event, ToolResult)]
    assert (result.id, result.output) == (call.id, {"sum": 0})
    assert "".join(event.text for event in events if isinstance(event, Text)) == "It is two."
    assert isinstance(events[-2], Usage)
    assert events[-1] == Finish()


async def test_a_tool_that_fails_says_so() -> None:
    from pydantic_ai import Agent, ModelRetry
    from pydantic_ai.models.test import TestModel

    agent = Agent(TestModel(call_tools=["fail"]), retries=1)
    calls = 0

    @agent.tool_plain
    def fail() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ModelRetry("Not so.")
        return "fine"

    events = await made(pydantic_ai.agent_events(agent.run_stream_events("Go.")))
    first, second = [event for event in events if isinstance(event, ToolResult)]
    assert (first.output, "Not so." in first.error) == (None, True)
    assert (second.output, second.error) == ("fine", "")
