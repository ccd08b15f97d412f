"""Sparse segments, against lists of messages: whatever is removed, each other message keeps its position."""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol.segments import Segment
from django_durable_streams.store import chunk_rows

JSON = "application/json"

appends_lists = st.lists(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=3), min_size=1, max_size=6
)
"""Appends: of each message its length, and whether it stays."""

Placed = tuple[int, int, bytes]


def make(start: int, appends: list[list[tuple[int, bool]]]) -> tuple[Segment, list[Placed]]:
    """Return a segment as key compaction leaves it, and its messages with the positions around them."""
    position, messages = start, []
    ends: list[int] = []
    places: list[int] = []
    data = b""
    for append in appends:
        goes_on = False
        for length, stays in append:
            line = b"%d" % (10**length) + b"\n"
            if stays:
                messages.append((position, position + len(line), line[:-1]))
                data += line
                if goes_on:
                    ends[-1], places[-1] = position + len(line), len(data)
                else:
                    ends.append(position + len(line))
                    places.append(len(data))
            goes_on = stays
            position += len(line)
    if not ends or ends[-1] < position:
        ends.append(position)
        places.append(len(data))
    return Segment(start, data, ends, places=places), messages


def taken_apart(segment: Segment) -> list[Placed]:
    return [tuple(message) for message in segment.messages(JSON)]


@given(st.integers(0, 50), appends_lists)
def test_messages_keep_their_positions(start: int, appends: list[list[tuple[int, bool]]]) -> None:
    segment, messages = make(start, appends)
    assert taken_apart(segment) == messages
    segment.pack()
    assert taken_apart(segment) == messages
    for begin, end, data in messages:
        index = segment.index(begin)
        assert segment.data[index : index + len(data)] == data
        assert segment.position(index + len(data) + 1) == end


@given(st.integers(0, 50), appends_lists, st.integers(0, 200))
def test_reading_goes_on_at_any_position(start: int, appends: list[list[tuple[int, bool]]], place: int) -> None:
    segment, messages = make(start, appends)
    position = min(start + place, segment.end - 1)
    expected = [message for message in messages if message[1] > position]
    after = segment.after(position)
    assert after is not None
    assert after.end == segment.end
    assert [message for message in taken_apart(after) if message[1] > position] == expected
    assert [tuple(message) for message in segment.messages_after(JSON, position)] == expected
    if position in {begin for begin, _, _ in messages} | {end for _, end, _ in messages}:
        assert taken_apart(segment.beginning(position)) == expected


@given(st.integers(0, 50), appends_lists, st.integers(0, 200))
def test_reading_goes_back_from_any_position(start: int, appends: list[list[tuple[int, bool]]], place: int) -> None:
    segment, messages = make(start, appends)
    expected = [message for message in messages if message[1] <= start + place]
    assert [tuple(message) for message in segment.messages_before(JSON, start + place)] == expected[::-1]


@given(st.integers(0, 50), appends_lists, st.integers(0, 60))
def test_a_part_ends_by_its_bytes(start: int, appends: list[list[tuple[int, bool]]], size: int) -> None:
    segment, messages = make(start, appends)
    part = segment.upto(start + size)
    rest = segment.after(part.end)
    assert taken_apart(part) + ([] if rest is None else taken_apart(rest)) == messages
    assert len(part.data) <= size or len(part.ends) == 1
    if part is not segment:
        assert part.full


@given(st.integers(0, 50), appends_lists, st.integers(0, 9))
def test_a_fork_has_what_ends_before_its_cut(start: int, appends: list[list[tuple[int, bool]]], number: int) -> None:
    segment, messages = make(start, appends)
    lines = [10**length for append in appends for length, _ in append]
    ends = [*accumulate((len(str(line)) + 1 for line in lines), initial=start)][1:]
    cut = ends[number % len(ends)]
    clipped = segment.clip(cut)
    assert clipped.end == cut
    assert taken_apart(clipped) == [message for message in messages if message[1] <= cut]


@given(appends_lists, appends_lists, st.booleans())
def test_neighbours_are_one_segment_and_one_chunk(
    first: list[list[tuple[int, bool]]], second: list[list[tuple[int, bool]]], is_dense: bool
) -> None:
    one, before = make(7, [[(length, True) for length, _ in append] for append in first] if is_dense else first)
    if is_dense:
        one = Segment(7, one.data, one.ends)
    other, after = make(one.end, second)
    joined = Segment.join([one, other])
    assert (joined.start, joined.end) == (7, other.end)
    assert taken_apart(joined) == before + after
    packed = chunk_rows.pack_layout(7, joined.ends, joined.places)
    stored = chunk_rows.segment_of(7, joined.end, joined.data, packed)
    assert stored is not None
    assert taken_apart(stored) == before + after
    assert chunk_rows.data_size(7, joined.end, len(packed), packed[-4:]) == len(joined.data)
    checked = chunk_rows.checked_segment(7, joined.end, joined.data, packed)
    assert checked.ends == stored.ends


@given(appends_lists, st.binary(max_size=40))
def test_a_damaged_layout_is_found(appends: list[list[tuple[int, bool]]], packed: bytes) -> None:
    segment, _ = make(0, appends)
    for data in (segment.data + b"x", segment.data[1:]):
        own = chunk_rows.pack_layout(0, segment.ends, segment.places)
        if len(data) not in (len(segment.data), segment.end) and segment.data:
            assert chunk_rows.segment_of(0, segment.end, data, own) is None
    found = chunk_rows.segment_of(0, segment.end, segment.data, packed)
    assert found is None or found.end == segment.end


def test_a_segment_without_messages_has_an_empty_body() -> None:
    segment, _ = make(5, [[(1, False), (2, False)]])
    assert (segment.data, segment.body(JSON), segment.data_event(JSON)) == (b"", b"[]", (b"", b""))
