"""Large JSON bodies: what they cost others, and that they stay as they came."""

import json
import random
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_durable_streams.protocol import json_text
from django_durable_streams.protocol.errors import InvalidJSON
from tests.nasty import MIB, Nasty, json_bodies

# By where it is: of a large one the interpreter may be held for one look, and for pieces.
SMALL_ENOUGH_TO_TAKE_APART = 512 * 1024

NASTY = list(json_bodies(MIB))


@pytest.mark.parametrize("nasty", NASTY, ids=str)
def test_a_large_body_is_taken_apart_in_pieces(nasty: Nasty, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[tuple[int, int]] = []
    real = json_text._array

    class Recorder:
        def decode(self, text: bytes) -> list[Any]:
            result = real.decode(text)
            taken.append((len(text), len(result)))
            return result

    monkeypatch.setattr(json_text, "_array", Recorder())
    monkeypatch.setattr(json_text, "random", random.Random(1))
    if nasty.messages is None:
        with pytest.raises(InvalidJSON):
            json_text.to_lines(nasty.body)
        assert taken == []
        return
    stored = json_text.to_lines(nasty.body)
    assert stored.count(b"\n") == nasty.messages
    # Many messages never come out of one call.
    assert all(size < SMALL_ENOUGH_TO_TAKE_APART or count < 1000 for size, count in taken)


@pytest.mark.parametrize("nasty", NASTY, ids=str)
@pytest.mark.slow
def test_a_large_body_needs_memory_for_some_copies_of_itself_and_no_objects(nasty: Nasty) -> None:
    tracemalloc.start()
    try:
        json_text.to_lines(nasty.body)
    except InvalidJSON:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # And what the largest piece takes.
    assert peak < 5 * len(nasty.body) + 8 * MIB


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


@given(
    st.lists(values, max_size=40),
    st.sampled_from([None, (", ", ": "), (" ,\n", " :\r\n")]),
    st.booleans(),
    st.integers(4, 64),
    st.randoms(use_true_random=False),
)
def test_pieces_are_cut_between_messages(
    messages: list[Any], separators: tuple[str, str] | None, surrogates: bool, size: int, chance: random.Random
) -> None:
    if surrogates:
        messages = [*messages, "\ud83d", {"\ude00": "\\ud83d \ud83d"}]
    parts = [json.dumps(message, separators=separators, ensure_ascii=surrogates) for message in messages]
    body = f"[{(separators or (',', ':'))[0].join(parts)}]".encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "PIECE_BYTES", size)
        patch.setattr(json_text, "random", chance)
        stored = json_text.to_lines(body)
    spaced = [part.replace("\r", " ").replace("\n", " ").encode() for part in parts]
    assert stored == b"".join(part + b"\n" for part in spaced)


@pytest.mark.parametrize("before", [0, 1, json_text.UTF8_BYTES - 3, json_text.UTF8_BYTES, 2 * json_text.UTF8_BYTES + 1])
@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\xbd"])
def test_where_a_body_is_not_utf_8_is_said(before: int, bad: bytes) -> None:
    body = b'"' + b"x" * before + "é".encode() + bad + b'"'
    with pytest.raises(InvalidJSON, match=rf"byte {before + 3} "):
        json_text.to_lines(body)
