"""Framing of events, read back by a parser of its own."""

import json
from base64 import b64decode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_durable_streams.protocol import content, sse
from tests.event_stream import parse

hostile = st.lists(
    st.sampled_from(
        ["\n", "\r", "\r\n", " ", "  ", ":", "data:", "event: control", "event: data\ndata: x\n\n", "id: 1"]
    )
    | st.text(max_size=5),
    max_size=10,
).map("".join)


def normal(text: str) -> str:
    """Text with the one line break that is left of three, once it has been through an event stream."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


@given(hostile)
@example(" leading space")
@example("a\n b\n  c")
@example("\n")
@example("\r\n\r\n")
@example("a\r")
@example("x\n\nevent: control\ndata: {}\n\n")
def test_text_comes_through_with_its_spaces_and_forges_no_event(text: str) -> None:
    parsed = parse(sse.data_event("text/plain", text.encode()))
    assert [(event.kind, event.data) for event in parsed.events] == [("data", normal(text))]
    assert parsed.comments == []


@given(hostile, hostile)
def test_an_event_leaves_the_one_behind_it_alone(one: str, other: str) -> None:
    raw = sse.data_event("text/plain", one.encode()) + sse.data_event("text/plain", other.encode())
    assert parse(raw).data == [normal(one), normal(other)]


@given(st.lists(st.text(), min_size=1, max_size=4))
def test_messages_come_as_an_array(texts: list[str]) -> None:
    stored = content.pack("application/json", json.dumps(texts, indent=1, ensure_ascii=False).encode())
    (data,) = parse(sse.data_event("application/json", stored)).data
    assert json.loads(data) == texts


@given(st.binary(min_size=1))
def test_everything_else_comes_in_base64_that_decodes_on_its_own(stored: bytes) -> None:
    (data,) = parse(sse.data_event("application/octet-stream", stored)).data
    assert b64decode(data, validate=True) == stored


def test_a_payload_follows_its_field_name_without_a_space() -> None:
    assert sse.data_event("text/plain", b"a\nb") == b"event: data\ndata:a\ndata:b\n\n"


@given(st.text("0123456789_", min_size=1), st.integers(0), st.booleans(), st.booleans())
def test_control_events_are_flat_json(offset: str, cursor: int, up_to_date: bool, closed: bool) -> None:
    raw = sse.control_event(offset, cursor=cursor, up_to_date=up_to_date, closed=closed)
    (fields,) = parse(raw).controls
    expected: dict[str, object] = {"streamNextOffset": offset}
    expected |= {"streamClosed": True} if closed else {"streamCursor": str(cursor)}
    expected |= {"upToDate": True} if up_to_date else {}
    assert fields == expected


@pytest.mark.parametrize("content_type", ["text/plain", "application/json"])
def test_a_keep_alive_is_no_event(content_type: str) -> None:
    parsed = parse(sse.KEEP_ALIVE + sse.data_event(content_type, b"1\n"))
    assert len(parsed.events) == 1
    assert len(parsed.comments) == 1
