"""Events of chats: the short ways of encoding and decoding text make the same of it as the long ones."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.contrib.ai.events import (
    AnyEvent,
    Data,
    Failed,
    Finish,
    Reasoning,
    Stopped,
    Text,
    _Stored,
    decode,
    encode,
    encode_line,
    ends,
)
from django_durable_streams.store import encoding

JSON = "application/json"

values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "run"]), inner),
    max_leaves=6,
)


@given(st.text(), st.sampled_from([Text, Reasoning]))
def test_a_line_of_text_is_that_of_the_stream(text: str, kind: type[Text | Reasoning]) -> None:
    event = kind(text)
    line = encode_line(event)
    assert line is not None
    assert line.count(b"\n") == 1
    assert json.loads(line) == json.loads(encoding.encode(JSON, encode(event)))
    assert decode(msgspec.json.decode(line)) == event


class Loud(str):
    """Text of a class of the project."""

    __slots__ = ()


@pytest.mark.parametrize("event", [Text("half of a pair: \ud800"), Text(Loud("a")), Data("a", 1), Finish("r")])
def test_all_else_is_left_to_the_stream(event: AnyEvent) -> None:
    assert encode_line(event) is None


@given(st.fixed_dictionaries({"type": st.just("text")}, optional={"text": values, "more": values}) | values)
def test_a_value_is_decoded_as_a_struct_decodes_it(value: object) -> None:
    try:
        expected: AnyEvent | None = msgspec.convert({"event": value}, _Stored).event
    except msgspec.ValidationError:
        expected = None
    assert decode(value) == expected


@pytest.mark.parametrize("event", [Finish("r"), Stopped("r"), Failed("r")])
def test_an_end_is_that_of_its_run(event: AnyEvent) -> None:
    assert ends(event, "r")
    assert not ends(event, "other")
    assert not ends(Text("r"), "r")
    assert not ends(None, "r")
