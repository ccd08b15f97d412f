"""Values from Python: encoded as Django's JSON encoder does, or refused with their place."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import re
import uuid
from typing import Any

import msgspec
import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.utils.functional import lazystr
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import content, values
from django_durable_streams.protocol.errors import BadRequest, InvalidJSON, PayloadTooLarge
from django_durable_streams.store.encoding import encode

JSON, TEXT = "application/json", "text/plain"


class Number(enum.IntEnum):
    ONE = 1


class Word(enum.StrEnum):
    ONE = "one"


class Plain(enum.Enum):
    ONE = 1


@dataclasses.dataclass
class Record:
    a: int


class Structure(msgspec.Struct):
    a: int


SAID: list[Any] = [
    None,
    True,
    0,
    -1,
    2**64,
    -(10**30),
    1.5,
    1e300,
    5e-324,
    "",
    "text",
    "é €",
    "\U0001f600",
    '"\\/\b\f\n\r\t\0\x7f\u2028',
    [],
    [[1], [[2]]],
    (1, (2,)),
    {},
    {"a": {"b": [1]}},
    {1: "a", None: "b", False: "c", 1.5: "d"},
    Number.ONE,
    Word.ONE,
    SafeString("safe"),
    dt.datetime(2030, 1, 31, 12, 0, 0, 123_456, tzinfo=dt.UTC),
    dt.datetime(2030, 1, 31, 12, 0, 0, 1000, tzinfo=dt.timezone(dt.timedelta(hours=2))),
    dt.datetime(2030, 1, 31),
    dt.date(2030, 1, 31),
    dt.time(12, 30),
    dt.timedelta(days=1, seconds=2, microseconds=3),
    decimal.Decimal("1.10"),
    uuid.UUID(int=7),
    gettext_lazy("Streams"),
    {"nested": [lazystr("lazy"), {"when": dt.date(2030, 1, 31)}]},
]


def named(part: object) -> str:
    """Return a name for a test that is the same in every process: the address of an object is not."""
    return re.sub(r" at 0x\w+", "", repr(part))[:40]


@pytest.mark.parametrize("value", SAID, ids=lambda value: f"{type(value).__name__} {value!r}"[:40])
def test_values_of_django_are_encoded_as_django_encodes_them(value: Any) -> None:
    stored = encode(JSON, value)
    assert stored.endswith(b"\n")
    assert b"\n" not in stored[:-1]
    assert json.loads(stored) == json.loads(json.dumps(value, cls=DjangoJSONEncoder))
    assert values.decode(JSON, stored[:-1]) == json.loads(stored)


REFUSED: list[tuple[Any, str]] = [
    (math.nan, r"message is nan"),
    (math.inf, r"message is inf"),
    ([1, {"a": -math.inf}], r"message\[1\]\['a'\] is -inf"),
    ({1, 2}, r"message is a set"),
    ({"a": [0, frozenset()]}, r"message\['a'\]\[1\] is a frozenset"),
    (object(), r"message is a object"),
    ({"a": b"x"}, r"message\['a'\] is a bytes"),
    ([bytearray(b"x")], r"message\[0\] is a bytearray"),
    (Plain.ONE, r"message is a Plain"),
    (Record(1), r"message is a Record"),
    (Structure(1), r"message is a Structure"),
    (1j, r"message is a complex"),
    (range(3), r"message is a range"),
    ((number for number in range(3)), r"message is a generator"),
    ({"a": {(1, 2): 3}}, r"message\['a'\] has the key \(1, 2\), a tuple"),
    ({b"a": 1}, r"message has the key b'a', a bytes"),
    (dt.time(12, tzinfo=dt.UTC), r"message is a time.*timezone-aware"),
    ({math.nan: 1}, r"nan"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED, ids=named)
def test_values_without_json_are_refused_with_their_place(value: Any, message: str) -> None:
    with pytest.raises(InvalidJSON, match=message):
        encode(JSON, value)


def test_a_key_that_is_too_long_to_be_shown_is_refused() -> None:
    for value in (1, object()):
        with pytest.raises(InvalidJSON, match="cannot be JSON"):
            encode(JSON, {10**5000: value})


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = None
    for _ in range(100_000):
        deep = [deep]
    for value in (circle, deep):
        with pytest.raises(InvalidJSON):
            encode(JSON, value)
    while deep is not None:  # or its end would be too deep for Python
        deep = deep[0]


JSON_TEXTS = [
    (b'{"a": 1.0}', b'{"a": 1.0}'),
    (b" [1,\n2] ", b"[1, 2]"),
    (b"[]", b"[]"),
    (b"12345678901234567890123", b"12345678901234567890123"),
    (rb'"\ud83d"', rb'"\ud83d"'),
    (bytearray(b"null"), b"null"),
    (memoryview(b"true"), b"true"),
]


@pytest.mark.parametrize(("value", "stored"), JSON_TEXTS, ids=named)
def test_bytes_are_json_text_and_stay_as_they_were_written(value: Any, stored: bytes) -> None:
    assert encode(JSON, value) == stored + b"\n"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b"x",
        b"1 2",
        b"1,2",
        b"1],[2",
        b"]",
        b'{"a":',
        b"NaN",
        b"\xff",
        b'"\xe2\x82"',
        b"\xef\xbb\xbf1",
        b"[1][",
    ],
)
def test_other_bytes_are_refused(value: bytes) -> None:
    with pytest.raises(InvalidJSON):
        encode(JSON, value)


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_every_text_is_read_as_it_was_written(text: str) -> None:
    stored = encode(JSON, text)
    assert values.decode(JSON, stored[:-1]) == text
    assert content.pack(JSON, stored) == stored  # as HTTP would accept it


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
)


@given(plain)
def test_every_value_is_read_as_it_was_written(value: Any) -> None:
    assert values.decode(JSON, encode(JSON, value)[:-1]) == value


class TestText:
    @pytest.mark.parametrize("value", ["text", b"bytes", bytearray(b"bytes"), memoryview(b"bytes")])
    def test_bytes_and_text_are_taken_as_they_are(self, value: Any) -> None:
        assert encode(TEXT, value) == (value.encode() if isinstance(value, str) else bytes(value))

    def test_half_of_a_surrogate_pair_is_refused_with_its_place(self) -> None:
        with pytest.raises(BadRequest, match="character 2"):
            encode(TEXT, "ab\ud83d")

    @pytest.mark.parametrize("value", [None, 1, ["a"], {"a": 1}, object()])
    def test_other_types_are_refused(self, value: Any) -> None:
        with pytest.raises(TypeError, match="bytes or str"):
            encode(TEXT, value)


class OneOfTheProjects(DjangoJSONEncoder):
    """Says sets as lists."""

    def default(self, o: Any) -> Any:
        return sorted(o) if isinstance(o, set) else super().default(o)


class OnManyLines(json.JSONEncoder):
    """Writes in a way of its own, which must not tear messages."""

    def encode(self, o: Any) -> str:
        return json.dumps(o, indent=2)


class Broken(json.JSONEncoder):
    def encode(self, o: Any) -> str:
        return "no json\n"


class TestTheSetting:
    def test_an_encoder_of_the_projects_is_used(self, settings: Any) -> None:
        settings.DURABLE_STREAMS = {"JSON_ENCODER": "tests.store.test_encoding.OneOfTheProjects"}
        assert encode(JSON, {"a": {3, 1}}) == b'{"a":[1,3]}\n'
        with pytest.raises(InvalidJSON, match=r"message\['a'\] is a object"):
            encode(JSON, {"a": object()})

    def test_with_any_encoder_a_message_is_one_line_of_json(self, settings: Any) -> None:
        settings.DURABLE_STREAMS = {"JSON_ENCODER": "tests.store.test_encoding.OnManyLines"}
        assert json.loads(encode(JSON, {"a": [1, 2]})) == {"a": [1, 2]}
        assert encode(JSON, {"a": [1, 2]}).count(b"\n") == 1
        settings.DURABLE_STREAMS = {"JSON_ENCODER": "tests.store.test_encoding.Broken"}
        with pytest.raises(InvalidJSON):
            encode(JSON, 1)

    def test_the_limit_is_that_of_http(self, settings: Any) -> None:
        settings.DURABLE_STREAMS = {"MAX_APPEND_BYTES": 10}
        assert encode(TEXT, "x" * 10)
        for kind, value in ((TEXT, "x" * 11), (JSON, "x" * 10), ("a/b", b"x" * 11)):
            with pytest.raises(PayloadTooLarge, match="MAX_APPEND_BYTES"):
                encode(kind, value)


@pytest.mark.parametrize("digits", [4300, 4301, 20_000])
@pytest.mark.parametrize("sign", ["", "-"])
def test_an_integer_of_any_length_is_read(digits: int, sign: str) -> None:
    number = sign + "7" * digits
    decoded = values.decode(JSON, b'{"n": %s}' % number.encode())["n"]
    assert f"{decimal.Decimal(decoded):f}" == number


def test_deeply_nested_values_are_decoded_on_a_small_stack() -> None:
    def with_little_room(frames: int) -> Any:
        return with_little_room(frames - 1) if frames else values.decode(JSON, stored)

    stored = content.pack(JSON, b"[" * 700 + b"]" * 700)[:-1]
    decoded, depth = with_little_room(200), 0
    while decoded:
        decoded, depth = decoded[0], depth + 1
    assert depth == 698
