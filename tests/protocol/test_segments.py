"""Segments, against lists of appends."""

import json
from base64 import b64encode
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import segments
from django_durable_streams.protocol.segments import Segment

appends_lists = st.lists(st.binary(min_size=1, max_size=6), min_size=1, max_size=8)
starts = st.integers(0, 50)


def make(start: int, appends: list[bytes]) -> Segment:
    ends, position = [], start
    for append in appends:
        position += len(append)
        ends.append(position)
    return Segment(start, b"".join(appends), ends)


def taken_apart(segment: Segment) -> list[tuple[int, bytes]]:
    """The appends of a segment, each with its start."""
    assert segment.end == segment.start + len(segment.data) == segment.ends[-1]
    result, position = [], segment.start
    for end in segment.ends:
        assert end > position
        result.append((position, segment.data[position - segment.start : end - segment.start]))
        position = end
    return result


@given(starts, appends_lists, st.integers(0, 120))
def test_upto_keeps_the_appends_that_end_in_time_and_always_the_first(
    start: int, appends: list[bytes], limit: int
) -> None:
    whole = make(start, appends)
    result = taken_apart(whole.upto(limit))
    expected = [(at, data) for at, data in taken_apart(whole) if at + len(data) <= limit]
    assert result == (expected or taken_apart(whole)[:1])


@given(starts, appends_lists, st.integers(0, 120))
def test_upto_says_that_it_is_full_exactly_when_it_has_left_something_out(
    start: int, appends: list[bytes], limit: int
) -> None:
    whole = make(start, appends)
    assert whole.upto(limit).full == (whole.upto(limit).end < whole.end)


@given(starts, st.lists(st.binary(min_size=1, max_size=6), min_size=3, max_size=8), st.data())
def test_a_part_that_reaches_the_end_of_a_full_segment_is_full_too(
    start: int, appends: list[bytes], data: st.DataObject
) -> None:
    whole = make(start, appends)
    result = whole.upto(data.draw(st.sampled_from(whole.ends[1:])))
    part = result.after(whole.ends[0])
    assert part is not None
    assert part.full == result.full == (result.end < whole.end)


@given(starts, appends_lists, st.integers(0, 120))
def test_after_begins_with_the_append_that_a_position_lies_in(start: int, appends: list[bytes], position: int) -> None:
    whole = make(start, appends)
    expected = [(at, data) for at, data in taken_apart(whole) if at + len(data) > position]
    result = whole.after(position)
    assert (taken_apart(result) if result is not None else []) == expected


@given(starts, appends_lists, st.data())
def test_clip_ends_exactly_at_the_cut(start: int, appends: list[bytes], data: st.DataObject) -> None:
    whole = make(start, appends)
    cut = data.draw(st.integers(start + 1, whole.end + 3))
    clipped = whole.clip(cut)
    assert clipped.end == min(cut, whole.end)
    assert clipped.data == whole.data[: cut - start]
    expected = [(at, part[: cut - at]) for at, part in taken_apart(whole) if at < cut]
    assert taken_apart(clipped) == expected


@given(starts, st.lists(appends_lists, min_size=1, max_size=4))
def test_join_is_the_same_as_never_having_been_apart(start: int, groups: list[list[bytes]]) -> None:
    parts: list[Segment] = []
    for group in groups:
        parts.append(make(parts[-1].end if parts else start, group))
    whole = make(start, [append for group in groups for append in group])
    joined = Segment.join(parts)
    assert joined.start == start
    assert taken_apart(joined) == taken_apart(whole)


@given(starts, appends_lists, st.integers(0, 120), st.integers(0, 120))
def test_operations_leave_the_segment_as_it_was(start: int, appends: list[bytes], one: int, other: int) -> None:
    whole = make(start, appends)
    before = (whole.start, whole.data, list(whole.ends), whole.full)
    whole.upto(one)
    whole.after(other)
    whole.clip(max(one, start + 1))
    assert (whole.start, whole.data, list(whole.ends), whole.full) == before


def test_a_segment_is_encoded_once() -> None:
    segment = make(0, [b"1\n", b"2\n"])
    assert json.loads(segment.body("application/json")) == [1, 2]
    assert segment.body("application/json") is segment.body("application/json")
    binary = make(0, [b"\x00\x01"])
    event, rest = binary.data_event("a/b")
    assert b64encode(b"\x00\x01") in event
    assert rest == b""
    assert binary.data_event("a/b") is binary.data_event("a/b")


@given(starts, appends_lists, st.integers(0, 120))
def test_reading_goes_back_from_any_position(start: int, appends: list[bytes], place: int) -> None:
    segment, position = make(start, appends), start + place
    messages = [tuple(message) for message in segment.messages_before("text/plain", position)]
    expected = [*segment.clip(position).messages("text/plain")] if place else []
    assert messages[::-1] == expected


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30), st.integers(1, 9))
def test_many_messages_are_taken_apart_piece_by_piece(values: list[int], size: int) -> None:
    lines = [b"%d" % value for value in values]
    segment = make(0, [line + b"\n" for line in lines])
    with mock.patch.object(segments, "SPLIT_BYTES", size):
        messages = [*segment.messages("application/json")]
    assert [message.data for message in messages] == lines
    assert [message.end for message in messages] == segment.ends


def test_messages_are_appends_and_in_json_mode_values() -> None:
    text = Segment(10, b"onetwo", [13, 16])
    assert list(text.messages("text/plain")) == [(10, 13, b"one"), (13, 16, b"two")]
    values = Segment(10, b'{"a": 1}\n2\n3\n', [21, 23])
    assert list(values.messages("application/json")) == [(10, 19, b'{"a": 1}'), (19, 21, b"2"), (21, 23, b"3")]
