"""Text in Python and in the admin: a character is in the message that completes it, wherever appends have cut it."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from django_durable_streams.models import Stream
from django_durable_streams.protocol import content

TEXT = "text/plain"
EURO = "€".encode()


@pytest.fixture
def stream(db: None) -> Stream:
    return Stream.objects.create(path="a", content_type=TEXT)


def test_reading_gives_whole_characters(stream: Stream) -> None:
    stream.append(b"ab" + EURO[:2])
    assert list(stream.read()) == ["ab"]
    stream.append(EURO[2:] + b"c")
    assert list(stream.read()) == ["ab", "€c"]


def test_reading_on_loses_and_doubles_nothing(stream: Stream) -> None:
    seen, offset = "", "-1"
    for piece in (b"ab" + EURO[:1], EURO[1:2], EURO[2:], b"\xff", "ü".encode()[:1], "ü".encode()[1:]):
        stream.append(piece)
        seen += "".join(stream.read(offset))
        offset = stream.next_offset
    assert seen == "ab€\ufffdü"


@pytest.mark.parametrize("in_one", [False, True])
def test_what_is_incomplete_at_the_end_is_replaced(stream: Stream, in_one: bool) -> None:
    stream.append(b"a" + EURO[:2], close=in_one)
    reading = stream.read()
    assert next(reading) == ("a\ufffd" if in_one else "a")
    if not in_one:
        stream.close()
    assert "".join(stream.read()) == "a\ufffd"
    assert "".join(message for page in stream.tail() for message in page) == "a\ufffd"


def test_one_that_is_closed_while_it_is_read_ends_with_it_all(stream: Stream) -> None:
    stream.append(b"a" + EURO[:2])
    reading = stream.read()
    assert next(reading) == "a"
    stream.close()
    assert list(reading) == ["\ufffd"]


@pytest.mark.parametrize("value", ["€", "\U0001f600", b"\xff\xfe", EURO[1:]])
def test_every_append_is_read(stream: Stream, value: Any) -> None:
    stream.append(value)
    stream.close()
    assert list(stream.read()) == [value if isinstance(value, str) else value.decode(errors="replace")]


def test_a_fork_that_cuts_a_character_has_its_part(stream: Stream) -> None:
    stream.append("a€")
    fork = stream.fork("fork", offset="0000000000000000_0000000000000000", sub_offset=2)
    assert list(fork.read()) == ["a"]
    fork.append(EURO[1:])
    assert "".join(fork.read()) == "a€"


class TestPages:
    def test_a_page_goes_on_where_its_offset_says(self, stream: Stream) -> None:
        stream.append(b"ab" + EURO[:2])
        (page,) = stream.tail(timeout=0)
        assert (page.messages, page.next_offset, page.up_to_date) == (["ab"], stream.offset_at(2), True)
        assert list(stream.tail(page.next_offset, timeout=0)) == []
        stream.append(EURO[2:])
        (page,) = stream.tail(page.next_offset, timeout=0)
        assert (page.messages, page.next_offset) == (["€"], stream.next_offset)

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.usefixtures("engines")
    async def test_who_follows_gets_whole_characters(self) -> None:
        stream = await Stream.objects.acreate(path="a", content_type=TEXT)
        await stream.aappend(b"ab" + EURO[:1])
        pages = stream.atail(timeout=10)
        assert (await anext(pages)).messages == ["ab"]
        await stream.aappend(EURO[1:2])
        await stream.aappend(EURO[2:] + b"c" + EURO[:1])
        page = await anext(pages)
        assert page.messages == ["€c"]
        await stream.aclose()
        last = await anext(pages)
        assert (last.messages, last.closed, last.next_offset) == (["\ufffd"], True, stream.offset_at(7))
        again = [each async for each in stream.atail(page.next_offset)]
        assert [each.messages for each in again] == [["\ufffd"]]

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.usefixtures("engines")
    def test_so_does_who_follows_in_a_thread(self) -> None:
        stream = Stream.objects.create(path="a", content_type=TEXT)
        stream.append(b"ab" + EURO[:1])
        pages = stream.tail(timeout=10)
        assert next(pages).messages == ["ab"]
        stream.append(EURO[1:], close=True)
        assert [page.messages for page in pages] == [["€"]]


class TestInTheAdmin:
    @staticmethod
    def url(name: str, stream: Stream) -> str:
        return reverse(f"admin:durable_streams_stream_{name}", args=[stream.pk])

    def test_its_pages_have_whole_characters(self, admin_client: Client, stream: Stream) -> None:
        stream.append(b"ab" + EURO[:2])
        stream.append(EURO[2:] + b"c")
        page = admin_client.get(self.url("change", stream)).content.decode()
        assert "€c" in page
        assert "\ufffd" not in page
        later = admin_client.get(self.url("change", stream), {"from": "4"}).content.decode()
        assert "€c" in later
        alone = admin_client.get(self.url("message", stream), {"from": "4"}).content.decode()
        assert "€c" in alone

    def test_so_has_its_tail(self, admin_client: Client, stream: Stream) -> None:
        stream.append(b"ab" + EURO[:2])
        assert admin_client.get(self.url("tail", stream), {"from": "4"}).status_code == 204
        stream.append(EURO[2:])
        news = admin_client.get(self.url("tail", stream), {"from": "4"}).json()
        assert "€" in news["html"]
        assert "\ufffd" not in news["html"]

    def test_a_download_has_the_bytes(self, admin_client: Client, stream: Stream) -> None:
        stream.append(b"ab" + EURO[:2])
        stream.append(EURO[2:] + b"c")
        assert admin_client.get(self.url("download", stream), {"from": "0"}).content == b"ab" + EURO[:2]
        assert admin_client.get(self.url("download", stream), {"from": "4"}).content == EURO[2:] + b"c"


@pytest.mark.parametrize("kind", ["text/plain", "TEXT/plain", "text/html; charset=latin-1"])
def test_every_kind_of_text_is_utf_8(db: None, kind: str) -> None:
    assert content.holds_text(kind)
    stream = Stream.objects.create(path="a", content_type=kind, data="ü")
    assert list(stream.read()) == ["ü"]
