"""The last messages of a stream: exactly as many as are asked for, and offsets that meet those of all other readers."""

import json
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.models import Stream
from django_durable_streams.protocol.errors import (
    InvalidHeader,
    InvalidOffset,
    OffsetGone,
    OffsetTrimmed,
    StreamNotFound,
)
from django_durable_streams.protocol.offsets import ZERO
from django_durable_streams.store.read import browsing
from django_durable_streams.store.upkeep import compaction

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


@given(
    messages=st.lists(
        st.sampled_from([b"a", b"bc", EURO, EURO[:1], EURO[1:], EURO[:2], EURO[2:], b"\xff"]), max_size=9
    ),
    count=st.integers(1, 4),
    closed=st.booleans(),
    compact=st.booleans(),
)
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


@given(messages=st.lists(st.integers() | st.text(max_size=3), max_size=12), count=st.integers(1, 5))
def test_pages_of_any_size_have_each_value_once(messages: list[Any], count: int) -> None:
    Stream.objects.all().delete()
    stream = Stream.objects.create(path="a", content_type=JSON)
    for start in range(0, len(messages), 3):
        stream.append_many(messages[start : start + 3])
    check_pages(stream, count)
    assert json.dumps(list(stream.read())) == json.dumps(messages)


def check_pages(stream: Stream, count: int) -> None:
    expected = list(stream.read())
    page = stream.read_last(count)
    assert page.messages == expected[-count:]
    assert list(stream.read(page.next_offset)) == []
    earlier = page.messages
    while page.has_earlier:
        page = stream.read_last(count, before=page.offset)
        earlier = page.messages + earlier
        if not page.messages:
            break
    assert earlier == expected
