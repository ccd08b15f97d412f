"""However a stream was written, cut into pages and read in batches, its messages are the same."""

from collections.abc import Sequence
from typing import Any

import pytest
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from django_durable_streams.models import Stream
from django_durable_streams.protocol import values
from django_durable_streams.store.read import log_reader
from django_durable_streams.subscriptions.consumers.messages import StoredMessage
from django_durable_streams.subscriptions.consumers.reading import StreamReader

USING = "default"

PIECES = st.lists(st.binary(min_size=1, max_size=6) | st.sampled_from(["ä".encode(), "€", "😀".encode()[:2], b"a"]))
NUMBERS = st.lists(st.lists(st.integers() | st.text(max_size=5), min_size=1, max_size=6), max_size=8)


def read_in_batches(stream: Stream, sizes: Sequence[int]) -> list[StoredMessage]:
    """Read a stream as workers do that each end after a few batches. Each goes on at the cursor of the one before."""
    result: list[StoredMessage] = []
    position: int | None = None
    for size in sizes:
        reader = StreamReader(log_reader.find_ids([stream.pk], USING)[stream.pk], position, USING)
        for _ in range(size % 3 + 1):
            taken = reader.take(size)
            assert len(taken) <= size
            result += taken
            position = taken[-1].end if taken else position
    rest = StreamReader(log_reader.find_ids([stream.pk], USING)[stream.pk], position, USING)
    while taken := rest.take(1000):
        result += taken
    return result


def check(stream: Stream, sizes: Sequence[int]) -> list[Any]:
    messages, whole = read_in_batches(stream, sizes), read_in_batches(stream, [])
    assert messages == whole
    offsets = [message.offset for message in messages]
    assert offsets == sorted(set(offsets))
    return [values.decode(stream.content_type, message.raw) for message in messages]


class ReadingTests(TestCase):
    @settings(max_examples=30)
    @given(PIECES, st.lists(st.integers(1, 4), max_size=5), st.integers(1, 12), st.booleans())
    def test_text_is_whole(self, pieces: list[Any], sizes: list[int], page_bytes: int, closes: bool) -> None:
        stream = Stream.objects.create(path="s", content_type="text/plain")
        for piece in pieces:
            stream.append(piece)
        if closes:
            stream.close()
        data = b"".join(piece.encode() if isinstance(piece, str) else piece for piece in pieces)
        with override_settings(DURABLE_STREAMS={"PAGE_BYTES": page_bytes}):
            text = "".join(check(stream, sizes))
        expected = data.decode(errors="replace")
        assert text == expected if closes else expected.startswith(text)

    @settings(max_examples=30)
    @given(NUMBERS, st.lists(st.integers(1, 4), max_size=5), st.integers(1, 40))
    def test_json_is_whole(self, appends: list[list[Any]], sizes: list[int], page_bytes: int) -> None:
        stream = Stream.objects.create(path="s", content_type="application/json")
        for append in appends:
            stream.append_many(append)
        with override_settings(DURABLE_STREAMS={"PAGE_BYTES": page_bytes}):
            assert check(stream, sizes) == [value for append in appends for value in append]

    @settings(max_examples=20)
    @given(
        st.lists(st.binary(min_size=1, max_size=9), max_size=8),
        st.lists(st.integers(1, 4), max_size=5),
        st.integers(1, 9),
    )
    def test_bytes_are_whole(self, appends: list[bytes], sizes: list[int], page_bytes: int) -> None:
        stream = Stream.objects.create(path="s")
        for data in appends:
            stream.append(data)
        with override_settings(DURABLE_STREAMS={"PAGE_BYTES": page_bytes}):
            assert check(stream, sizes) == appends

    @settings(max_examples=20)
    @given(NUMBERS, NUMBERS, st.lists(st.integers(1, 4), max_size=5), st.integers(1, 40))
    def test_forks_of_forks_are_whole(
        self, first: list[list[Any]], second: list[list[Any]], sizes: list[int], page_bytes: int
    ) -> None:
        stream = Stream.objects.create(path="s", content_type="application/json")
        expected = []
        for number, append in enumerate([*first, *second]):
            stream.append_many(append)
            expected += append
            stream = stream.fork(f"fork/{number}")
        with override_settings(DURABLE_STREAMS={"PAGE_BYTES": page_bytes}):
            assert check(stream, sizes) == expected


@pytest.mark.django_db
def test_a_long_chain_of_forks_is_read_with_the_offsets_of_its_sources() -> None:
    stream = Stream.objects.create(path="s", content_type="application/json")
    sources = []
    for number in range(150):
        stream.append(number)
        sources.append(stream.next_offset)
        stream = stream.fork(f"fork/{number}")
    messages = read_in_batches(stream, [7, 1, 50])
    assert [int(message.raw) for message in messages] == list(range(150))
    assert [message.offset for message in messages] == sources
