"""Text in pieces: what is handed out is whole, nothing is lost, and hardly anything is held back."""

import codecs

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_durable_streams.protocol import sse, text
from django_durable_streams.protocol.segments import Segment
from django_durable_streams.protocol.values import MessageReader
from tests.event_stream import parse

# Of all kinds of UTF-8: what begins a character of 2, 3 and 4 bytes, what goes on with it, and what never can be.
PARTS = [
    b"a",
    b"\xc3",
    b"\xa9",
    b"\xe2",
    b"\x82",
    b"\xac",
    b"\xf0",
    b"\x9f",
    b"\x98",
    b"\x80",
    b"\xed",
    b"\xff",
    b"\xc0",
]
pieces = st.lists(
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map(b"".join) | st.binary(min_size=1, max_size=5),
    max_size=8,
)


@given(pieces)
@example([b"\xe2\x82", b"\xac"])
@example([b"\xf0", b"\x9f", b"\x98", b"\x80"])
def test_what_is_handed_out_is_what_a_decoder_of_the_whole_says(parts: list[bytes]) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    held = b""
    for part in parts:
        result, held = text.split(held + part)
        assert text.decode(result) == decoder.decode(part)
        assert len(held) <= text.MAX_HELD
    result, held = text.split(held, final=True)
    assert held == b""
    assert text.decode(result) == decoder.decode(b"", final=True)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        *[(b"", 0), (b"a", 0), (b"\xe2", 1), (b"a\xe2\x82", 2), ("€".encode(), 0), (b"\xf0\x9f\x98", 3), (b"\xe2a", 0)],
        # What cannot go on is held by nobody.
        *[(b"\xff", 0), (b"\x80\x80\x80", 0), (b"\xc0", 0), (b"\xe0\x80", 0), (b"\xf5\x80\x80", 0)],
    ],
)
def test_only_what_can_become_a_character_is_held_back(data: bytes, count: int) -> None:
    assert text.incomplete(data) == count
    assert text.split(data) == (data[: len(data) - count], data[len(data) - count :])
    assert text.split(data, final=True) == (data, b"")


@given(pieces)
def test_valid_is_what_a_decoder_says(parts: list[bytes]) -> None:
    data = b"".join(parts)
    assert text.valid(data) == data.decode(errors="replace").encode()


def segments(parts: list[bytes], per: int) -> list[Segment]:
    """Parts as appends, some of them in each segment."""
    result, start = [], 0
    for first in range(0, len(parts), per):
        some = parts[first : first + per]
        ends = [start + len(b"".join(some[: count + 1])) for count in range(len(some))]
        result.append(Segment(start, b"".join(some), ends))
        start = ends[-1]
    return result


@given(pieces, st.integers(1, 3), st.booleans())
def test_messages_join_to_the_whole_text(parts: list[bytes], per: int, is_closed: bool) -> None:
    reader = MessageReader("text/plain")
    whole, result = segments(parts, per), []
    for segment in whole:
        result += reader.messages(segment, final=is_closed and segment is whole[-1])
    data = b"".join(parts)
    assert "".join(result) == text.decode(text.split(data, final=is_closed)[0])
    assert data.endswith(reader.held)
    assert len(result) <= len(parts)


@given(pieces, st.integers(1, 3))
def test_messages_of_valid_text_never_have_half_a_character(parts: list[bytes], per: int) -> None:
    data = b"".join(parts).decode(errors="ignore").encode()
    cuts = [data[first : first + 2] for first in range(0, len(data), 2)]
    reader = MessageReader("text/plain")
    result = [message for segment in segments(cuts, per) for message in reader.messages(segment, final=False)]
    assert "".join(result).encode() == data


newlines = st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\xe2", b"\x82", b"\xac", b" "]), min_size=1, max_size=5)


@given(st.lists(newlines.map(b"".join), max_size=8))
@example([b"a\r", b"\nb"])
def test_events_join_to_the_whole_text_wherever_it_was_cut(parts: list[bytes]) -> None:
    held, events = b"", b""
    for segment in segments(parts, 1):
        event, held = segment.data_event("text/plain", held)
        events += event
    if held:
        events += sse.data_event("text/plain", held)
    whole = text.decode(b"".join(parts)).replace("\r\n", "\n").replace("\r", "\n")
    assert "".join(parse(events).data) == whole


def test_an_event_is_made_once_for_all_who_hold_nothing_back() -> None:
    segment = Segment(0, b"a\xe2\x82", [3])
    event, held = segment.data_event("text/plain")
    assert (parse(event).data, held) == (["a"], b"\xe2\x82")
    assert segment.data_event("text/plain")[0] is event
    assert parse(segment.data_event("text/plain", b"\xe2\x82\xac")[0]).data == ["€a"]
    assert segment.data_event("text/plain")[0] is event
    assert parse(segment.data_event("text/plain", final=True)[0]).data == ["a\ufffd"]


@pytest.mark.parametrize("kind", ["application/json", "a/b"])
def test_other_types_hold_nothing_back(kind: str) -> None:
    assert Segment(0, b"1\xe2\n", [3]).data_event(kind)[1] == b""
