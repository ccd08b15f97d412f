"""The last messages of a stream: exactly as many as are asked for, and offsets that meet those of all other readers."""

import json
import tracemalloc
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.models import Chunk, Stream
from django_durable_streams.models.methods import LAST_PAGE_BYTES
from django_durable_streams.protocol.errors import (
    InvalidHeader,
    InvalidOffset,
    OffsetGone,
    OffsetTrimmed,
    ServiceUnavailable,
    StreamNotFound,
)
from django_durable_streams.protocol.offsets import ZERO
from django_durable_streams.store.read import browsing
from django_durable_streams.store.upkeep import compaction, key_compaction
from tests.overriding import override_streams
from tests.store.key_compaction_steps import SECOND, START, change, compact_keys, due

JSON = "application/json"
EURO = "€".encode()

pytestmark = pytest.mark.django_db


def create(kind: str, messages: list[Any], path: str = "a") -> Stream:
    stream = Stream.objects.create(path=path, content_type=kind)
    for message in messages:
        stream.append(message)
    return stream


@pytest.mark.parametrize(
    ("kind", "messages"),
    [
        (JSON, [{"n": 1}, [2, 3], "four", None, 5]),
        ("text/plain", ["one", "two", "zwölf", "four", "five"]),
        ("application/octet-stream", [b"\x00", b"\xff\xfe", b"3", b"4", b"5"]),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 4, 5, 6, 10_000])
def test_a_page_has_the_last_messages_and_meets_what_follows(kind: str, messages: list[Any], count: int) -> None:
    stream = create(kind, messages)
    page = stream.read_last(count)
    assert page.messages == [*page] == messages[-count:]
    assert len(page) == min(count, 5)
    assert page.next_offset == stream.next_offset
    assert (page.up_to_date, page.closed, page.has_earlier) == (True, False, count < 5)
    assert list(stream.read(page.offset)) == page.messages
    stream.append(messages[0])
    assert list(stream.read(page.next_offset)) == [messages[0]]


def test_earlier_pages_end_where_the_later_one_begins() -> None:
    stream = create(JSON, [*range(25)])
    pages = [stream.read_last(10)]
    while pages[0].has_earlier:
        pages.insert(0, stream.read_last(10, before=pages[0].offset))
    assert [page.messages for page in pages] == [[*range(5)], [*range(5, 15)], [*range(15, 25)]]
    assert [page.next_offset for page in pages[:-1]] == [page.offset for page in pages[1:]]
    assert [page.up_to_date for page in pages] == [False, False, True]


def test_many_messages_are_read_by_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a young stream, whose appends have a chunk each."""
    stream = create("text/plain", [f"{number:04}." for number in range(600)])
    expected = list(stream.read())
    assert stream.read_last(600).messages == expected
    monkeypatch.setattr(browsing, "PORTION_BYTES", 50)
    assert stream.read_last(123).messages == expected[-123:]


@pytest.mark.parametrize("size", [10, 1000, browsing.PORTION_BYTES // 2, browsing.PORTION_BYTES * 2])
@pytest.mark.parametrize("kind", [JSON, "text/plain"])
@pytest.mark.slow
def test_large_messages_take_several_pages(size: int, kind: str) -> None:
    stream = create(kind, [str(number) * size for number in range(9)])
    stored = size + 2 if kind == JSON else size
    for max_bytes, expected in ((1, 1), (stored, 1), (2 * stored - 1, 1), (2 * stored, 2), (9 * stored, 9)):
        page = stream.read_last(9, max_bytes=max_bytes)
        assert [message[0] for message in page] == ["0", *"12345678"][-expected:]
        assert page.has_earlier == (expected < 9)
        check_pages(stream, 4, max_bytes=max_bytes)


@pytest.mark.parametrize("held", [[EURO[:1]], [EURO[:1], EURO[1:2]]])
@pytest.mark.parametrize("max_bytes", [1, 2, 3, 4, 5, 6, 100])
def test_an_append_without_the_end_of_a_character_is_no_page(held: list[bytes], max_bytes: int) -> None:
    """A page without a message, and with others before it, would be asked for again and again."""
    stream = create("text/plain", ["one", "four", *held])
    page = stream.read_last(9, max_bytes=max_bytes)
    assert page.messages[-1:] == ["four"]
    assert page.has_earlier == (len(page.messages) == 1)
    check_pages(stream, 9, max_bytes=max_bytes)


def test_by_default_a_page_has_room_for_a_few_megabytes() -> None:
    """Clients send the messages, and a worker has one memory."""
    stream = create(JSON, ["x" * 1_000_000 for _ in range(9)])
    page = stream.read_last(9)
    assert (len(page), page.has_earlier) == (4, True)
    assert len(stream.read_last(9, max_bytes=10_000_000)) == 9


@pytest.mark.parametrize("max_bytes", [0, -1, 2**31, 1.0, None])
def test_a_wrong_number_of_bytes_is_refused(max_bytes: Any) -> None:
    with pytest.raises(InvalidHeader, match="max_bytes must be a whole number from 1 to"):
        create(JSON, [1]).read_last(1, max_bytes=max_bytes)


def test_an_append_of_many_messages_costs_only_those_of_the_page() -> None:
    """A client may send millions of messages in one append. Each page would make all of them into objects."""
    stream = Stream.objects.create(path="a", content_type=JSON)
    stream.append_many([0] * 100_000)
    stream.append(1)
    tracemalloc.start()
    try:
        page = stream.read_last(3)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert page.messages == [0, 0, 1]
    assert peak < 2_000_000  # the append has 200 kB, and its messages take over 10 MB


def test_an_empty_stream_has_an_empty_page() -> None:
    page = create(JSON, []).read_last(50)
    assert (page.messages, page.has_earlier, page.up_to_date) == ([], False, True)
    assert page.offset == page.next_offset == ZERO


def test_the_last_page_of_a_closed_stream_says_so() -> None:
    stream = create(JSON, [1, 2])
    stream.close()
    page = stream.read_last(1)
    assert (page.messages, page.closed) == ([2], True)
    assert not stream.read_last(1, before=page.offset).closed


def test_a_trimmed_stream_begins_at_its_first_offset() -> None:
    stream = Stream.objects.create(path="a", content_type=JSON)
    offsets = [stream.append(number).offset for number in range(5)]
    stream.trim(before=offsets[2])
    page = stream.read_last(10)
    assert (page.messages, page.offset, page.has_earlier) == ([3, 4], offsets[2], False)
    assert stream.read_last(10, before=offsets[2]).messages == []
    with pytest.raises(OffsetTrimmed):
        stream.read_last(10, before=offsets[1])
    stream.trim(before="now")
    page = stream.read_last(10)
    assert (page.messages, page.offset, page.next_offset) == ([], offsets[4], offsets[4])


def test_a_fork_has_messages_of_its_sources() -> None:
    source = create(JSON, [1, 2, 3])
    fork = source.fork("fork", offset=source.read_last(1).offset)
    fork.append(4)
    page = fork.read_last(2)
    assert page.messages == [2, 4]
    assert fork.read_last(2, before=page.offset).messages == [1]


def test_it_reads_in_the_transaction_of_its_caller() -> None:
    stream = create(JSON, [1])
    with transaction.atomic():
        stream.append(2)
        assert stream.read_last(1).messages == [2]
        transaction.set_rollback(True)
    assert stream.read_last(1).messages == [1]


@pytest.mark.parametrize("count", [0, -1, 10_001, 1.0, True, "5", None])
def test_a_wrong_number_is_refused(count: Any) -> None:
    with pytest.raises(InvalidHeader, match="count must be a whole number from 1 to 10000"):
        create(JSON, [1]).read_last(count)


def test_wrong_offsets_are_refused() -> None:
    stream = create(JSON, [1])
    assert stream.read_last(1, before="-1").messages == []
    with pytest.raises(InvalidOffset):
        stream.read_last(1, before="later")
    with pytest.raises(OffsetGone):
        stream.read_last(1, before=create(JSON, [1, 2, 3], "b").next_offset)


def test_a_deleted_stream_has_no_page() -> None:
    stream = create(JSON, [1])
    Stream.objects.get(path="a").delete()
    create(JSON, [2])
    with pytest.raises(StreamNotFound):
        stream.read_last(1)


@pytest.mark.django_db(transaction=True)
def test_asynchronous_code_has_the_same() -> None:
    stream = create(JSON, [1, 2, 3])
    page = async_to_sync(stream.aread_last)(2)
    assert page == stream.read_last(2)
    assert async_to_sync(stream.aread_last)(2, before=page.offset).messages == [1]


def test_a_character_is_in_the_message_that_completes_it() -> None:
    stream = create("text/plain", [b"a" + EURO[:1], EURO[1:2], EURO[2:] + b"b" + EURO[:2]])
    assert list(stream.read()) == ["a", "€b"]
    page = stream.read_last(2)
    assert page.messages == ["a", "€b"]
    stream.append(EURO[2:])
    assert list(stream.read(page.next_offset)) == ["€"]
    assert stream.read_last(1).messages == ["€"]
    assert stream.read_last(2, before=stream.read_last(1).offset).messages == ["a", "€b"]


LARGE = browsing.PORTION_BYTES + 1


@pytest.mark.parametrize("size", [1, LARGE])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_page_may_end_where_a_reader_holds_back_a_character(size: int, count: int) -> None:
    stream = create("text/plain", ["x" * size, b"y" * size + EURO[:1]])
    end = stream.read_last(1).next_offset
    stream.append(EURO[1:])
    page = stream.read_last(count, before=end)
    assert [*map(len, page)] == [size, size][-count:]
    assert page.next_offset == end
    assert "".join(map(str, stream.read(end))) == "€"


@pytest.mark.parametrize("kind", ["application/octet-stream", "text/plain"])
@pytest.mark.parametrize("size", [2, 1000, LARGE])
@pytest.mark.parametrize("own", [[], ["a"], ["a", "b" * 1000]])
def test_a_fork_that_cuts_an_append_has_its_part(kind: str, size: int, own: list[str]) -> None:
    source = create(kind, [b"x" * size, b"y" * size])
    fork = source.fork("fork", offset=source.offset_at(size), sub_offset=1)
    before = fork.next_offset
    for message in own:
        fork.append(message.encode())
    expected = list(fork.read())
    assert len(expected) == 2 + len(own)
    assert fork.read_last(9).messages == expected
    check_pages(fork, 1)
    assert source.read_last(2, before=before).messages == expected[:2]


def test_the_first_message_has_none_before_it() -> None:
    """Also where the stream has data before it that is no message."""
    page = create("text/plain", [EURO[:1], EURO[1:], "b"]).read_last(5)
    assert (page.messages, page.has_earlier) == (["€", "b"], False)


@pytest.mark.parametrize("size", [10, 1000, LARGE])
def test_messages_before_removed_ones_are_reached(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(key_compaction, "MIN_DIRTY_BYTES", 1)
    monkeypatch.setattr(key_compaction, "DIRTY_SHARE", 1 << 40)
    with override_streams(KEY_COMPACTION={"a": {"delay": 60}}):
        stream = create(JSON, [1, *(change("key", "x" * size) for _ in range(2_000_000 // size if size > 999 else 9))])
        stream.append_many([change("key", "new"), 2])
        due(START)
        compact_keys(START + 61 * SECOND)
    expected = list(stream.read())
    assert expected == [1, change("key", "new"), 2]
    assert [stream.read_last(count).messages for count in (1, 2, 3, 9)] == [expected[-count:] for count in (1, 2, 3, 9)]
    check_pages(stream, 1)


def test_damaged_data_is_no_end_of_the_messages() -> None:
    stream = create("text/plain", ["x" * LARGE, "y" * LARGE])
    Chunk.objects.unguarded().filter(stream_id=stream.pk, start=0).delete()
    assert len(stream.read_last(1).messages) == 1
    with pytest.raises(ServiceUnavailable, match="damaged"):
        stream.read_last(2)


def test_data_that_is_trimmed_meanwhile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = create("text/plain", ["a", "b", "c"])
    read = browsing._read

    def trim_and_read(*args: Any) -> Any:
        Stream.objects.get(path="a").trim(before=stream.offset_at(1))
        Chunk.objects.unguarded().filter(stream_id=stream.pk, start=0).delete()
        return read(*args)

    monkeypatch.setattr(browsing, "_read", trim_and_read)
    page = stream.read_last(3)
    assert (page.messages, page.has_earlier) == (["b", "c"], False)


@given(
    messages=st.lists(
        st.sampled_from([b"a", b"bc", EURO, EURO[:1], EURO[1:], EURO[:2], EURO[2:], b"\xff"]), max_size=9
    ),
    count=st.integers(1, 4),
    closed=st.booleans(),
    compact=st.booleans(),
)
@pytest.mark.slow
def test_pages_of_any_size_have_the_whole_text_once(
    messages: list[bytes], count: int, closed: bool, compact: bool
) -> None:
    Stream.objects.all().delete()
    stream = create("text/plain", messages)
    if closed:
        stream.close()
    if compact:
        compaction.compact("default", [stream.pk])
    check_pages(stream, count)
    check_pages(stream, count, max_bytes=4)


@given(
    messages=st.lists(st.integers() | st.text(max_size=3), max_size=12),
    count=st.integers(1, 5),
    max_bytes=st.integers(1, 20),
)
@pytest.mark.slow
def test_pages_of_any_size_have_each_value_once(messages: list[Any], count: int, max_bytes: int) -> None:
    Stream.objects.all().delete()
    stream = Stream.objects.create(path="a", content_type=JSON)
    for start in range(0, len(messages), 3):
        stream.append_many(messages[start : start + 3])
    check_pages(stream, count)
    check_pages(stream, count, max_bytes=max_bytes)
    assert json.dumps(list(stream.read())) == json.dumps(messages)


def check_pages(stream: Stream, count: int, max_bytes: int = LAST_PAGE_BYTES) -> None:
    expected = list(stream.read())
    page = stream.read_last(count, max_bytes=max_bytes)
    if max_bytes == LAST_PAGE_BYTES:
        assert page.messages == expected[-count:]
    assert list(stream.read(page.next_offset)) == []
    earlier = page.messages
    assert earlier or not page.has_earlier
    while page.has_earlier:
        page = stream.read_last(count, before=page.offset, max_bytes=max_bytes)
        earlier = page.messages + earlier
    assert earlier == expected
