"""Messages for people: a few at a time, forwards and backwards, through forks, with bounded reads."""

import json
import tracemalloc
from collections.abc import Callable, Mapping
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.protocol.segments import Message, Segment
from django_durable_streams.store.read import browsing, log_reader
from django_durable_streams.store.stream_info import StreamInfo
from django_durable_streams.store.upkeep import compaction

pytestmark = pytest.mark.django_db

KIB = 1024


def info(stream: Stream) -> StreamInfo:
    return log_reader.find_ids([stream.pk], "default")[stream.pk]


def after(stream: Stream, position: int, limit: int = 64 * KIB, count: int = 100) -> list[Message]:
    return browsing.after(info(stream), position, limit=limit, count=count, using="default")


def before(stream: Stream, position: int, limit: int = 64 * KIB, count: int = 100) -> list[Message]:
    return browsing.before(info(stream), position, limit=limit, count=count, using="default")


def forwards(stream: Stream, limit: int, count: int) -> list[bytes]:
    messages: list[Message] = []
    while page := after(stream, messages[-1].end if messages else 0, limit, count):
        assert len(page) <= count
        messages += page
    return [message.data for message in messages]


def backwards(stream: Stream, limit: int, count: int) -> list[bytes]:
    messages: list[Message] = []
    while page := before(stream, messages[0].start if messages else stream.tail_position, limit, count):
        assert len(page) <= count
        messages = page + messages
    return [message.data for message in messages]


def text(path: str, *messages: str) -> Stream:
    stream = Stream.objects.create(path=path, content_type="text/plain")
    for message in messages:
        stream.append(message)
    return stream


def test_messages_come_page_by_page_in_both_directions() -> None:
    stream = text("log", *(f"line {number}\n" for number in range(25)))
    assert [message.data for message in after(stream, 0, count=2)] == [b"line 0\n", b"line 1\n"]
    assert [message.data for message in before(stream, stream.tail_position, count=2)] == [b"line 23\n", b"line 24\n"]
    assert forwards(stream, 20, 4) == backwards(stream, 20, 4) == [b"line %d\n" % number for number in range(25)]


def test_a_page_begins_inside_an_append_where_a_json_message_does() -> None:
    stream = Stream.objects.create(path="json", content_type="application/json")
    stream.append_many({"n": number} for number in range(100))
    first = after(stream, 0, count=30)
    second = after(stream, first[-1].end, count=30)
    assert json.loads(second[0].data) == {"n": 30}
    assert json.loads(before(stream, second[0].start, count=1)[0].data) == {"n": 29}
    assert len(forwards(stream, 50, 7)) == len(backwards(stream, 50, 7)) == 100


def test_the_pages_of_a_fork_reach_back_into_its_sources() -> None:
    source = text("a", "one", "two", "three")
    middle = source.fork("b", offset=source.offset_at(6))
    middle.append("four")
    last = middle.fork("c")
    last.append("five")
    assert forwards(last, 1, 3) == backwards(last, 1, 3) == [b"one", b"two", b"four", b"five"]
    assert [message.data for message in before(last, last.tail_position)] == [b"one", b"two", b"four", b"five"]


def test_a_fork_that_is_cut_inside_an_append_shows_its_part_of_the_append() -> None:
    source = text("a", "one", "twofold")
    fork = source.fork("b", offset=source.offset_at(3), sub_offset=3)
    fork.append("three")
    assert backwards(fork, 100, 10) == forwards(fork, 100, 10) == [b"one", b"two", b"three"]


@pytest.mark.parametrize("direction", [after, before])
@pytest.mark.slow
def test_a_page_of_an_append_with_many_messages_makes_objects_of_its_own_messages_only(
    direction: Callable[..., list[Message]],
) -> None:
    stream = Stream.objects.create(path="json", content_type="application/json")
    stream.append_many([0] * 100_000)
    tracemalloc.start()
    try:
        page = direction(stream, 0 if direction is after else stream.tail_position, count=3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [message.data for message in page] == [b"0"] * 3
    assert peak < 2_000_000  # the append has 200 kB, and its messages take over 10 MB


def test_no_message_is_before_the_start_or_after_the_end() -> None:
    empty = Stream.objects.create(path="empty")
    assert after(empty, 0) == before(empty, 0) == []
    stream = text("log", "one")
    assert before(stream, 0) == after(stream, stream.tail_position) == []
    assert [message.data for message in before(stream, 10**15)] == [b"one"]


def test_missing_data_ends_a_page() -> None:
    stream = text("log", "one", "two", "three")
    Chunk.objects.filter(stream=stream, start=3).unguarded().delete()
    assert [message.data for message in before(stream, stream.tail_position)] == [b"three"]
    assert after(stream, 3) == []
    assert [message.data for message in before(stream, 5)] == [b"one"]


@pytest.mark.parametrize("compacted", [False, True])
def test_a_page_of_a_long_stream_takes_no_more_queries_and_data(compacted: bool, django_assert_max_num_queries) -> None:  # type: ignore[no-untyped-def]
    stream = Stream.objects.create(path="big")
    for _ in range(40):
        stream.append(b"x" * 100 * KIB)
    if compacted:
        assert compaction.compact("default", [stream.pk])
    read: list[int] = []

    def measured(rows: Mapping[int, Segment]) -> list[Segment]:
        read.append(sum(len(segment.data) for segment in rows.values()))
        return original(rows)

    original = log_reader._runs
    with mock.patch.object(log_reader, "_runs", measured), django_assert_max_num_queries(14):
        assert len(after(stream, 0, 250 * KIB)) == 2
        assert len(after(stream, stream.tail_position // 2, 250 * KIB)) == 2
        assert before(stream, stream.tail_position, 250 * KIB)[-1].end == stream.tail_position
        assert before(stream, stream.tail_position // 2, 250 * KIB)[-1].end == stream.tail_position // 2
    # A page, and at each of its ends a chunk that reaches beyond it.
    assert max(read) <= 250 * KIB + 2 * 1024 * KIB
    if not compacted:
        assert max(read) <= 350 * KIB


@given(sizes=st.lists(st.integers(1, 40), max_size=30), limit=st.integers(1, 100), count=st.integers(1, 7))
@pytest.mark.slow
def test_pages_have_each_message_exactly_once(sizes: list[int], limit: int, count: int) -> None:
    Stream.objects.all().delete()
    stream = text("log", *(f"{number:02}".ljust(size + 2, ".") for number, size in enumerate(sizes)))
    compaction.compact("default", [stream.pk])
    expected = [message.encode() for message in stream.read()]
    assert forwards(stream, limit, count) == backwards(stream, limit, count) == expected
