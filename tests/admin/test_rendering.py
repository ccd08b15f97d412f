"""How messages are shown: indented JSON, plain text or hexadecimal, each up to a limit."""

import time

from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.admin.rendering import (
    LIST_LIMIT,
    PAGE_LIMIT,
    DisplayedMessage,
    DisplayLimit,
    display,
    hexadecimal,
)
from django_durable_streams.protocol.segments import Message
from django_durable_streams.store.stream_info import StreamInfo

SMALL = DisplayLimit(text=50, binary=32)


def shown(data: bytes, content_type: str = "application/json", limit: DisplayLimit = LIST_LIMIT) -> DisplayedMessage:
    return display(Message(0, len(data), data), StreamInfo(1, "a", content_type), limit)


def test_short_json_stays_on_one_line_and_longer_json_is_indented() -> None:
    assert shown(b'{"a":1,"b":[1,2]}').text == '{"a": 1, "b": [1, 2]}'
    long = b'{"a":1,"b":"%s"}' % (b"x" * 100)
    assert shown(long).text.splitlines()[:2] == ["{", '  "a": 1,']


def test_numbers_and_strings_stay_as_they_were_written() -> None:
    text = shown(b'[12345678901234567890,1.0,1e400,"\\u00e9","<b>&"]').text
    assert text == '[12345678901234567890, 1.0, 1e400, "\\u00e9", "<b>&"]'


def test_json_that_cannot_be_indented_is_shown_unchanged() -> None:
    half = b'{"token":"\\ud83d"}'
    assert shown(half).text == half.decode()


def test_deep_json_costs_no_more_than_flat() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    begin = time.perf_counter()
    assert len(shown(deep, limit=PAGE_LIMIT).text) == 200_000
    assert time.perf_counter() - begin < 2
    brackets = b'{"a":"%s"}' % (b"[{" * 100)
    assert shown(brackets).text.startswith("{\n")  # those in strings do not count


def test_text_is_cut_between_characters() -> None:
    cut = shown("é".encode() * 100, "text/plain", DisplayLimit(text=51, binary=1))
    assert cut.is_cut
    assert cut.text == "é" * 25
    whole = shown(b"one\r\ntwo\n", "text/plain")
    assert (whole.text, whole.is_cut) == ("one\ntwo\n", False)


def test_invalid_utf8_and_control_characters_are_visible() -> None:
    assert shown(b"a\xffb\x00\x1b[31m\x7f\t", "text/plain").text == "a\ufffdb\u2400\u241b[31m\u2421\t"


def test_bytes_are_shown_in_hexadecimal() -> None:
    first, second = shown(bytes(range(0x3B, 0x50)), "image/png").text.splitlines()
    assert first == "00000000  3b 3c 3d 3e 3f 40 41 42  43 44 45 46 47 48 49 4a  ;<=>?@ABCDEFGHIJ"
    assert second == f"00000010  {'4b 4c 4d 4e 4f':23}  {'':23}  KLMNO"
    assert shown(b"x" * 33, "image/png", SMALL).is_cut
    assert not shown(b"x" * 32, "image/png", SMALL).is_cut


@given(st.binary(max_size=200))
def test_hexadecimal_has_every_byte(data: bytes) -> None:
    assert bytes.fromhex("".join(line[10:58] for line in hexadecimal(data).splitlines())) == data


@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/plain", "image/png"]))
def test_any_message_is_shown_within_the_limit(data: bytes, content_type: str) -> None:
    message = shown(data, content_type, SMALL)
    assert message.size == len(data)
    if content_type != "image/png":
        assert len(message.text) <= 50
    assert message.is_cut or content_type == "image/png" or len(data) <= 50
