"""What the row of a run keeps of what users and projects send, the same on every database."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.core.serializers import deserialize, serialize

from django_durable_streams.contrib.ai.answers import Answer, AnswerContext, Run, start_answer
from django_durable_streams.contrib.ai.events import Message, TextPart

pytestmark = [pytest.mark.usefixtures("engines")]


async def echo(context: AnswerContext, value: Any) -> AsyncIterator[str]:
    yield f"{value!r}"


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


VALUES = {
    "NUL": "a\0b",
    "NUL in a key": {"\0": 1},
    "half of a pair": "\ud800",
    "long integer": 10**40,
    "integral float": 1.0,
    "infinite": float("inf"),
    "order": {"b": 1, "a": 2},
    "nested": nested(110),
    "line separators": "\u2028\u2029",
    "emoji": "\U0001f600",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_the_source_gets_the_arguments_as_they_were_given(value: Any) -> None:
    run = await start_answer("chats/1", Answer(f"{__name__}.echo", {"value": value}))
    await run.await_end()
    run = await Run.objects.aget()
    assert run.state == "done"
    assert repr(run.arguments) == repr({"value": value})


@pytest.mark.parametrize("other", ["M1", "m1 ", "\u1e3f1"])
async def test_another_message_is_no_repetition_though_its_id_is_alike(other: str) -> None:
    for id in ("m1", other):
        turn = Message(id, "user", [TextPart(id)])
        run = await start_answer("chats/1", [f"You said {id}."], turns=[turn], once=True)
        assert not run.joined
        await run.await_end()
    assert await Run.objects.acount() == 2


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
async def test_a_fixture_has_the_arguments_of_a_run(value: Any) -> None:
    run = await start_answer("chats/1", Answer(f"{__name__}.echo", {"value": value}))
    await run.await_end()
    (loaded,) = deserialize("json", serialize("json", [run]))
    copy: Any = loaded.object
    assert repr(copy.arguments) == repr({"value": value})


@pytest.mark.parametrize("value", [{}, [], {"a": 1}, 0, None, {"": ""}], ids=repr)
def test_a_value_that_is_no_text_stays_as_it_is(value: Any) -> None:
    """A fixture that was written by hand has it as JSON, and a form that was filled by a program as an object."""
    (loaded,) = deserialize("python", [{"model": "durable_streams_ai.run", "fields": {"arguments": value}}])
    copy: Any = loaded.object
    assert copy.arguments == value
