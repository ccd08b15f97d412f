"""AG-UI by its own packages: what a chat sends is valid, and what clients send is understood."""

import json

import pytest
from ag_ui.core import Event as AGUIEvent
from ag_ui.core import RunAgentInput, UserMessage
from ag_ui_validate.pytest_plugin import assert_valid_agui
from pydantic import TypeAdapter

from django_durable_streams.contrib.ai.dialects.agui import AGUITranslator
from django_durable_streams.contrib.ai.events import (
    AnyEvent,
    Data,
    Failed,
    Finish,
    Reasoning,
    Start,
    Stopped,
    Text,
    ToolCall,
    ToolInput,
    ToolResult,
    Usage,
)
from django_durable_streams.contrib.ai.views.requests import AGUIBody, parse
from tests.ai.sources import events

START = Start("run-1", "msg-1")
ANSWERS: dict[str, list[AnyEvent]] = {
    "nothing": [START, Finish("run-1")],
    "text": [START, Text("a"), Text("b"), Finish("run-1")],
    "all": [START, *events(3), Finish("run-1")],  # type: ignore[list-item]
    "tools": [
        START,
        ToolInput("t1", "add"),
        ToolInput("t1", "add", '{"a"'),
        ToolInput("t2", "sub", "{}"),
        ToolInput("t1", "add", ":1}"),
        ToolCall("t1", "add", {"a": 1}),
        ToolCall("t2", "sub", {}),
        ToolResult("t1", 2),
        ToolResult("t2", error="No."),
        Reasoning("So"),
        Text("2"),
        Data("x", None),
        Usage(1, 2),
        Finish("run-1", "length"),
    ],
    "stopped": [START, Reasoning("a"), Stopped("run-1")],
    "stopped in a call": [START, Text("a"), ToolInput("t1", "add", "{"), Stopped("run-1")],
    "failed": [START, ToolInput("t1", "add", "{"), Failed("run-1", "No.")],
}


@pytest.mark.parametrize("name", ANSWERS)
def test_each_answer_is_valid(name: str) -> None:
    translator = AGUITranslator("thread-1", "client-run")
    chunks = [chunk for event in ANSWERS[name] for chunk in translator.translate(event)]
    events = TypeAdapter(list[AGUIEvent]).validate_python(chunks)
    assert len(events) == len(chunks)
    assert_valid_agui(json.loads(json.dumps(chunks)), max_warnings=0)


def test_the_input_of_the_package_is_understood() -> None:
    made = RunAgentInput(thread_id="t-1", run_id="r-1", messages=[UserMessage(id="m1", content="Hi")])
    body = parse(made.model_dump_json(by_alias=True).encode(), AGUIBody)
    assert (body.thread_id, body.run_id) == ("t-1", "r-1")
    assert body.messages[0].message().parts[0].text == "Hi"  # type: ignore[union-attr]
