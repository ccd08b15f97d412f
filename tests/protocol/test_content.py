"""JSON mode. The oracle is Python's own parser, which shares nothing with what splits bodies."""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_durable_streams.protocol import content, json_text
from django_durable_streams.protocol.errors import EmptyAppend, InvalidHeader, InvalidJSON
from django_durable_streams.protocol.values import decode, encode

JSON = "application/json"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)
formats: list[Callable[[Any], str]] = [
    json.dumps,
    lambda value: json.dumps(value, indent=2),
    lambda value: json.dumps(value, indent="\t").replace("\n", "\r\n"),
    lambda value: f"\r\n {json.dumps(value, separators=(',', ':'))}\n\t",
]


def refuse_constant(name: str) -> object:
    raise ValueError(name)


def oracle(body: bytes) -> Any:
    """Parse by RFC 8259 to the letter, or raise ValueError."""
    return json.loads(body.decode(), parse_constant=refuse_constant)


def messages(stored: bytes) -> list[bytes]:
    assert stored.endswith(b"\n")
    return stored[:-1].split(b"\n")


@given(values.filter(lambda value: not isinstance(value, list)), st.sampled_from(formats))
def test_a_value_becomes_one_message(value: Any, write: Callable[[Any], str]) -> None:
    stored = messages(content.pack(JSON, write(value).encode()))
    assert [json.loads(message) for message in stored] == [value]


@given(st.lists(values, min_size=1, max_size=5), st.sampled_from(formats))
def test_an_array_becomes_a_message_for_each_element(value: list[Any], write: Callable[[Any], str]) -> None:
    stored = messages(content.pack(JSON, write(value).encode()))
    assert [json.loads(message) for message in stored] == value


@given(st.lists(st.lists(values, min_size=1, max_size=3), min_size=1, max_size=4), st.sampled_from(formats))
@pytest.mark.slow
def test_appends_are_read_back_as_one_array_of_all_messages(
    batches: list[list[Any]], write: Callable[[Any], str]
) -> None:
    stored = b"".join(content.pack(JSON, write(batch).encode()) for batch in batches)
    assert json.loads(content.unpack(JSON, stored)) == [message for batch in batches for message in batch]


@pytest.mark.parametrize(
    "text",
    ["12345678901234567890", "1.0", "1E400", "-0", "1.10", r'"\u00e9"', '"é"', r'"\/"', '{"a":1,"a":2}', "9" * 5000],
    ids=lambda text: text[:20],
)
def test_a_message_comes_back_byte_for_byte(text: str) -> None:
    assert content.pack(JSON, text.encode()) == text.encode() + b"\n"
    assert content.unpack(JSON, content.pack(JSON, f"[{text}, {text}]".encode())) == f"[{text},{text}]".encode()


@pytest.mark.parametrize("line_break", ["\n", "\r", "\r\n"])
def test_line_breaks_between_tokens_become_spaces(line_break: str) -> None:
    body = f'{{{line_break}"a":{line_break}1}}'.encode()
    assert content.pack(JSON, body) == body.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n"


def test_one_level_of_array_is_flattened() -> None:
    assert messages(content.pack(JSON, b"[[1,2], [3,4]]")) == [b"[1,2]", b"[3,4]"]
    assert messages(content.pack(JSON, b"[[[1,2,3]]]")) == [b"[[1,2,3]]"]
    assert messages(content.pack(JSON, b"[[]]")) == [b"[]"]


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"[\n]"])
def test_an_empty_array_appends_nothing_and_creates_an_empty_stream(body: bytes) -> None:
    with pytest.raises(EmptyAppend):
        content.pack(JSON, body)
    assert content.pack_initial(JSON, body) == b""


@pytest.mark.parametrize(
    "body",
    [rb'"\ud83d"', rb'["\ud83d", "\ude00"]', rb'[{"token":"a\ud83d"},1 , "\udc00x"]', b'\n[ "\\ud83d"\r\n,2]\n'],
)
def test_a_lone_half_of_a_surrogate_pair_is_json(body: bytes) -> None:
    value = json.loads(body)
    stored = messages(content.pack(JSON, body))
    assert [json.loads(message) for message in stored] == (value if isinstance(value, list) else [value])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"{",
        b"nul",
        b"NaN",
        b"[1, NaN]",
        b"Infinity",
        b"-Infinity",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"0x10",
        b"'a'",
        b'"a',
        b"[1,]",
        b"[1 2]",
        b"[1]]",
        b"[1][2]",
        b"{a:1}",
        b'{"a":1,}',
        b'"a\nb"',
        b'"a\x00b"',
        b'"a\tb"',
        b'"\\x41"',
        b'"\\u12"',
        b"\xff",
        b'"\xc3"',
        b'"\xed\xa0\xbd"',
        b"\xef\xbb\xbf1",
        b"1\x00",
        b'["\\ud83d", NaN]',
        b'["\\ud83d",]',
        b'["\\ud83d"] 1',
        b'"\\ud83d" 1',
        b'"\\ud83d',
        b'["\\ud83d"',
    ],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidJSON):
        content.pack(JSON, body)


@pytest.mark.parametrize("wrap", ["[%s]", '{"a":%s}', '["\\ud83d", %s]'])
def test_deep_nesting_is_taken_or_refused_but_never_fatal(wrap: str) -> None:
    body = b"1"
    for part in wrap.split("%s")[:1]:
        body = part.encode() * 100_000 + body + wrap.split("%s")[1].encode() * 100_000
    with pytest.raises(InvalidJSON):
        content.pack(JSON, body)


LEAVES = {
    "plain": "1",
    "half-a-pair": '"\\ud83d"',
    "long": "7" * 5000,
    "large": '"%s"' % ("x" * 100_000),
    "out-of-range": "1e400",
}


@pytest.mark.parametrize("leaf", LEAVES.values(), ids=LEAVES.keys())
@pytest.mark.parametrize("wrap", ["[%s]", '{"a":%s}', '[{"a":%s},2]'])
@pytest.mark.slow
def test_whatever_depth_is_taken_can_be_read_with_less_of_the_stack(leaf: str, wrap: str) -> None:
    """In threads, which begin with an empty stack: the tests' own is deep."""
    opening, closing = wrap.split("%s")

    def take(depth: int) -> bytes | None:
        try:
            return content.pack(JSON, f"{opening * depth}{leaf}{closing * depth}".encode())
        except InvalidJSON:
            return None

    def read(stored: bytes, frames: int = 100) -> Any:
        return read(stored, frames - 1) if frames else decode(JSON, stored)

    deepest = sys.getrecursionlimit() // wrap.count("%s") + 10
    taken = 0
    for depth in [100, 300, *range(deepest - 300, deepest)]:
        with ThreadPoolExecutor(1) as thread:
            stored = thread.submit(take, depth).result()
            if stored is None:
                continue
            taken = depth
            for line in stored.splitlines():
                assert read(line) is not None
    assert taken >= 300


@pytest.mark.parametrize("leaf", ["", "\ud83d", 10**4000, 1.0], ids=["plain", "half-a-pair", "long", "float"])
def test_a_value_of_whatever_depth_that_is_taken_can_be_read(leaf: object) -> None:
    def take(depth: int) -> bytes | None:
        value: object = leaf
        for number in range(depth):
            value = [value] if number % 2 else {"": value}
        try:
            return encode(JSON, value, json.JSONEncoder(ensure_ascii=False, allow_nan=False))
        except InvalidJSON:
            return None

    deepest = sys.getrecursionlimit()
    for depth in [100, 300, *range(deepest - 300, deepest, 2)]:
        with ThreadPoolExecutor(1) as thread:
            stored = thread.submit(take, depth).result()
            assert stored is not None or depth > 300
            if stored is not None:
                assert decode(JSON, stored[:-1]) is not None


pieces = st.sampled_from(
    [*'[]{},:"\\ \n\r\t0123456789.-+eE', "true", "null", '"a"', "\\u00e9", "\\ud83d", "\\n", "NaN", "é", "\x00", "1.0"]
)


@given(st.lists(pieces, max_size=12).map("".join))
@example("-")
@example("[-]")
@example("1e")
@example('{"a":-}')
@example('{"\\ud83d":1}')
@example("[\n1\n,\n2\n]")
def test_a_body_is_taken_exactly_when_it_is_json(text: str) -> None:
    body = text.encode()
    try:
        value = oracle(body)
    except (ValueError, RecursionError):
        with pytest.raises(InvalidJSON):
            json_text.to_lines(body)
        return
    outcome = json_text.to_lines(body).splitlines()
    assert [json.loads(message) for message in outcome] == (value if isinstance(value, list) else [value])


@given(st.binary())
def test_other_types_are_stored_and_returned_as_they_came(body: bytes) -> None:
    for content_type in ("text/plain", "application/octet-stream", "application/ndjson", "application/json-seq"):
        assert content.unpack(content_type, content.pack(content_type, body)) == body


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/json; charset=utf-8", "a/b", "application/vnd.x+json", 'a/b;c="d"', r'a/b; c="d,\"e"'],
)
def test_a_media_type_is_kept_as_it_came(content_type: str) -> None:
    assert content.validate(content_type) == content_type


@pytest.mark.parametrize(
    "content_type",
    [
        *["", "json", "a/", "/b", "a/b c", "a/b\n", "a/b;\r\nx: y", "a/b/c", "a" * 255 + "/b"],
        # A browser would see the last one.
        *["text/plain, application/pdf", "text/plain;, application/pdf", "text/plain; x=y, application/pdf"],
        *['text/plain; x="y", application/pdf', 'text/plain; x="y, application/pdf', r'a/b; x="y\", application/pdf'],
    ],
)
def test_what_is_no_media_type_is_refused(content_type: str) -> None:
    with pytest.raises(InvalidHeader):
        content.validate(content_type)


def test_types_are_the_same_whatever_their_case_and_parameters() -> None:
    assert content.same_type("Text/Plain;charset=utf-8", "text/plain")
    assert not content.same_type("text/plain", "text/html")
    assert content.is_json("Application/JSON; charset=utf-8")
    assert not content.is_json("application/json-patch+json")


def test_text_and_json_are_carried_as_text() -> None:
    assert content.is_text("text/markdown")
    assert content.is_text("application/json")
    assert not content.is_text("application/xml")
